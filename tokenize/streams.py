"""Streams of stored recordings, opened through the packed index and read by time straight into buffers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neurofmx import shards
from neurofmx.errors import ConfigError
from neurofmx.index import Index
from neurofmx.lake import Lake
from neurofmx.lazy import TimeIndex
from neurofmx.shards import ShardedArray

_EDGE = 1e-9  # of a sample or a second, as in `types.Samples.slice`


@dataclass(frozen=True)
class StoredTimes:
    """(N,) ascending float64 seconds in the lake, and where each step of time begins in them (None for a few)."""

    array: ShardedArray
    index: TimeIndex | None

    def rows(self, start_s: float, stop_s: float) -> tuple[int, int]:
        """Rows that hold every time in [start_s, stop_s), and few others."""
        return self.index.rows(start_s, stop_s) if self.index else (0, len(self.array))


@dataclass(frozen=True, kw_only=True)
class SampleStream:
    """One stored signal.

    Args:
        array: (N, ...) stored values.
        rate_hz: sampling rate, NaN where times are stated one by one.
        t0_s: time of the first sample where there is a rate.
        times: the stated times, None where there is a rate.
        valid: (K, 2) seconds in which samples exist.
        scale: (C,) float64 that stored integers are multiplied by, None for values as they are.
        offset: (C,) float64 that is added then.
    """

    array: ShardedArray
    rate_hz: float
    t0_s: float
    times: StoredTimes | None
    valid: np.ndarray
    scale: np.ndarray | None
    offset: np.ndarray | None

    @property
    def law(self) -> tuple[float, float, int, int]:
        """Rate, time of the first sample, number of samples and elements a sample: what finding rows takes."""
        return self.rate_hz, self.t0_s, len(self.array), math.prod(self.array.shape[1:])


@dataclass(frozen=True, kw_only=True)
class EventStream:
    """One stored stream of events: times and codes of the same length, and (K, 2) seconds of valid time."""

    times: StoredTimes
    codes: ShardedArray
    valid: np.ndarray


def open_stream(lake: Lake, index: Index, recording: str, name: str, kind: str) -> SampleStream | EventStream:
    """Opens one stream for reading by time.

    Args:
        lake: holds the group.
        index: the packed index.
        recording: text form of the recording id.
        name: the stream.
        kind: ``samples`` or ``events``, as table ``streams`` says.

    Raises:
        LakeCorrupt: a shard is missing or damaged.
    """
    valid = read_valid(index, recording, name)
    if kind == "events":
        codes = index.array(recording, f"{name}/codes")
        return EventStream(times=_stored_times(index, recording, name), codes=codes, valid=valid)
    row = index.row(recording, f"{name}/values")
    array = index.array(recording, f"{name}/values")
    stated = row["rate_hz"] is None
    scale, offset = None, None
    if array.dtype.kind in "iu":
        about = shards.read_attributes(lake.root / row["group"])["neurofmx"]["streams"][name]
        if about.get("scale") is not None:
            scale, offset = (np.asarray(about[key], np.float64).reshape(-1) for key in ("scale", "offset"))
    return SampleStream(
        array=array,
        rate_hz=np.nan if stated else float(row["rate_hz"]),
        t0_s=0.0 if stated else float(row["t0_s"]),
        times=_stored_times(index, recording, name) if stated else None,
        valid=valid,
        scale=scale,
        offset=offset,
    )


def _stored_times(index: Index, recording: str, name: str) -> StoredTimes:
    return StoredTimes(index.array(recording, f"{name}/times_s"), index.times(recording, name))


def read_valid(index: Index, recording: str, name: str) -> np.ndarray:
    """(K, 2) seconds in which a stream has data."""
    array = index.array(recording, f"{name}/valid")
    return array.read(0, len(array)).reshape(-1, 2)


def regular_rows(laws: np.ndarray, start_s: np.ndarray, stop_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last row of the samples in [start, stop) of streams with a rate, by the rule of `Samples.slice`.

    Args:
        laws: (B, 4) `SampleStream.law` of each window's stream.
        start_s: (B,) begin of each window.
        stop_s: (B,) its end.

    Returns:
        Two (B,) int64, 0 where there is no rate.
    """
    rate, t0_s, n, _ = laws.T
    first, last = (np.minimum(np.maximum(np.ceil((t - t0_s) * rate - _EDGE), 0), n) for t in (start_s, stop_s))
    known = np.isfinite(rate)
    return np.where(known, first, 0).astype(np.int64), np.where(known, last, 0).astype(np.int64)


def in_valid(times_s: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(N,) bool, True in [start, stop] of an interval: readers close an interval on its last sample."""
    at = np.searchsorted(valid[:, 0], times_s + _EDGE, side="right") - 1
    return (at >= 0) & (times_s <= (valid[np.maximum(at, 0), 1] if len(valid) else 0.0) + _EDGE)


def matching(streams: list[tuple[str, str, str]], wanted: str, recording: str) -> tuple[str, str] | None:
    """The stream that a plan means: the one of this name, else the only one of this modality.

    Args:
        streams: (name, kind, modality) of each stream of the recording.
        wanted: a stream's name or a modality.
        recording: for the message.

    Returns:
        (name, kind), or None where the recording has none.

    Raises:
        ConfigError: several streams have the modality, or it names intervals, which are not sampled.
    """
    named = [s for s in streams if s[0] == wanted] or [s for s in streams if s[2] == wanted and s[1] != "intervals"]
    if len(named) > 1:
        raise ConfigError(
            f"streams of modality {wanted!r} in {recording}",
            got=str(sorted(s[0] for s in named)),
            expected="one",
            fix="Name the stream.",
        )
    if named and named[0][1] == "intervals":
        raise ConfigError(f"stream {wanted!r} of {recording}", got="intervals", expected="events or samples")
    return named[0][:2] if named else None
