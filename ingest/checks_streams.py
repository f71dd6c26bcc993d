"""Are a stream's times, codes, channels and valid intervals in order, whatever kind of stream it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.checks_signal import VOLTAGES, judge_samples
from neurofmx.ingest.verdict import Verdict, named, some
from neurofmx.types import Check, Events, Intervals, Recording, Samples, Stream, as_valid

_CLOSE_S = 1e-6  # float64 seconds that went through other units
_GAP_STEPS = 10.0
_MOST_HZ, _LEAST_VOLTAGE_HZ = 1e6, 16.0
_Rule: TypeAlias = Callable[[Stream, Recording], Verdict]


def judge_stream(name: str, stream: Stream, recording: Recording) -> tuple[Check, ...]:
    """Judges one stream: clock and gaps for all, then what its kind asks for.

    Args:
        name: the stream's name; checks are called ``name.check``.
        stream: what is judged.
        recording: it belongs to.
    """
    valid = named(f"{name}.valid", _valid(stream, recording))
    found = [valid, *(named(f"{name}.{what}", rule(stream, recording)) for what, rule in _rules(stream))]
    if isinstance(stream, Samples) and valid.passed:
        found.append(named(f"{name}.gaps", _gaps(stream)))
    return (*found, *judge_samples(name, stream, recording)) if isinstance(stream, Samples) else tuple(found)


def _valid(stream: Stream, recording: Recording) -> Verdict:
    try:
        valid = as_valid(stream.valid)
    except MalformedFile as error:
        return False, "block", f"{error}"
    if not len(valid):
        return False, "warn", "no valid interval: nothing of this stream will be used"
    start, stop = recording.domain_s
    ok = bool(valid[0, 0] >= start - _CLOSE_S and valid[-1, 1] <= stop + _CLOSE_S)
    total = float(np.sum(valid[:, 1] - valid[:, 0]))
    said = f"{total:g} s of valid time from {valid[0, 0]:g} to {valid[-1, 1]:g} s, pieces: {len(valid)}"
    return ok, "block", said + ("" if ok else f": outside the recording, {start:g} to {stop:g} s")


def _stamps(stream: Stream) -> np.ndarray:
    """(N,) times that a stream states."""
    if isinstance(stream, Intervals):
        return np.asarray(stream.start_s, np.float64)
    return np.asarray(stream.times_s, np.float64)


def _times_finite(stream: Stream, recording: Recording) -> Verdict:
    times = _stamps(stream)
    bad = ~np.isfinite(times)
    if not bad.any():
        return True, "block", f"{len(times):,} times, all finite"
    where = ""
    if isinstance(stream, Events):
        codes, counts = np.unique(np.asarray(stream.codes)[bad], return_counts=True)
        rows = [f"{_id(stream, code)}: {count}" for code, count in zip(codes.tolist(), counts.tolist())]
        where = f" (by channel {some(rows)})"
    return False, "block", f"{int(bad.sum()):,} of {len(times):,} times are not finite{where}: expected none"


def _times_ascending(stream: Stream, recording: Recording) -> Verdict:
    times = _stamps(stream)
    finite = np.isfinite(times)
    if np.all(np.diff(times[finite]) >= 0):
        repeats = int(np.sum(np.diff(times[finite]) == 0))
        said = f"{len(times):,} times ascend" + (f", {repeats:,} equal the one before" if repeats else "")
        return (
            (False, "warn", f"{said}: one sample a time is expected")
            if repeats and isinstance(stream, Samples)
            else (True, "block", said)
        )
    if not isinstance(stream, Events):
        back = int(np.sum(np.diff(times[finite]) < 0))
        return False, "block", f"times go back {back:,} times among {len(times):,}: expected ascending"
    codes, times = np.asarray(stream.codes)[finite], times[finite]
    order = np.argsort(codes, kind="stable")
    codes, steps = codes[order], np.diff(times[order])
    wrong = np.unique(codes[1:][(steps < 0) & (codes[1:] == codes[:-1])])
    if not len(wrong) and not finite.all():
        return True, "block", "each channel's finite times ascend; the rest cannot be ordered"
    if not len(wrong):
        return False, "block", "each channel's times ascend, but the stream's do not: expected one ascending order"
    names = some([_id(stream, code) for code in wrong.tolist()])
    kind = "units" if stream.modality == "spikes" else "channels"
    return False, "block", f"times are not ascending in {len(wrong)} of {len(stream.channels)} {kind}: {names}"


def _times_in_domain(stream: Stream, recording: Recording) -> Verdict:
    if isinstance(stream, Samples) and stream.times_s is None:
        times = np.array([stream.t0_s, stream.t0_s + (len(stream.values) - 1) / (stream.rate_hz or np.nan)])
        times = times if len(stream.values) else np.empty(0)
    else:
        times = _stamps(stream)
    if isinstance(stream, Intervals):
        times = np.concatenate([times, np.asarray(stream.stop_s, np.float64)])
    start, stop = recording.domain_s
    out = int(np.sum((times < start - _CLOSE_S) | (times > stop + _CLOSE_S)))
    said = f"{out or 'no'} time is outside the recording, {start:g} to {stop:g} s"
    return out == 0, "block" if isinstance(stream, Events) else "warn", said + ("; expected none" if out else "")


def _times_not_negative(stream: Stream, recording: Recording) -> Verdict:
    times = np.array([stream.t0_s]) if isinstance(stream, Samples) and stream.times_s is None else _stamps(stream)
    low = int(np.sum(times < 0))
    if not low:
        return True, "warn", "no time before 0 on the session clock"
    return False, "warn", f"{low:,} times before 0 on the session clock, the earliest {float(np.nanmin(times)):g} s"


# events


def _codes(stream: Stream, recording: Recording) -> Verdict:
    assert isinstance(stream, Events)
    codes, rows = np.asarray(stream.codes), len(stream.channels)
    if len(codes) != len(stream.times_s):
        return False, "block", f"{len(codes):,} codes for {len(stream.times_s):,} times: expected one each"
    out = codes[(codes < 0) | (codes >= rows)]
    if len(out):
        return False, "block", f"{len(out):,} codes outside the channel table of {rows} rows, such as {int(out[0])}"
    return True, "block", f"all codes are rows of the {rows} channels, {len(np.unique(codes))} of which have events"


def _events_in_valid(stream: Stream, recording: Recording) -> Verdict:
    assert isinstance(stream, Events)
    times, valid = _stamps(stream), np.asarray(stream.valid, np.float64).reshape(-1, 2)
    times = times[np.isfinite(times)]
    at = np.searchsorted(valid[:, 0] - _CLOSE_S, times, side="right") - 1
    inside = (at >= 0) & (times <= valid[at, 1] + _CLOSE_S) if len(valid) else np.zeros(len(times), bool)
    out = int(np.sum(~inside))
    if not out:
        return True, "warn", f"all {len(times):,} events lie in valid time"
    return False, "warn", f"{out:,} of {len(times):,} events lie outside valid time: they will not be used"


def _channels(stream: Stream, recording: Recording) -> Verdict:
    assert isinstance(stream, (Events, Samples))
    ids = stream.channels.ids
    twice = sorted({one for one in ids if ids.count(one) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        return False, "block", f"channel names that occur more than once: {some(twice)}"
    if isinstance(stream, Samples):
        shape = np.shape(stream.values)
        wide = shape[3] if len(shape) == 4 else shape[1] if len(shape) > 1 else 1  # of images, the colours
        if wide != len(ids):
            return False, "block", f"{len(ids)} channel names for {wide} columns: expected one each"
    return True, "block", f"{len(ids)} channels, each name once"


# samples


def _rate(stream: Stream, recording: Recording) -> Verdict:
    assert isinstance(stream, Samples)
    if stream.times_s is not None:
        if len(stream.times_s) != len(stream.values):
            return (
                False,
                "block",
                f"{len(stream.times_s):,} times for {len(stream.values):,} samples: expected one each",
            )
        steps = np.diff(_stamps(stream))
        step = float(np.median(steps)) if len(steps) else 0.0
        return (
            True,
            "block",
            f"{len(stream.values):,} samples at stated times" + (f", the median step {step:g} s" if len(steps) else ""),
        )
    rate = float(stream.rate_hz or 0.0)
    said = f"{len(stream.values):,} samples at {rate:g} Hz from {stream.t0_s:g} s"
    if not np.isfinite([rate, stream.t0_s]).all() or rate <= 0 or rate > _MOST_HZ:
        return False, "block", f"{said}: expected a rate above 0 and up to {_MOST_HZ:g} Hz, and a time to start"
    if stream.modality in VOLTAGES and rate < _LEAST_VOLTAGE_HZ:
        return False, "warn", f"{said}: slow for {stream.modality}, expected at least {_LEAST_VOLTAGE_HZ:g} Hz"
    return True, "block", said


def _gaps(stream: Samples) -> Verdict:
    """Whether valid time claims seconds in which there is no sample."""
    valid, n = np.asarray(stream.valid, np.float64).reshape(-1, 2), len(stream.values)
    if stream.times_s is None:
        rate = float(stream.rate_hz or np.nan)
        first, last = stream.t0_s, stream.t0_s + n / rate
        loose = 1.5 / rate + _CLOSE_S
        out = float(
            np.sum(np.clip(first - loose - valid[:, 0], 0, None) + np.clip(valid[:, 1] - last - loose, 0, None))
        )
        said = f"samples from {first:g} to {last:g} s"
        return (
            out == 0,
            "block",
            said + (f": {out:g} s that are called valid lie outside" if out else ", as valid says"),
        )
    times = _stamps(stream)
    times = times[np.isfinite(times)]
    if n < 3 or len(times) < 3:
        return True, "warn", f"{n} samples: too few to tell a gap"
    steps = np.diff(times)
    step = float(np.median(steps))
    ends = np.concatenate([[-np.inf], times, [np.inf]])
    wide = np.flatnonzero(np.diff(ends) > _GAP_STEPS * step)
    claimed = _seconds_before(valid, ends[wide + 1]) - _seconds_before(valid, ends[wide])
    holes = wide[claimed > _GAP_STEPS * step + _CLOSE_S]
    if not len(holes):
        return True, "warn", f"no gap longer than {_GAP_STEPS:g} steps of {step:g} s is called valid"
    return False, "warn", (
        f"{len(holes):,} gaps longer than {_GAP_STEPS:g} steps of {step:g} s are called valid, "
        f"{float(claimed[claimed > _GAP_STEPS * step].max()):g} s the longest: fine for a signal that is sampled by "
        "events, else data that is not there"
    )  # fmt: skip


def _seconds_before(valid: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Seconds of valid time before each time."""
    if not len(valid):
        return np.zeros(len(times))
    total = np.concatenate([[0.0], np.cumsum(valid[:, 1] - valid[:, 0])])
    return np.interp(times, valid.ravel(), np.repeat(total, 2)[1:-1])


# intervals


def _stop_after_start(stream: Stream, recording: Recording) -> Verdict:
    assert isinstance(stream, Intervals)
    start, stop = np.asarray(stream.start_s, np.float64), np.asarray(stream.stop_s, np.float64)
    if len(start) != len(stop) or any(len(column) != len(start) for column in stream.columns.values()):
        return False, "block", f"columns of different lengths: expected {len(start)} rows in each"
    back = np.flatnonzero(stop < start)
    if len(back):
        at = int(back[0])
        return False, "block", f"{len(back):,} of {len(start):,} intervals stop before they start, such as row {at}: " \
                               f"{start[at]:g} to {stop[at]:g} s"  # fmt: skip
    open_ended = int(np.sum(~np.isfinite(stop)))
    said = f"{len(start):,} intervals, none stops before it starts"
    return open_ended == 0, "warn", said + (f"; {open_ended:,} have no stop" if open_ended else "")


_PLACE = (("times_in_domain", _times_in_domain), ("times_not_negative", _times_not_negative))
_STAMPS = (("times_finite", _times_finite), ("times_ascending", _times_ascending))
_SAMPLES = (*_PLACE, ("channels", _channels), ("rate", _rate))
_EVENTS = (*_STAMPS, *_PLACE, ("codes", _codes), ("channels", _channels), ("events_in_valid", _events_in_valid))
_INTERVALS = (("times_finite", _times_finite), *_PLACE, ("stop_after_start", _stop_after_start))


def _rules(stream: Stream) -> tuple[tuple[str, _Rule], ...]:
    if isinstance(stream, Samples):
        return _SAMPLES if stream.times_s is None else (*_STAMPS, *_SAMPLES)
    return _EVENTS if isinstance(stream, Events) else _INTERVALS


def _id(stream: Events, code: int) -> str:
    return stream.channels.ids[code] if 0 <= code < len(stream.channels) else f"code {code}"
