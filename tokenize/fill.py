"""Fills one batch: finds the rows of every window, then reads them in the order of files straight into its buffers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neurofmx.errors import LakeCorrupt
from neurofmx.remote_reader import read_ahead
from neurofmx.tokenize.batches import Buffers, EventRows, SampleRows, WindowBatch
from neurofmx.tokenize.cursor import Cursor
from neurofmx.tokenize.mixture import Draws
from neurofmx.tokenize.plan import Column, Plan
from neurofmx.tokenize.streams import EventStream, SampleStream, in_valid, regular_rows
from neurofmx.types import clip_intervals

_F8, _F4, _I4, _BOOL = (np.dtype(t) for t in (np.float64, np.float32, np.int32, np.bool_))


class Damaged(Exception):
    """A recording that could not be read.

    Args:
        row: row of the recording in the plan.
        error: what the lake said.
    """

    def __init__(self, row: int, error: LakeCorrupt) -> None:
        super().__init__(str(error))
        self.row, self.error = row, error


def fill(plan: Plan, draws: Draws, buffers: Buffers, scratch: Buffers, cursor: Cursor) -> WindowBatch:
    """Reads one batch.

    Args:
        plan: the streams.
        draws: the windows, in any order.
        buffers: memory of the batch.
        scratch: memory that only this call uses while it runs.
        cursor: where the run stands behind this batch.

    Raises:
        Damaged: a recording's shard is missing or damaged; the batch means nothing.
    """
    draws = draws.taken(np.lexsort((draws.start_s, draws.recording)))
    streams: dict[str, SampleRows | EventRows] = {}
    for column in plan.columns:
        read = _events if column.kind == "events" else _samples
        streams[column.name] = read(plan, column, draws, _opened(plan, column, draws), buffers, scratch)
    return WindowBatch(
        number=draws.number,
        recording=draws.recording,
        start_s=draws.start_s,
        window_s=plan.mixture.window_s,
        streams=streams,
        cursor=cursor,
    )


def _opened(plan: Plan, column: Column, draws: Draws) -> list:
    row = 0
    try:
        return [plan.stream(column, row := other) for other in draws.recording.tolist()]
    except LakeCorrupt as error:
        raise Damaged(row, error) from error


def _samples(
    plan: Plan,
    column: Column,
    draws: Draws,
    streams: Sequence[SampleStream | None],
    buffers: Buffers,
    scratch: Buffers,
) -> SampleRows:
    start_s, stop_s, laws = draws.start_s, draws.start_s + plan.mixture.window_s, column.laws[draws.recording]
    first, last = regular_rows(laws, start_s, stop_s)
    first_s = laws[:, 1] + first / laws[:, 0]
    stated = _stated(draws, streams, stop_s, scratch)
    for i, (times, lo) in stated.items():
        first[i], last[i], first_s[i] = lo, lo + len(times), times[0] if len(times) else np.nan
    n = last - first
    first_s[n == 0] = np.nan
    offsets = np.zeros(len(n) + 1, np.int64)
    offsets[1:] = np.cumsum(n * np.nan_to_num(laws[:, 3]).astype(np.int64))
    values = buffers.get(f"{column.name}/values", int(offsets[-1]), column.dtype)
    mask = buffers.get(f"{column.name}/mask", int(n.sum()), _BOOL)
    mask[:] = True
    times_s = buffers.get(f"{column.name}/times_s", len(mask), _F4) if stated else None
    i = 0
    try:
        bounds = [a.tolist() for a in (first, last, offsets, offsets[1:])]
        wanted = [s and (s.array, lo, hi) for s, lo, hi in zip(streams, *bounds[:2])] if plan.lake.remote else []
        ahead = read_ahead(wanted)
        for i, (stream, lo, hi, at, end) in enumerate(zip(streams, *bounds)):  # noqa: B007 (named where it fails)
            if stream is not None and hi > lo:
                if stream.array.dtype != column.dtype:
                    _convert(stream, lo, hi, values[at:end], scratch, ahead.get(i))
                elif i in ahead:
                    values[at:end] = ahead[i]
                else:
                    stream.array.read_into(lo, hi, values[at:end])
    except LakeCorrupt as error:
        raise Damaged(int(draws.recording[i]), error) from error
    if times_s is not None or plan.mixture.gaps == "mask":
        ends = np.cumsum(n)
        for i, stream in enumerate(streams):
            if stream is not None:
                own = slice(ends[i] - n[i], ends[i])
                times = stated[i][0] if i in stated else stream.t0_s + np.arange(first[i], last[i]) / stream.rate_hz
                mask[own] = in_valid(times, stream.valid)
                if times_s is not None:
                    times_s[own] = times - start_s[i]
    as_stored = plan.mixture.values == "stored"
    return SampleRows(
        values=values, offsets=offsets, n=n, mask=mask, times_s=times_s, first_s=first_s, rate_hz=laws[:, 0],
        shapes=tuple(() if s is None else s.array.shape[1:] for s in streams),
        scale=tuple(s.scale if as_stored and s is not None else None for s in streams),
        offset=tuple(s.offset if as_stored and s is not None else None for s in streams),
    )  # fmt: skip


def _stated(
    draws: Draws, streams: Sequence[SampleStream | None], stop_s: np.ndarray, scratch: Buffers
) -> dict[int, tuple[np.ndarray, int]]:
    """Times and first row of the samples of every window whose stream has no rate."""
    found, i = {}, 0
    try:
        for i, stream in enumerate(streams):
            if stream is not None and stream.times is not None:
                times, first = _times(stream, float(draws.start_s[i]), float(stop_s[i]), scratch)
                found[i] = times.copy(), first
    except LakeCorrupt as error:
        raise Damaged(int(draws.recording[i]), error) from error
    return found


def _convert(stream: SampleStream, lo: int, hi: int, out: np.ndarray, scratch: Buffers, raw: np.ndarray | None) -> None:
    """Rows [lo, hi), unless they are given raw, into ``out`` through scratch and one pass of arithmetic."""
    if raw is None:
        raw = scratch.get("raw", out.size, stream.array.dtype)
        stream.array.read_into(lo, hi, raw)
    if stream.scale is None:
        out[:] = raw
        return
    exact = scratch.get("exact", out.size, _F8).reshape(-1, len(stream.scale))
    np.multiply(raw.reshape(exact.shape), stream.scale, out=exact)
    exact += stream.offset  # in float64, rounded once, as `Scaled` does
    out[:] = exact.reshape(-1)


def _times(stream: SampleStream, start_s: float, stop_s: float, scratch: Buffers) -> tuple[np.ndarray, int]:
    """The stated times in [start, stop), in scratch, and the row of the first."""
    assert stream.times is not None
    lo, hi = stream.times.rows(start_s, stop_s)
    block = scratch.get("times", hi - lo, _F8)
    stream.times.array.read_into(lo, hi, block)
    a, b = block.searchsorted((start_s, stop_s)).tolist()
    return block[a:b], lo + a


def _events(
    plan: Plan,
    column: Column,
    draws: Draws,
    streams: Sequence[EventStream | None],
    buffers: Buffers,
    scratch: Buffers,
) -> EventRows:
    edges = np.stack([draws.start_s, draws.start_s + plan.mixture.window_s], 1)
    offsets, end, i = [0], 0, 0
    try:
        rows = [
            (0, 0) if s is None else s.times.rows(*edge) for i, (s, edge) in enumerate(zip(streams, edges.tolist()))
        ]
        most = sum(hi - lo for lo, hi in rows)  # a few more than the windows hold
        times_s = buffers.get(f"{column.name}/times_s", most, _F4)
        codes = buffers.get(f"{column.name}/codes", most, _I4)
        block = scratch.get("times", max(hi - lo for lo, hi in rows), _F8)
        for i, (stream, (lo, hi)) in enumerate(zip(streams, rows)):
            if stream is not None:
                near = block[: hi - lo]
                stream.times.array.read_into(lo, hi, near)
                a, b = near.searchsorted(edges[i]).tolist()
                begin, end = end, end + b - a
                np.subtract(near[a:b], edges[i, 0], out=times_s[begin:end], casting="same_kind")
                stream.codes.read_into(lo + a, lo + b, codes[begin:end])
            offsets.append(end)
    except LakeCorrupt as error:
        raise Damaged(int(draws.recording[i]), error) from error
    present = np.array([s is not None for s in streams])
    valid_s, counts = edges[present], present.astype(np.int64)  # the whole window, unless windows may cross gaps
    if plan.mixture.gaps == "mask":
        spans = [clip_intervals(s.valid, *edge) for s, edge in zip(streams, edges) if s is not None]
        valid_s = np.concatenate([np.empty((0, 2)), *spans])
        counts[present] = [len(span) for span in spans]
    return EventRows(
        times_s=times_s[:end], codes=codes[:end], offsets=np.array(offsets), present=present, valid_s=valid_s,
        valid_offsets=np.concatenate([[0], np.cumsum(counts)]),
    )  # fmt: skip
