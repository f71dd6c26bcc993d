"""The panels of a preview: a raster, stacked traces, a heat map or spans, drawn on one pair of axes each."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from neurofmx.ingest import preview_signals as signals
from neurofmx.types import Events, Intervals, Stream

# Okabe and Ito's palette for colour-blind readers, without the yellow that white paper swallows
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6b6b6b")
BRAIN = {"spikes", "eeg", "ecog", "lfp", "meg", "fmri", "fnirs", "calcium", "photometry", "ecephys", "emg"}
_MAIN_COLUMNS = (
    "trial_type", "label", "stimulus", "object", "odour", "odor", "movement", "condition", "kind", "name", "type",
    "choice", "feedbackType", "feedback_type", "response", "stage",
)  # fmt: skip


def height_in(stream: Stream) -> float:
    """Inches that a stream's panel needs."""
    if isinstance(stream, Intervals):
        return 0.3
    if isinstance(stream, Events):
        return float(np.clip(0.26 + 0.05 * len(stream.channels) ** 0.9, 0.32, 2.6))
    if signals.is_heat(stream):
        return float(np.clip(0.5 + 0.012 * len(stream.channels), 0.9, 2.2))
    shown = min(signals.n_columns(stream), signals.MAX_TRACES)
    least = 1.0 if stream.modality in signals.PATHS else 0.62
    return max(least, 0.25 + 0.165 * shown)


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``12.4 s``, ``3 min 20 s``, ``1 h 12 min``."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def draw(axes: Any, name: str, stream: Stream, start: float, stop: float, *, n_pixels: int) -> None:
    """Draws one stream, already cut to the excerpt.

    Args:
        axes: where to draw.
        name: the stream's name.
        stream: the stream between ``start`` and ``stop`` seconds; intervals whole.
        start: left edge.
        stop: right edge.
        n_pixels: width of the axes.
    """
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_yticks([])
    if isinstance(stream, Intervals):
        facts = _spans(axes, stream, start, stop, n_pixels)
    elif isinstance(stream, Events):
        facts = [(_raster(axes, stream), signals.SOFT)]
    elif signals.is_heat(stream):
        facts = [(signals.heat(axes, stream, n_pixels), signals.SOFT)]
    else:
        facts = [(signals.traces(axes, stream, n_pixels), signals.SOFT)]
    if not isinstance(stream, Intervals):
        _gaps(axes, stream.valid, start, stop)
    words = axes.annotate(
        name, (0, 1), xycoords="axes fraction", xytext=(-62, 3), textcoords="offset points", fontsize=8,
        fontweight="bold", va="bottom", annotation_clip=False,
    )  # fmt: skip
    for text, shade in facts:
        words = axes.annotate(
            text, (1, 0), xycoords=words, xytext=(7, 0), textcoords="offset points", fontsize=7, color=shade,
            va="bottom", annotation_clip=False,
        )  # fmt: skip


def _gaps(axes: Any, valid: np.ndarray, start: float, stop: float) -> None:
    """Hatches the seconds in which the stream holds no data."""
    edges = np.concatenate([[start], np.asarray(valid).ravel(), [stop]]).reshape(-1, 2)
    for lo, hi in edges[edges[:, 1] - edges[:, 0] > 1e-3 * (stop - start)]:
        axes.axvspan(lo, hi, facecolor="#f1f1f1", edgecolor="#c4c4c4", hatch="////", linewidth=0, zorder=0.5)


def _key(axes: Any, names: list[tuple[str, str]], more: int = 0) -> None:
    """Coloured names beside the panel, from the top down."""
    height = axes.get_position().height * axes.figure.get_figheight() * 72
    room = max(1, int((height + 6) // 9.5))
    shown = names if len(names) <= room else names[: max(1, room - 1)]
    more += len(names) - len(shown)
    lines = [*shown, *([(f"and {more} more", signals.FAINT)] if more else [])]
    for row, (text, shade) in enumerate(lines):
        axes.annotate(
            signals.cut(text, 26), (1, 1), xycoords="axes fraction", xytext=(6, 1 - 9.5 * row),
            textcoords="offset points", fontsize=7, color=shade, va="top", annotation_clip=False,
        )  # fmt: skip


def colour(row: int) -> str:
    """One of the palette; darker from its second round on."""
    one = COLOURS[row % len(COLOURS)]
    shade = 0.6 ** (row // len(COLOURS))
    return one if shade == 1 else "#" + "".join(f"{round(int(one[i : i + 2], 16) * shade):02x}" for i in (1, 3, 5))


# events


def _raster(axes: Any, stream: Events) -> str:
    n = len(stream.channels)
    regions = stream.channels.regions
    groups = sorted(set(regions), key=lambda r: (r == "", r))
    order = sorted(range(n), key=lambda i: (groups.index(regions[i]), i))
    row = np.empty(n, np.int64)
    row[order] = np.arange(n)
    times, codes = np.asarray(stream.times_s), np.asarray(stream.codes)
    of_group = np.array([groups.index(region) for region in regions], np.int64)
    points = axes.get_position().height * axes.figure.get_figheight() * 72
    size = float(np.clip(0.8 * points / max(n, 1), 1.1, 14.0))
    for at in range(len(groups)):
        mine = of_group[codes] == at if len(codes) else np.zeros(0, bool)
        axes.plot(
            times[mine], row[codes[mine]], linestyle="none", marker="|", markersize=size,
            markeredgewidth=0.5 if n > 30 else 0.8, color=colour(at),
        )  # fmt: skip
    axes.set_ylim(n - 0.4, -0.6)
    what = "units" if stream.modality == "spikes" else "kinds"
    named = Counter(regions)
    if groups != [""]:
        shown = [(f"{g or 'no region'}  {named[g]}", colour(i)) for i, g in enumerate(groups)]
        _key(axes, shown)
    if 1 < n <= signals.MAX_TRACES:
        axes.set_yticks(range(n), [signals.cut(stream.channels.ids[i], 11) for i in order], fontsize=6)
        axes.tick_params(axis="y", length=0)
    count = f"{n} {what}, " if n > 1 else ""
    return f"{count}{len(times):,} events here" + (", by region" if groups != [""] else "")


# intervals


def _spans(axes: Any, stream: Intervals, start: float, stop: float, n_pixels: int) -> list[tuple[str, str]]:
    column = main_column(stream)
    values = np.asarray(stream.columns[column]).tolist() if column else []
    kinds = sorted({_label(v) for v in values} - {""}, key=_natural)
    shade = {kind: colour(i) for i, kind in enumerate(kinds)} | {"": signals.FAINT}
    axes.set_ylim(0, 1)
    here = np.flatnonzero((stream.start_s < stop) & (np.maximum(stream.stop_s, stream.start_s) >= start))
    free_from = -np.inf
    per_pixel = (stop - start) / n_pixels
    for i in here.tolist():
        lo, hi = max(float(stream.start_s[i]), start), min(float(stream.stop_s[i]), stop)
        text = _label(values[i]) if column else ""
        if hi - lo < 2 * per_pixel:
            axes.axvline(lo, 0.05, 0.95, color=shade[text], linewidth=1.4)
            continue
        axes.axvspan(lo, hi, 0.05, 0.95, facecolor=shade[text], alpha=0.35, edgecolor=shade[text])
        wide = (5.5 * len(text) + 6) * per_pixel
        if text and hi - lo > wide and lo >= free_from:
            axes.text(lo, 0.5, f" {text}", fontsize=7, va="center", ha="left", clip_on=True)
            free_from = lo + wide
    if not column:
        return [(f"{len(here):,} of {len(stream.start_s):,} here", signals.SOFT)]
    room = n_pixels - 5 * len(column)
    shown = []
    for kind in kinds:  # as many as one line holds
        room -= 5 * len(kind) + 14
        if room > 0:
            shown.append((kind, shade[kind]))
    more = [(f"and {len(kinds) - len(shown)} more", signals.FAINT)] if len(shown) < len(kinds) else []
    return [(f"{len(here):,} of {len(stream.start_s):,} here, coloured by {column}:", signals.SOFT), *shown, *more]


def main_column(stream: Intervals) -> str:
    """The column that says what an interval is: a usual name, else the first with few values; ``""`` for none."""
    for name in _MAIN_COLUMNS:
        if name in stream.columns:
            return name
    kinds = {name: len({_label(v) for v in np.asarray(v).tolist()} - {""}) for name, v in stream.columns.items()}
    textual = [n for n, v in stream.columns.items() if np.asarray(v).dtype.kind in "US" and 1 <= kinds[n] <= 24]
    few = [n for n in stream.columns if 2 <= kinds[n] <= 12]
    return next(iter([*textual, *few]), "")


def _label(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:g}"
    return str(value)


def _natural(text: str) -> tuple[int, float, str]:
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text
