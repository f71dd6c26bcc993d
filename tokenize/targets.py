"""What is to be predicted: a stated signal on the bins of a grid, or a class for each trial.

A target is a row of data, not code: it names streams and ops, so that its digest says what a score is of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.tokenize.grid import grid_values
from neurofmx.types import Intervals, Op, Recording


@dataclass(frozen=True, kw_only=True)
class Where:
    """Keeps the rows of an Intervals stream whose column fits; rows with NaN in it never do.

    Args:
        column: name of the column.
        minimum: smallest value kept, or None.
        maximum: largest value kept, or None.
        values: texts kept, or empty for any.
    """

    column: str
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """One target, of either kind.

    Args:
        kind: ``continuous`` (per bin) or ``class`` (per trial).
        stream: Samples or Events to predict, or the Intervals that hold the trials.
        channels: continuous: ids to predict, in order; empty means all.
        ops: continuous: steps from the stream to one value a bin (``tokenize.ops``); smoothing is stated here.
        within: continuous: Intervals stream outside which nothing is scored, or ``""``.
        where: filters on the rows of ``within`` (continuous) or of ``stream`` (class).
        min_speed: continuous: bins are scored where the path of the target moves faster (its unit per second).
        column: class: column that holds the label.
        minus: class: a second column; the label is then the sign of ``column - minus``: ``-1``, ``0``, ``1``.
        classes: class: labels in order; rows of another label are left out. Empty means those found, sorted.
        align: class: ``start_s``, ``stop_s`` or a column of times in seconds.
        offset_s: class: start of the window relative to ``align``.
        duration_s: class: length of the window in seconds.
        repeats: class: windows a trial, ``step_s`` apart.
        step_s: class: distance between windows of one trial in seconds.
        group: class: column whose values belong together in a split, or ``""`` for each trial by itself.
    """

    kind: Literal["continuous", "class"]
    stream: str
    channels: tuple[str, ...] = ()
    ops: tuple[Op, ...] = (Op("bin_mean"),)
    within: str = ""
    where: tuple[Where, ...] = ()
    min_speed: float = 0.0
    column: str = ""
    minus: str = ""
    classes: tuple[str, ...] = ()
    align: str = "start_s"
    offset_s: float = 0.0
    duration_s: float = 0.0
    repeats: int = 1
    step_s: float = 0.0
    group: str = ""


def target_names(recording: Recording, spec: TargetSpec) -> tuple[str, ...]:
    """The D dimension names of a continuous target, or the class names."""
    if spec.kind == "class":
        return trial_target(recording, spec)[2]
    stream = recording.stream(spec.stream)
    if isinstance(stream, Intervals):
        raise ConfigError(f"target stream {spec.stream!r}", got="Intervals", expected="Samples or Events")
    return spec.channels or stream.channels.ids


def continuous_target(
    recording: Recording, spec: TargetSpec, *, t0_s: float, dt_s: float, n_bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """The target on the bins of a grid.

    Args:
        recording: holds the target's stream.
        spec: a continuous target.
        t0_s: edge of the first bin, session clock.
        dt_s: bin width in seconds.
        n_bins: number of bins T.

    Returns:
        values (T, D) float32, zero where unknown, and mask (T,) bool: every dimension is known and the
        bin is one that the spec scores.

    Raises:
        ConfigError: the stream, a channel or an op does not exist or does not fit.
    """
    stream = recording.stream(spec.stream)
    if spec.kind != "continuous" or isinstance(stream, Intervals):
        raise ConfigError(
            f"target on {spec.stream!r}", got=spec.kind, expected="a continuous target of Samples or Events"
        )
    values, known = grid_values(stream, spec.ops, t0_s=t0_s, dt_s=dt_s, n_bins=n_bins)
    if values.shape[2] != 1:
        raise ConfigError(f"target on {spec.stream!r}", got=f"{values.shape[2]} fields", expected="one value a bin")
    rows = [_row(stream.channels.ids, c, spec.stream) for c in spec.channels] or list(range(values.shape[1]))
    y = values[:, rows, 0]
    mask: np.ndarray = np.all(known[:, rows], axis=1)
    if spec.min_speed > 0:
        mask = np.logical_and(mask, _path_speed(y, mask, dt_s) > spec.min_speed)
    if spec.within:
        epochs = _intervals(recording, spec.within)
        keep = kept_rows(epochs, spec.where, spec.within)
        spans = np.stack([epochs.start_s[keep], epochs.stop_s[keep]], axis=1)
        mask = np.logical_and(mask, _inside(spans, t0_s, dt_s, n_bins))
    return np.where(mask[:, None], y, 0.0).astype(np.float32), mask


def trial_target(recording: Recording, spec: TargetSpec) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], np.ndarray]:
    """The windows and labels of the trials.

    Args:
        recording: holds the Intervals stream.
        spec: a class target.

    Returns:
        start_s (N,) float64 of each window, ascending; label (N,) int64 row of classes; classes; group (N,) str.

    Raises:
        ConfigError: the stream or a column does not exist, or no trial has one of the classes.
    """
    if spec.kind != "class":
        raise ConfigError(f"target on {spec.stream!r}", got=spec.kind, expected="a class target")
    trials = _intervals(recording, spec.stream)
    labels = _labels(trials, spec)
    times = _align(trials, spec)
    keep = kept_rows(trials, spec.where, spec.stream) & np.isfinite(times) & (labels != "")
    classes = spec.classes or tuple(sorted(set(labels[keep].tolist())))
    keep &= np.isin(labels, classes)
    if not keep.any():
        raise ConfigError(
            f"trials of {recording.id} in {spec.stream!r}",
            got=f"no row with {spec.column!r} in {list(classes)}; there are {sorted(set(labels.tolist()))[:8]}",
            expected="at least one trial",
        )
    group = _text(_column(trials, spec.group, spec.stream)) if spec.group else np.arange(len(labels)).astype(str)
    row = {name: i for i, name in enumerate(classes)}
    label = np.array([row[x] for x in labels[keep]], dtype=np.int64)
    steps = spec.offset_s + spec.step_s * np.arange(spec.repeats)
    start = (times[keep][:, None] + steps).ravel()
    order = np.argsort(start, kind="stable")
    label, groups = np.repeat(label, spec.repeats), np.repeat(group[keep], spec.repeats)
    return start[order], label[order], classes, groups[order]


def _row(ids: tuple[str, ...], channel: str, stream: str) -> int:
    if channel not in ids:
        raise ConfigError(f"channel {channel!r} of {stream!r}", expected=f"one of {list(ids)[:12]}")
    return ids.index(channel)


def _intervals(recording: Recording, name: str) -> Intervals:
    stream = recording.stream(name)
    if not isinstance(stream, Intervals):
        raise ConfigError(f"stream {name!r} of {recording.id}", got=type(stream).__name__, expected="Intervals")
    return stream


def _column(trials: Intervals, name: str, stream: str) -> np.ndarray:
    if name not in trials.columns:
        raise ConfigError(f"column {name!r} of {stream!r}", expected=f"one of {sorted(trials.columns)}")
    return np.asarray(trials.columns[name])


def _text(column: np.ndarray) -> np.ndarray:
    """A column as texts: whole numbers without a point, unknown as ``""``."""

    def one(x: Any) -> str:
        if isinstance(x, (float, np.floating)):
            return "" if np.isnan(x) else (str(int(x)) if float(x).is_integer() else repr(float(x)))
        return str(x)

    return np.array([one(x) for x in column], dtype=str)


def _labels(trials: Intervals, spec: TargetSpec) -> np.ndarray:
    column = _column(trials, spec.column, spec.stream)
    if spec.minus:
        return _text(np.sign(column.astype(float) - _column(trials, spec.minus, spec.stream).astype(float)))
    return _text(column)


def _align(trials: Intervals, spec: TargetSpec) -> np.ndarray:
    if spec.align in ("start_s", "stop_s"):
        return np.asarray(getattr(trials, spec.align), dtype=np.float64)
    return _column(trials, spec.align, spec.stream).astype(np.float64)


def kept_rows(rows: Intervals, where: tuple[Where, ...], stream: str) -> np.ndarray:
    """(N,) bool: the rows of an Intervals stream that every filter keeps; ``stream`` names it in messages."""
    keep = np.ones(len(rows.start_s), dtype=bool)
    for w in where:
        column = _column(rows, w.column, stream)
        if w.values:
            keep &= np.isin(_text(column), w.values)
        if w.minimum is not None:
            keep &= column.astype(float) >= w.minimum
        if w.maximum is not None:
            keep &= column.astype(float) <= w.maximum
    return keep


def _inside(spans: np.ndarray, t0_s: float, dt_s: float, n_bins: int) -> np.ndarray:
    """(T,) bool: the centre of the bin lies in one of the spans, which may overlap."""
    centres = t0_s + (np.arange(n_bins) + 0.5) * dt_s
    opened = np.searchsorted(np.sort(spans[:, 0]), centres, side="right")
    closed = np.searchsorted(np.sort(spans[:, 1]), centres, side="right")
    return opened > closed


def _path_speed(y: np.ndarray, mask: np.ndarray, dt_s: float) -> np.ndarray:
    """(T,) speed of the path by central difference; zero beside an unknown bin."""
    speed = np.zeros(len(y))
    if len(y) > 2:
        speed[1:-1] = np.linalg.norm((y[2:] - y[:-2]).astype(np.float64), axis=1) / (2 * dt_s)
        speed[1:-1][~(mask[2:] & mask[:-2])] = 0.0
    return speed
