"""Windows of tokens with their targets and folds: what training and evaluation read, as plain arrays.

A window lies inside one block of one fold and inside one stretch of valid time. The last window of a stretch
is padded with mask False, so every bin is scored once and none is invented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.splits import GUARD, Block
from neurofmx.tokenize.targets import TargetSpec, continuous_target, trial_target
from neurofmx.types import Recording, TokenGrid

# ends the name of an input whose channel ids mean the same in every recording of a dataset (a montage, an atlas)
SHARED = "@dataset"
EDGE = 1e-6  # share of a bin by which a border may miss an edge through rounding


@dataclass(frozen=True, kw_only=True)
class RecordingWindows:
    """All windows of one recording for one task.

    Args:
        recording: text form of the recording id.
        values: modality -> (N, T, C, P) float32.
        mask: modality -> (N, T, C) bool, True where data are real.
        channels: modality -> C channel ids.
        start_s: (N,) float64 edge of each window's first bin, session clock.
        dt_s: bin width in seconds.
        target: (N, T, D) float32, or (N,) int64 class rows.
        target_mask: (N, T) or (N,) bool, True where the target is known and scored.
        fold: (N,) int8, fold in which the window is tested; -1 is a guard and never used.
        unit: (N,) str, resampling unit.
    """

    recording: str
    values: Mapping[str, np.ndarray]
    mask: Mapping[str, np.ndarray]
    channels: Mapping[str, tuple[str, ...]]
    start_s: np.ndarray
    dt_s: float
    target: np.ndarray
    target_mask: np.ndarray
    fold: np.ndarray
    unit: np.ndarray

    def __len__(self) -> int:
        return len(self.start_s)

    def take(self, rows: np.ndarray) -> RecordingWindows:
        """The same recording with only these windows (indices or a mask)."""
        return replace(
            self,
            values={m: v[rows] for m, v in self.values.items()},
            mask={m: v[rows] for m, v in self.mask.items()},
            **{k: getattr(self, k)[rows] for k in ("start_s", "target", "target_mask", "fold", "unit")},
        )


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """One task over recordings.

    Args:
        name: the task.
        kind: ``continuous`` or ``class``.
        names: target dimensions, or classes.
        recordings: windows of each recording.
        fields: modality -> P field names.
    """

    name: str
    kind: Literal["continuous", "class"]
    names: tuple[str, ...]
    recordings: tuple[RecordingWindows, ...]
    fields: Mapping[str, tuple[str, ...]]


def task_fields(grids: Mapping[str, TokenGrid]) -> dict[str, tuple[str, ...]]:
    """Modality -> P field names, as `TaskData` wants them."""
    return {m: g.fields for m, g in grids.items()}


def continuous_windows(
    grids: Mapping[str, TokenGrid],
    target: TargetSpec,
    recording: Recording,
    blocks: Sequence[Block],
    *,
    window_bins: int,
    hop_bins: int | None = None,
) -> RecordingWindows:
    """Cuts aligned grids into windows with a target for every bin.

    Args:
        grids: modality -> tokens, all on the same bins.
        target: a continuous target.
        recording: holds the target's stream.
        blocks: where windows may lie, and their folds.
        window_bins: bins a window, T.
        hop_bins: bins between starts of windows; ``window_bins`` when None, so that no bin is in two.

    Returns:
        Windows in time order. Windows in which no target is known are left out.

    Raises:
        ConfigError: grids on different bins, or a target that does not fit.
    """
    t0_s, dt_s, n = _shared_bins(grids)
    y, known = continuous_target(recording, target, t0_s=t0_s, dt_s=dt_s, n_bins=n)
    real = np.logical_or.reduce([g.mask.any(axis=1) for g in grids.values()])
    hop = hop_bins or window_bins
    starts, stops, folds, units = [], [], [], []
    for block in sorted(blocks, key=lambda b: b.start_s):
        lo = max(0, int(np.ceil((block.start_s - t0_s) / dt_s - EDGE)))
        hi = min(n, int(np.floor((block.stop_s - t0_s) / dt_s + EDGE)))
        for a, b in _runs(real, lo, hi):
            first = np.arange(a, b, hop)
            last = np.minimum(first + window_bins, b)
            keep = np.array([known[i:j].any() for i, j in zip(first, last)], dtype=bool)
            starts.append(first[keep])
            stops.append(last[keep])
            folds += [block.fold] * int(keep.sum())
            units += [block.unit] * int(keep.sum())
    first = np.concatenate([*starts, np.empty(0, int)]).astype(int)
    last = np.concatenate([*stops, np.empty(0, int)]).astype(int)
    index, inside = _index(first, last, window_bins)
    scored = known[index] & inside
    return RecordingWindows(
        recording=str(recording.id),
        **_inputs(grids, index, inside),
        start_s=t0_s + first * dt_s,
        dt_s=dt_s,
        target=np.where(scored[..., None], y[index], 0.0).astype(np.float32),
        target_mask=scored,
        fold=np.array(folds, dtype=np.int8),
        unit=np.array(units, dtype=str),
    )


def trial_windows(
    grids: Mapping[str, TokenGrid],
    target: TargetSpec,
    recording: Recording,
    blocks: Sequence[Block] = (),
    *,
    folds: Mapping[str, int] | None = None,
) -> RecordingWindows:
    """Cuts aligned grids into one window a trial, with a class each.

    A window begins at the bin edge nearest to the trial's time, so it is off by at most half a bin.

    Args:
        grids: modality -> tokens, all on the same bins.
        target: a class target with explicit ``classes`` where several recordings are to agree.
        recording: holds the trials.
        blocks: blocks whose fold and unit a window takes when it lies wholly inside.
        folds: group -> fold, instead of blocks; the unit is then the recording and its group.

    Returns:
        Windows in time order; those that cross a block border, or whose group has no fold, have fold -1.
        Windows outside the grid or without any real bin are left out.

    Raises:
        ConfigError: neither or both of blocks and folds, or a window shorter than a bin.
    """
    if (len(blocks) > 0) == (folds is not None):
        raise ConfigError("folds of trial windows", expected="blocks or folds of groups, exactly one of them")
    t0_s, dt_s, n = _shared_bins(grids)
    start_s, label, _, group = trial_target(recording, target)
    bins = round(target.duration_s / dt_s)
    if bins < 1:
        raise ConfigError(
            f"window of target on {target.stream!r}",
            got=f"{target.duration_s} s",
            expected=f"at least one bin of {dt_s} s",
        )
    first = np.floor((start_s - t0_s) / dt_s + 0.5 + EDGE).astype(int)
    inside_grid = (first >= 0) & (first + bins <= n)
    real = np.logical_or.reduce([g.mask.any(axis=1) for g in grids.values()])
    seen = np.concatenate([[0], np.cumsum(real)])
    at = np.clip(first, 0, n - bins) if n >= bins else np.zeros_like(first)
    keep = inside_grid & (seen[np.minimum(at + bins, n)] > seen[at])
    first, label, group = first[keep], label[keep], group[keep]
    index, inside = _index(first, first + bins, bins)
    begin = t0_s + first * dt_s
    rid = str(recording.id)
    if folds is None:
        fold, unit = _in_blocks(begin, bins * dt_s, blocks, dt_s)
    else:
        fold = np.array([folds.get(g, GUARD) for g in group], dtype=np.int8)
        unit = np.array([f"{rid}#{g}" for g in group], dtype=str)
    return RecordingWindows(
        recording=rid,
        **_inputs(grids, index, inside),
        start_s=begin,
        dt_s=dt_s,
        target=label,
        target_mask=np.ones(len(label), dtype=bool),
        fold=fold,
        unit=unit,
    )


def _shared_bins(grids: Mapping[str, TokenGrid]) -> tuple[float, float, int]:
    """t0, dt and the number of bins that all grids have."""
    if not grids:
        raise ConfigError("windows", got="no token grids", expected="at least one modality")
    first = next(iter(grids.values()))
    for name, grid in grids.items():
        if abs(grid.t0_s - first.t0_s) > EDGE * first.dt_s or not np.isclose(grid.dt_s, first.dt_s, rtol=1e-9):
            raise ConfigError(
                f"bins of {name}",
                got=f"t0 {grid.t0_s} s, step {grid.dt_s} s",
                expected=f"t0 {first.t0_s} s, step {first.dt_s} s",
                fix="Tokenize all modalities of a task with one bin_s.",
            )
    return first.t0_s, first.dt_s, min(len(g.mask) for g in grids.values())


def _runs(real: np.ndarray, lo: int, hi: int) -> list[tuple[int, int]]:
    """Stretches [a, b) of consecutive True bins between two bins."""
    if hi <= lo:
        return []
    edge = np.diff(np.concatenate([[0], real[lo:hi].astype(np.int8), [0]]))
    return [(lo + int(a), lo + int(b)) for a, b in zip(np.flatnonzero(edge == 1), np.flatnonzero(edge == -1))]


def _index(first: np.ndarray, last: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, T) rows of the grid, clipped to the window's end, and where they are inside the window."""
    index = first[:, None] + np.arange(bins)
    inside = index < last[:, None]
    return np.minimum(index, np.maximum(last - 1, 0)[:, None]), inside


def _inputs(grids: Mapping[str, TokenGrid], index: np.ndarray, inside: np.ndarray) -> dict[str, dict]:
    mask = {m: g.mask[index] & inside[..., None] for m, g in grids.items()}
    values = {}
    for m, g in grids.items():
        values[m] = g.values[index].astype(np.float32, copy=False)
        values[m][~mask[m]] = 0.0
    return {"values": values, "mask": mask, "channels": {m: g.channels.ids for m, g in grids.items()}}


def _in_blocks(
    start_s: np.ndarray, length_s: float, blocks: Sequence[Block], dt_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fold and unit of the block that wholly holds each window; -1 and ``guard`` where none does."""
    ordered = sorted(blocks, key=lambda b: b.start_s)
    begins = np.array([b.start_s for b in ordered])
    ends = np.array([b.stop_s for b in ordered])
    slack = EDGE * dt_s
    at = np.searchsorted(begins, start_s + slack, side="right") - 1
    held = (at >= 0) & (start_s + length_s <= ends[np.maximum(at, 0)] + slack)
    fold = np.where(held, np.array([b.fold for b in ordered])[np.maximum(at, 0)], GUARD).astype(np.int8)
    unit = np.where(held, np.array([b.unit for b in ordered])[np.maximum(at, 0)], "guard")
    return fold, unit
