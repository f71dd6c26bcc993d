"""Streams on a device's clock brought onto the session clock: times are mapped, values are never touched."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from neurofmx.clock import ClockMap
from neurofmx.errors import MalformedFile
from neurofmx.types import Intervals, Samples, Stream, clip_intervals

S = TypeVar("S", bound=Stream)


def on_session_clock(stream: S, clock: ClockMap) -> S:
    """The same stream with session times.

    Nothing is resampled: a signal at a rate keeps its samples and has the rate that the session clock sees; where
    the map has several pieces, every sample gets a time of its own. Where a clock was reset at an unknown moment the
    time between is no longer valid.

    Args:
        stream: on the device's clock, times ascending (`clock.unroll`).
        clock: from the device to the session.

    Returns:
        The stream itself, bit for bit, when the clock is the identity.

    Raises:
        MalformedFile: mapped times go back, so the map does not belong to this stream.
    """
    if clock.is_identity:
        return stream
    valid = mapped_spans(stream.valid, clock)
    if isinstance(stream, Intervals):
        start, stop = clock.apply(stream.start_s), clock.apply(stream.stop_s, closing=True)
        return replace(stream, start_s=start, stop_s=stop, valid=valid)
    if isinstance(stream, Samples) and stream.rate_hz is not None and len(clock.slope) == 1:
        rate_hz = stream.rate_hz / float(clock.slope[0])
        return replace(stream, rate_hz=rate_hz, t0_s=float(clock.apply(np.array(stream.t0_s))), valid=valid)
    times = clock.apply(stream.times() if isinstance(stream, Samples) else stream.times_s)
    back = np.diff(times).min(initial=0.0)
    if back < 0:
        raise MalformedFile(
            f"{stream.modality} on the session clock", got=f"times that go back by {-back:g} s",
            expected="ascending times", fix="Check that the pulses are those of this device.",
        )  # fmt: skip
    if isinstance(stream, Samples):
        return replace(stream, rate_hz=None, t0_s=0.0, times_s=times, valid=valid)
    return replace(stream, times_s=times, valid=valid)


def mapped_spans(valid: np.ndarray, clock: ClockMap) -> np.ndarray:
    """(K, 2) session seconds of device intervals, cut at every reset and without the time in which one may lie."""
    edges = np.concatenate([[-np.inf], clock.resets_s.ravel(), [np.inf]]).reshape(-1, 2)
    kept = np.concatenate([clip_intervals(valid, *edge) for edge in edges])
    kept = kept[np.argsort(kept[:, 0], kind="stable")]
    return np.stack([clock.apply(kept[:, 0]), clock.apply(kept[:, 1], closing=True)], axis=1)
