"""What classical decoders read: rows of features with their targets, in cells that folds are unions of.

Legend: n rows (bins or windows), F features (modality, channel, field), L lags, D target dimensions, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from neurofmx.tokenize.windows import RecordingWindows, TaskData

SEGMENTS = 24  # most time steps of a window that a time-resolved classifier reads


@dataclass(frozen=True, kw_only=True)
class Design:
    """Recordings that one decoder is fitted to: one alone, or all where channels are shared.

    Args:
        kind: ``continuous`` or ``class``.
        classes: K, or 0.
        x: (n, F) float64, centred; what is unknown is 0, the mean over what is known.
        kind_of: (F,) int, which field of which modality each feature is.
        y: (n, D) float64 or (n,) int64.
        known: (n,) bool, rows with a target.
        cell: (n,) int; folds, and folds inside training data, are unions of cells.
        folds: fold -> its cells.
        sequence: (n,) int, stretch of consecutive bins inside one unit.
        at: (n, 3) int: number of the recording, window, bin.
        timed: (n, F') time-resolved features of windows; empty for bins.
        raw: (n, C, S) waveforms of windows where an input is raw, else None.
        raw_hz: their sampling rate.
        controls: name -> (n, J) features of a control.
    """

    kind: str
    classes: int
    x: np.ndarray
    kind_of: np.ndarray
    y: np.ndarray
    known: np.ndarray
    cell: np.ndarray
    folds: Mapping[int, tuple[int, ...]]
    sequence: np.ndarray
    at: np.ndarray
    timed: np.ndarray
    raw: np.ndarray | None = None
    raw_hz: float = 0.0
    controls: Mapping[str, np.ndarray] = field(default_factory=dict)

    def rows(self, cells: Sequence[int] | frozenset[int]) -> np.ndarray:
        """(n,) bool: the rows of some cells."""
        return np.isin(self.cell, list(cells))

    @cached_property
    def position(self) -> np.ndarray:
        """(n,) place of each row in its sequence."""
        first = np.concatenate([[True], self.sequence[1:] != self.sequence[:-1]])
        start = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))
        return np.arange(len(first)) - start

    @cached_property
    def remaining(self) -> np.ndarray:
        """(n,) rows that follow in the sequence."""
        length = np.bincount(np.unique(self.sequence, return_inverse=True)[1])
        return length[np.unique(self.sequence, return_inverse=True)[1]] - 1 - self.position

    @cached_property
    def field_scale(self) -> np.ndarray:
        """(F,) root mean square of each feature's field over its channels: units vanish, loud channels stay loud."""
        power = np.square(self.x).mean(axis=0)
        total = np.bincount(self.kind_of, weights=power) / np.maximum(np.bincount(self.kind_of), 1)
        return np.sqrt(np.maximum(total, 1e-18))[self.kind_of]

    @cached_property
    def kept(self) -> dict[Any, Any]:
        """What decoders of the same rows share: lagged features and their sums, by what made them."""
        return {}

    def lagged(self, x: np.ndarray, lags: Sequence[int]) -> np.ndarray:
        """(n, L F): features of the bins that lie ``lags`` away in the same stretch; 0 (the mean) beyond its ends."""
        parts = []
        for lag in lags:
            inside = (self.position + lag >= 0) & (lag <= self.remaining)
            rows = np.clip(np.arange(len(x)) + lag, 0, len(x) - 1)
            parts.append(np.where(inside[:, None], x[rows], 0.0))
        return np.concatenate(parts, axis=1)


def designs(
    data: TaskData,
    *,
    joint: bool,
    raw: tuple[str, float] | None = None,
    controls: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> list[Design]:
    """Rows of every recording of a task.

    Args:
        data: windows.
        joint: one design over all recordings, whose channels are the same, instead of one a recording.
        raw: input that holds waveforms and their sampling rate, or None.
        controls: name -> one (N, J) array a recording.
    """
    numbers = range(len(data.recordings))
    return [_design(data, part, raw, controls or {}) for part in ([list(numbers)] if joint else [[n] for n in numbers])]


def _design(
    data: TaskData, numbers: list[int], raw: tuple[str, float] | None, controls: Mapping[str, Sequence[np.ndarray]]
) -> Design:
    parts = [data.recordings[n] for n in numbers]
    # the mean of a waveform says nothing; it is read as such only where there is no other input
    read = [m for m in data.fields if raw is None or m != raw[0]] or list(data.fields)
    columns = {c: i for i, c in enumerate(dict.fromkeys(c for w in parts for c in _columns(data, w, read)))}
    rows, blocks, masks = [], [], []
    for number, windows in zip(numbers, parts):
        at, values, real = _flat(data, windows, columns, read)
        rows.append(np.concatenate([np.full((len(at), 1), number), at], axis=1))
        blocks.append(values)
        masks.append(real)
    at = np.concatenate(rows)
    values, real = np.concatenate(blocks), np.concatenate(masks)  # (n, S, F), S time steps of a row
    count = np.maximum(real.sum(axis=(0, 1)), 1)
    centred = np.where(real, values - values.sum(axis=(0, 1), where=real) / count, 0.0)
    x = centred.sum(axis=1) / np.maximum(real.sum(axis=1), 1)
    timed = centred.reshape(len(at), -1) if data.kind == "class" else np.empty((len(at), 0))

    def gather(name: str) -> np.ndarray:
        held = {n: getattr(data.recordings[n], name) for n in numbers}
        if data.kind == "continuous" and name in ("target", "target_mask"):
            return np.concatenate([held[n][tuple(at[at[:, 0] == n, 1:].T)] for n in numbers])
        return np.concatenate([held[n][at[at[:, 0] == n, 1]] for n in numbers])

    fold, unit = gather("fold").astype(int), gather("unit")
    start = gather("start_s") + at[:, 2] * parts[0].dt_s
    new = (np.diff(start) > 1.5 * parts[0].dt_s) | (unit[1:] != unit[:-1]) | (at[1:, 0] != at[:-1, 0])
    cell, folds = _cells(fold, unit)
    return Design(
        kind=data.kind,
        classes=len(data.names) if data.kind == "class" else 0,
        x=x,
        kind_of=np.unique([f"{m}|{f}" for m, _, f in columns], return_inverse=True)[1],
        y=gather("target").astype(np.int64 if data.kind == "class" else np.float64),
        known=gather("target_mask"),
        cell=cell,
        folds=folds,
        sequence=np.concatenate([[0], np.cumsum(new)]),
        at=at,
        timed=timed,
        raw=None if raw is None else _waveforms(parts, raw[0]),
        raw_hz=0.0 if raw is None else raw[1],
        controls={name: np.concatenate([held[n] for n in numbers]) for name, held in controls.items()},
    )


def _columns(data: TaskData, windows: RecordingWindows, read: Sequence[str]) -> list[tuple[str, str, int]]:
    return [(m, c, f) for m in read for c in windows.channels[m] for f in range(len(data.fields[m]))]


def _flat(
    data: TaskData, windows: RecordingWindows, columns: Mapping[tuple[str, str, int], int], read: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, 2) window and bin; (n, S, F) values; (n, S, F) bool. Bins of a continuous task have S = 1."""
    mine = [columns[c] for c in _columns(data, windows, read)]
    shape = next(iter(windows.mask.values())).shape[:2]
    values = np.zeros((*shape, len(columns)))
    real = np.zeros((*shape, len(columns)), dtype=bool)
    values[..., mine] = np.concatenate([windows.values[m].reshape(*shape, -1) for m in read], axis=2)
    real[..., mine] = np.concatenate([np.repeat(windows.mask[m], len(data.fields[m]), axis=2) for m in read], axis=2)
    if data.kind == "class":
        return (np.stack([np.arange(shape[0]), np.zeros(shape[0], int)], axis=1), *_segments(values, real))
    at = np.argwhere(real.any(axis=2))
    return at, values[tuple(at.T)][:, None], real[tuple(at.T)][:, None]


def _segments(values: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over at most `SEGMENTS` stretches of each window."""
    if values.shape[1] <= SEGMENTS:
        return values, real
    edges = np.linspace(0, values.shape[1], SEGMENTS + 1).astype(int)
    total = np.add.reduceat(np.where(real, values, 0.0), edges[:-1], axis=1)
    count = np.add.reduceat(real.astype(float), edges[:-1], axis=1)
    return total / np.maximum(count, 1), count > 0


def _waveforms(parts: Sequence[RecordingWindows], modality: str) -> np.ndarray:
    """(n, C, S): patches laid end to end again."""
    joined = np.concatenate([w.values[modality] for w in parts]).astype(np.float64)
    n, t, c, p = joined.shape
    return joined.transpose(0, 2, 1, 3).reshape(n, c, t * p)


def _cells(fold: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, dict[int, tuple[int, ...]]]:
    """Cells are the folds; with fewer than three of them each fold is cut by units into up to four cells."""
    used = sorted(int(f) for f in np.unique(fold) if f >= 0)
    if len(used) >= 3:
        return fold.copy(), {f: (f,) for f in used}
    cell, folds, total = np.full(len(fold), -1), {}, 0
    for f in used:
        names, first = np.unique(unit[fold == f], return_index=True)
        rank = {name: i % 4 for i, name in enumerate(names[np.argsort(first)])}
        cell[fold == f] = total + np.array([rank[u] for u in unit[fold == f]])
        folds[f] = tuple(range(total, total + min(4, len(names))))
        total += min(4, len(names))
    return cell, folds
