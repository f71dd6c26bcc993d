"""Figures of one decoded recording: what was measured beside what the model said of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from neurofmx.interpret.figures import GLYPH, MOST_OPAQUE, cut, number

SIDE = 52  # px of a cell of the confusion table
MOST = 22  # characters of a class's name


def traces(times_s: np.ndarray, truth: np.ndarray, predicted: np.ndarray, *, about: str) -> Markup:
    """Truth and prediction of one target dimension over time; NaN, or a step left out, breaks a line.

    Args:
        times_s: (T,) seconds, ascending.
        truth: (T,) what was measured.
        predicted: (T,) what the model said.
        about: name and unit of the dimension.
    """
    both = np.concatenate([truth, predicted])
    both = both[np.isfinite(both)]
    if not len(both) or len(times_s) < 2:
        return Markup('<p class="none">Nothing to draw.</p>')
    low, high = float(both.min()), float(both.max())
    span, first, length = (high - low) or 1.0, float(times_s[0]), float(times_s[-1] - times_s[0]) or 1.0
    begins = np.concatenate([[True], np.diff(times_s) > 1.5 * np.median(np.diff(times_s))])
    lines = Markup("").join(
        Markup('<path class="l-{kind}" d="{d}"/>').format(
            kind=kind, d=_path((times_s - first) * (1000 / length), 5 + 190 * (high - values) / span, begins)
        )
        for kind, values in (("truth", truth), ("ours", predicted))
    )
    return Markup(
        '<div class="curve"><span class="top">{high}</span><span class="low">{low}</span><svg width="100%" height="130"'
        ' viewBox="0 0 1000 200" preserveAspectRatio="none" role="img"'
        ' aria-label="{about}, truth and prediction, {length} s">'
        '{lines}</svg><span class="steps">{about} · {first} s to {last} s</span></div>'
    ).format(high=number(high), low=number(low), about=about, length=number(length, 1), lines=lines,
             first=number(first, 1), last=number(first + length, 1))  # fmt: skip


def _path(x: np.ndarray, y: np.ndarray, begins: np.ndarray) -> str:
    parts, open_ = [], False
    for px, py, begin in zip(x.tolist(), y.tolist(), begins.tolist()):
        if math.isfinite(py):
            parts.append(f"{'L' if open_ and not begin else 'M'}{px:.1f} {py:.1f}")
        open_ = math.isfinite(py)
    return "".join(parts)


def confusion(truth: np.ndarray, told: np.ndarray, names: Sequence[str]) -> Markup:
    """How often each class (row) was told as each class (column), as shares of the row.

    Args:
        truth: (N,) class rows.
        told: (N,) class rows that the model found likeliest.
        names: the K class names.
    """
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (truth, told), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    left, rise = 16 + GLYPH * max(len(cut(n, MOST)) for n in names), 26
    parts = [
        Markup('<text class="label" x="{x}" y="16" text-anchor="middle" data-tip="told: {full}">{t}</text>').format(
            x=round(left + (j + 0.5) * SIDE, 1), full=name, t=cut(name, 7)
        )
        for j, name in enumerate(names)
    ]
    for i, name in enumerate(names):
        y = rise + i * SIDE
        parts.append(
            Markup('<text class="label" x="{x}" y="{y}" text-anchor="end">{t}</text>').format(
                x=round(left - 10, 1), y=round(y + SIDE / 2 + 4, 1), t=cut(name, MOST)
            )
        )
        for j, other in enumerate(names):
            tip = f"{name} told as {other}: {counts[i, j]} of {counts[i].sum()}"
            parts.append(
                Markup(
                    '<g data-tip="{tip}"><rect class="{c}" x="{x}" y="{y}" width="{s}" height="{s}" rx="3"'
                    ' fill-opacity="{a}"/><text x="{m}" y="{b}" text-anchor="middle">{t}</text></g>'
                ).format(
                    tip=tip,
                    c="positive" if i == j else "negative",
                    x=round(left + j * SIDE + 1.5, 1),
                    y=y + 1.5,
                    s=SIDE - 3,
                    a=round(MOST_OPAQUE * float(share[i, j]), 3),
                    m=round(left + (j + 0.5) * SIDE, 1),
                    b=y + SIDE / 2 + 5,
                    t=number(float(share[i, j]), 2),
                )  # fmt: skip
            )
    right = float(np.trace(counts)) / max(int(counts.sum()), 1)
    return Markup(
        '<svg class="heat" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" aria-label="{about}">{body}</svg>'
    ).format(w=math.ceil(left + SIDE * len(names)), h=rise + SIDE * len(names), body=Markup("").join(parts),
             about=f"Truth by row, told class by column; {number(right, 2)} told right")  # fmt: skip
