"""The panels of sampled signals: stacked traces with a scale, a path beside them, or a heat map."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofmx.types import Samples, Stream

INK, SOFT, FAINT = "#222222", "#555555", "#9a9a9a"
PATHS = {"position", "gaze"}
MAX_TRACES = 16
_LINE = "#1d4e79"
_DIVISORS = (1, 2, 5, 10, 20, 50, 100, 1000)  # by which a channel much larger than the others is drawn
_HEAT = {"calcium", "fmri", "fnirs", "spectrogram"}
_HEAT_FROM = 97  # channels
_MAX_ROWS = 400
_SHORT_UNITS = {"uV": "µV", "um": "µm"}


def rate_hz(stream: Samples) -> float:
    """Samples a second, the median one where time stamps are given."""
    if stream.rate_hz is not None:
        return float(stream.rate_hz)
    times = np.asarray(stream.times_s)[:10_000]
    steps = np.diff(times)
    return 1.0 / float(np.median(steps)) if len(steps) and np.median(steps) > 0 else 0.0


def cut(text: str, longest: int) -> str:
    """A text that fits, with an ellipsis where it did not."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def is_heat(stream: Stream) -> bool:
    """Whether a signal has too many channels for lines."""
    if not isinstance(stream, Samples):
        return False
    columns = n_columns(stream)
    return columns >= _HEAT_FROM or (stream.modality in _HEAT and columns > MAX_TRACES)


def n_columns(stream: Samples) -> int:
    """Numbers in one sample."""
    return int(np.prod(np.shape(stream.values)[1:], dtype=np.int64))


def _dense(stream: Samples, rows: slice | np.ndarray) -> np.ndarray:
    """(N, K) float64 of some columns; an image is a row of pixels."""
    values = np.asarray(stream.values)
    return values.reshape(len(values), n_columns(stream))[:, rows].astype(np.float64)


def _about(stream: Samples, shown: int) -> str:
    n = n_columns(stream)
    pace = "at irregular times" if _irregular(stream) else f"{rate_hz(stream):,.5g} Hz"
    about = [f"{n} channels" if n > 1 else "", pace, _SHORT_UNITS.get(stream.unit, stream.unit)]
    if shown < n:
        about.append(f"{shown} shown, {n - shown} more")
    return ", ".join(filter(None, about))


def _irregular(stream: Samples) -> bool:
    """Sampled when something happens: long pauses that are no gaps in the data."""
    if stream.times_s is None or len(stream.times_s) < 3:
        return False
    steps = np.diff(stream.times_s)
    paused = np.sum(steps[steps > 3 * np.median(steps)]) > 0.2 * np.sum(steps)
    return bool(paused and len(stream.valid) == 1)


def traces(axes: Any, stream: Samples, n_pixels: int) -> str:
    """Stacked lines on one scale, medians removed; one channel alone has an axis of its own.

    Args:
        axes: where to draw.
        stream: the excerpt.
        n_pixels: width of the axes.

    Returns:
        What the panel's head says of it.
    """
    n = n_columns(stream)
    chosen = np.unique(np.linspace(0, n - 1, min(n, MAX_TRACES)).astype(int))
    values, times = _dense(stream, chosen), stream.times()
    about = _about(stream, len(chosen))
    values[~np.isfinite(values)] = np.nan
    if not len(values) or not np.isfinite(values).any():
        axes.text(0.5, 0.5, "no samples here", transform=axes.transAxes, ha="center", va="center", color=SOFT)
        return about
    times, values = envelope(times, values, n_pixels)
    times, values = broken(times, values, stream.valid)
    if len(chosen) == 1:
        _single(axes, times, values[:, 0], held=_irregular(stream))
        return about
    centre = np.array([np.nanmedian(v) if np.isfinite(v).any() else 0.0 for v in values.T])
    reach = np.array([np.ptp(np.nanpercentile(v, [1, 99])) if np.isfinite(v).any() else 0.0 for v in values.T])
    step = float(np.median(reach[reach > 0])) * 1.15 if (reach > 0).any() else 1.0
    shrunk = np.array([next(d for d in _DIVISORS if r <= 1.6 * step * d or d == _DIVISORS[-1]) for r in reach])
    offset = -np.arange(len(chosen)) * step
    shifted = np.clip((values - centre) / shrunk, -1.2 * step, 1.2 * step) + offset
    axes.plot(times, shifted, color=_LINE, linewidth=0.6)
    axes.set_ylim(offset[-1] - 0.8 * step, 0.8 * step)
    ids = [_channel(stream, i, n) for i in range(n)]
    names = [cut(ids[i], 11) + (f" ÷{d}" if d > 1 else "") for i, d in zip(chosen, shrunk)]
    axes.set_yticks(offset, names, fontsize=6.5)
    axes.tick_params(axis="y", length=0)
    _scale_bar(axes, step, stream.unit)
    if stream.modality in PATHS and len(chosen) >= 2:
        _path(axes, values[:, 0], values[:, 1])
    return about


def _single(axes: Any, times: np.ndarray, values: np.ndarray, *, held: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.plot(times, values, color=_LINE, linewidth=0.7, drawstyle="steps-post" if held else "default")
    lo, hi = float(np.nanmin(values)), float(np.nanmax(values))
    pad = 0.06 * (hi - lo) or 0.5 * abs(hi) or 1.0
    axes.set_ylim(lo - pad, hi + pad)
    axes.yaxis.set_major_locator(MaxNLocator(3, min_n_ticks=2))
    axes.tick_params(axis="y", labelsize=6.5)
    axes.spines["left"].set_visible(True)


def _scale_bar(axes: Any, step: float, unit: str) -> None:
    power = 10.0 ** np.floor(np.log10(step))
    length = next(m * power for m in (5.0, 2.0, 1.0) if m * power <= step * (1 + 1e-9))
    bottom = axes.get_ylim()[0]
    text = f"{length:g} {_SHORT_UNITS.get(unit, unit)}".replace("e-0", "e-")
    axes.annotate(
        text, (1, bottom + length / 2), xycoords=("axes fraction", "data"), xytext=(9, 0), textcoords="offset points",
        fontsize=7, va="center", annotation_clip=False,
    )  # fmt: skip
    axes.plot(
        [1.006, 1.006], [bottom, bottom + length], transform=axes.get_yaxis_transform(), color=INK, linewidth=1.6,
        clip_on=False, solid_capstyle="butt",
    )  # fmt: skip


def _path(axes: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Where the point went, beside its traces: faint at first, dark at the end."""
    box = axes.get_position()
    figure = axes.figure
    side = min(0.74, box.height * figure.get_figheight())
    inset = figure.add_axes(
        (
            1 - (side + 0.08) / figure.get_figwidth(),
            box.y1 - side / figure.get_figheight(),
            side / figure.get_figwidth(),
            side / figure.get_figheight(),
        )
    )
    known = np.isfinite(x) & np.isfinite(y)
    inset.plot(x, y, color=FAINT, linewidth=0.5)
    inset.scatter(x[known], y[known], c=np.flatnonzero(known), cmap="cividis_r", s=2.0, linewidths=0, zorder=2)
    middle, reach = [], 1e-9
    for own in (x[known], y[known]):
        lo, hi = np.percentile(own, [1, 99]) if len(own) else (0.0, 1.0)
        middle.append((lo + hi) / 2)
        reach = max(reach, 0.58 * float(hi - lo))
    inset.set_xlim(middle[0] - reach, middle[0] + reach)
    inset.set_ylim(middle[1] - reach, middle[1] + reach)
    inset.set_aspect("equal")
    inset.set_xticks([])
    inset.set_yticks([])
    for spine in inset.spines.values():
        spine.set_color(FAINT)


def heat(axes: Any, stream: Samples, n_pixels: int) -> str:
    """Channels as rows of colour: z scores over the excerpt, a spectrogram as it is; arguments as `traces`."""
    n = n_columns(stream)
    chosen = np.unique(np.linspace(0, n - 1, min(n, _MAX_ROWS)).astype(int))
    values, times = _dense(stream, chosen), stream.times()
    about = _about(stream, len(chosen))
    values[~np.isfinite(values)] = np.nan
    if len(values) < 2 or not np.isfinite(values).any():
        axes.text(0.5, 0.5, "no samples here", transform=axes.transAxes, ha="center", va="center", color=SOFT)
        return about
    times, values = _means(times, values, n_pixels)
    scaled = stream.modality != "spectrogram"
    if scaled:
        spread = np.nanstd(values, axis=0)
        values = (values - np.nanmean(values, axis=0)) / np.where(spread > 0, spread, 1.0)
    lo, hi = np.nanpercentile(values, [1, 99])
    step = float(np.median(np.diff(times)))
    edges = np.append(times, times[-1] + step)
    mesh = axes.pcolormesh(
        edges, np.arange(len(chosen) + 1), values.T, cmap="cividis", vmin=lo, vmax=max(hi, lo + 1e-12), rasterized=True
    )
    axes.set_yticks([0.5, len(chosen) - 0.5], [cut(_channel(stream, i, n), 11) for i in chosen[[0, -1]]], fontsize=6.5)
    if stream.modality != "spectrogram":
        axes.invert_yaxis()
    _colour_bar(axes, mesh, "z per channel" if scaled else _SHORT_UNITS.get(stream.unit, stream.unit))
    return about


def _channel(stream: Samples, row: int, n: int) -> str:
    """A channel's name and, where it is known, its region."""
    if len(stream.channels) != n:
        return str(row)
    return f"{stream.channels.ids[row]} {stream.channels.regions[row]}".strip()


def _colour_bar(axes: Any, mesh: Any, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    box, figure = axes.get_position(), axes.figure
    inset = figure.add_axes((box.x1 + 0.1 / figure.get_figwidth(), box.y0, 0.09 / figure.get_figwidth(), box.height))
    bar = figure.colorbar(mesh, cax=inset, ticks=MaxNLocator(4))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6.5)
    bar.set_label(label, fontsize=6.5)


def envelope(times: np.ndarray, values: np.ndarray, n_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest value of each pixel's samples, so that no spike is lost and no line is drawn in vain."""
    if len(values) <= 4 * n_pixels:
        return times, values
    starts = np.linspace(0, len(values), n_pixels, endpoint=False).astype(int)
    pairs = np.stack([np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)], axis=1)
    return np.repeat(times[starts], 2), pairs.reshape(-1, values.shape[1])


def _means(times: np.ndarray, values: np.ndarray, n_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    if len(values) <= n_pixels:
        return times, values
    starts = np.linspace(0, len(values), n_pixels, endpoint=False).astype(int)
    total = np.add.reduceat(np.nan_to_num(values), starts)
    count = np.add.reduceat(np.isfinite(values).astype(np.float64), starts)
    return times[starts], np.where(count > 0, total / np.maximum(count, 1), np.nan)


def broken(times: np.ndarray, values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Breaks the line where two samples lie on either side of time without data."""
    edges = np.asarray(valid).ravel()
    middle = (times[1:] + times[:-1]) / 2
    steps = np.diff(times)
    outside = np.searchsorted(edges, middle, side="right") % 2 == 0
    at = np.flatnonzero(outside & (steps > 3 * np.median(steps))) + 1 if len(steps) else np.empty(0, np.int64)
    return np.insert(times, at, times[at] if len(at) else 0.0), np.insert(values, at, np.nan, axis=0)
