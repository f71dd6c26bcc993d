"""A picture of a recording: every stream over the same seconds, so that a person sees what was recorded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from neurofmx.frames import Frames
from neurofmx.ingest import preview_panels as panels
from neurofmx.ingest import preview_signals as signals
from neurofmx.ingest.formats import spans
from neurofmx.types import Events, Intervals, Recording, Samples, Stream, clip_intervals

MAX_PANELS = 14
_DPI = 100
_LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN, _HEAD_IN, _GAP_IN = 0.95, 1.5, 0.62, 0.44, 0.2, 0.1
_SHORTEST_S, _LONGEST_S = 10.0, 30.0
_TRIALS_IN_VIEW = 3
_SAMPLES_IN_VIEW = 60  # of the slowest signal, however long that takes
_MAX_VALUES = 6_000_000  # read of any one stream
_PLACES = 12
_LIGHT = 2_000.0  # values a second of a signal that is looked at in every place
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 7.5, "axes.linewidth": 0.6, "axes.edgecolor": signals.INK,
    "text.color": signals.INK, "axes.labelcolor": signals.INK, "xtick.color": signals.INK, "ytick.color": signals.INK,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.0,
    "hatch.linewidth": 0.5, "lines.antialiased": True, "path.simplify": True, "axes.unicode_minus": True,
    "svg.fonttype": "path", "savefig.transparent": False, "figure.facecolor": "white", "axes.facecolor": "white",
}  # fmt: skip


def preview_png(recording: Recording, *, width_px: int = 900) -> bytes:
    """Draws an excerpt of a recording: one panel a stream, over the same time axis.

    Events are a raster sorted and coloured by region, few-channel signals stacked traces with a scale, many-channel
    signals a heat map, intervals coloured spans; time without data is hatched. Only the excerpt is read.

    Args:
        recording: any recording, of the lake or as a reader made it.
        width_px: width of the picture.

    Returns:
        The bytes of a PNG: the same for the same recording.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    everything, recording = len(recording.streams), _drawable(recording)
    start, stop = excerpt(recording)
    names = sorted(recording.streams, key=lambda name: (_rank(recording.streams[name]), name))
    shown = names[:MAX_PANELS]
    heights = {name: panels.height_in(recording.streams[name]) for name in shown}
    width = width_px / _DPI
    height = _TOP_IN + _BOTTOM_IN + sum(heights.values()) + len(shown) * (_HEAD_IN + _GAP_IN)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, round(height * _DPI) / _DPI), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(figure)
        _title(figure, recording, start, stop, left_out=everything - len(shown))
        y = height - _TOP_IN
        axes = None
        for name in shown:
            y -= _HEAD_IN + heights[name]
            box = (_LEFT_IN / width, y / height, (width - _LEFT_IN - _RIGHT_IN) / width, heights[name] / height)
            axes = figure.add_axes(box)
            stream = recording.streams[name]
            # spans that began before the excerpt go on in it: those are cut by the panel
            cut = stream if isinstance(stream, Intervals) else stream.slice(start, stop)
            panels.draw(axes, name, cut, start, stop, n_pixels=int(box[2] * width_px))
            axes.set_xlim(start, stop)
            axes.tick_params(labelbottom=name == shown[-1])
            y -= _GAP_IN
        if axes is not None:
            axes.set_xlabel("time on the session clock (s)", fontsize=7.5)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return file.getvalue()


def _drawable(recording: Recording) -> Recording:
    """Without the frames of video: a picture of them is another picture."""
    films = [n for n, s in recording.streams.items() if isinstance(s, Samples) and isinstance(s.values, Frames)]
    return replace(recording, streams={n: s for n, s in recording.streams.items() if n not in films})


def excerpt(recording: Recording) -> tuple[float, float]:
    """The seconds to show: 10 to 30 s (longer for slow signals) of valid time in which trials begin.

    Args:
        recording: the recording.

    Returns:
        (start, stop) on the session clock, inside the recording.
    """
    first, last = recording.domain_s
    total = last - first
    if total <= 0:
        return first - 0.5, first + 0.5
    starts = _trial_starts(recording)
    every = float(np.median(np.diff(starts))) if len(starts) > 1 else _SHORTEST_S
    length = float(np.clip(_TRIALS_IN_VIEW * every, _SHORTEST_S, _LONGEST_S))
    sampled = [s for s in recording.streams.values() if isinstance(s, Samples) and len(s.values) > 1]
    length = max([length, *(_SAMPLES_IN_VIEW / signals.rate_hz(s) for s in sampled if signals.rate_hz(s) > 0)])
    for stream in sampled:
        width = int(np.prod(np.shape(stream.values)[1:], dtype=np.int64))
        length = min(length, _MAX_VALUES / (max(signals.rate_hz(stream), 1e-9) * max(width, 1)))
    if total <= 1.5 * length and total * max(map(_values_per_s, sampled), default=0.0) <= 1.5 * _MAX_VALUES:
        return first, last
    return _liveliest(recording, starts, length)


def _liveliest(recording: Recording, trial_starts: np.ndarray, length: float) -> tuple[float, float]:
    """Of a dozen places the one with most valid time, trials, events and movement; the first of equals."""
    first, last = recording.domain_s
    shared = _shared(recording)
    if not len(shared):
        shared = np.array([[first, last]])
    passed = np.concatenate([[0.0], np.cumsum(shared[:, 1] - shared[:, 0])])
    windows = []
    for share in np.linspace(0.02, 0.96, _PLACES):
        at = int(np.clip(np.searchsorted(passed, share * passed[-1], side="right") - 1, 0, len(shared) - 1))
        start = shared[at, 0] + share * passed[-1] - passed[at]
        later = trial_starts[trial_starts >= start]
        if len(later) and later[0] - start < length:
            start = later[0] - 0.05 * length
        if shared[at, 1] - shared[at, 0] >= length:
            start = np.clip(start, shared[at, 0], shared[at, 1] - length)
        start = float(np.clip(start, first, max(first, last - length)))
        windows.append((start, start + length))
    score = np.array([2 * _seconds(shared, *window) / length for window in windows])
    for amounts in _amounts(recording, trial_starts, windows):
        score += amounts / amounts.max() if amounts.max() > 0 else 0.0
    return windows[int(np.argmax(score))]


def _amounts(
    recording: Recording, trial_starts: np.ndarray, windows: list[tuple[float, float]]
) -> Iterator[np.ndarray]:
    """How much there is in each window: trials, then events and movement of each stream."""
    yield np.array([np.sum((trial_starts >= lo) & (trial_starts < hi)) for lo, hi in windows], np.float64)
    for stream in recording.streams.values():
        if isinstance(stream, Events):
            yield np.array([np.ptp(np.searchsorted(stream.times_s, window)) for window in windows], np.float64)
        elif isinstance(stream, Samples) and stream.modality not in panels.BRAIN and _values_per_s(stream) < _LIGHT:
            values = [np.asarray(stream.slice(*window).values, np.float64) for window in windows]
            moved = [float(np.sum(np.nanstd(v, axis=0))) if np.isfinite(v).any() else 0.0 for v in values]
            some = [m for m in moved if m > 0]
            yield np.minimum(moved, 3 * np.median(some)) if some else np.zeros(len(windows))


def _seconds(intervals: np.ndarray, start: float, stop: float) -> float:
    clipped = clip_intervals(intervals, start, stop)
    return float(np.sum(clipped[:, 1] - clipped[:, 0]))


def _values_per_s(stream: Samples) -> float:
    return signals.rate_hz(stream) * int(np.prod(np.shape(stream.values)[1:], dtype=np.int64))


def _trial_starts(recording: Recording) -> np.ndarray:
    tables = [s for s in recording.streams.values() if isinstance(s, Intervals) and len(s.start_s)]
    tables.sort(key=lambda s: (s.modality != "trials", -len(s.start_s)))
    starts = np.asarray(tables[0].start_s, np.float64) if tables else np.empty(0)
    return np.sort(starts[np.isfinite(starts)])


def _shared(recording: Recording) -> np.ndarray:
    """(K, 2) seconds in which every signal and every train of events is valid; those of the longest if never."""
    own = [np.asarray(s.valid).reshape(-1, 2) for s in recording.streams.values() if not isinstance(s, Intervals)]
    own = [valid for valid in own if len(valid)]
    if not own:
        return np.empty((0, 2))
    owner = np.repeat(np.arange(len(own)), [len(valid) for valid in own])
    together = spans.common(np.concatenate(own), owner, len(own))
    return together if len(together) else max(own, key=lambda valid: float(np.sum(valid[:, 1] - valid[:, 0])))


def _rank(stream: Stream) -> int:
    """Spans on top, then spikes and brain signals, then behaviour."""
    if isinstance(stream, Intervals):
        return 0 if stream.modality == "trials" else 1
    if stream.modality in panels.BRAIN:
        return 2
    return 4 if isinstance(stream, Events) else 3


def _title(figure: Any, recording: Recording, start: float, stop: float, *, left_out: int) -> None:
    who = recording.subject
    facts = [
        f"subject {who.id}" + (f", {who.species}" if who.species else ""),
        *([f"task {recording.task}"] if recording.task else []),
        f"{panels.duration(recording.domain_s[1] - recording.domain_s[0])} recorded",
        f"shown {start:.5g} to {stop:.5g} s",
        *([f"{left_out} more streams not shown"] if left_out else []),
    ]
    top, edge = figure.get_figheight(), 0.12 / figure.get_figwidth()
    figure.text(edge, 1 - 0.14 / top, str(recording.id), fontsize=9.5, fontweight="bold", va="top")
    figure.text(edge, 1 - 0.36 / top, "   ·   ".join(facts), fontsize=7.5, va="top", color=signals.SOFT)
