"""Figures as inline SVG that take both themes: pure functions from numbers to markup.

Positions along x are percentages and sizes are pixels, so that a figure fits any width and its text keeps its size.
Colours are classes of ``templates/report.css``; marks carry ``data-tip``, which the page shows on hover.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from markupsafe import Markup

MOST_OPAQUE = 0.55  # of a heat map's cell: more would cost its text the contrast of 4.5
CELL_W, CELL_H, GLYPH = 74, 44, 6.9  # px; the last is the mean width of a 12.5 px character
BINS = 28
NOTHING = 1e-12  # less is what rounding leaves of 0


@dataclass(frozen=True)
class Axis:
    """A linear axis; ``at`` gives the percentage from its left end."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where a value lies, in percent; outside the axis it lies at the edge."""
        return round(min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low))), 3)


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number: neither null nor NaN nor infinite."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 3, *, sign: bool = False, fixed: bool = False) -> str:
    """A number for reading: a true minus, an en dash for none.

    Args:
        value: the number.
        digits: decimals below 100.
        sign: whether plus is written.
        fixed: whether what is too small for its decimals stays with them; else it gets a power of ten.
    """
    if not known(value):
        return "–"
    size = abs(value)
    if size < NOTHING:
        value = size = 0.0
    if size >= 1e6 or (0 < size < 0.5 * 10**-digits and not fixed):
        text = f"{value:+.2e}" if sign else f"{value:.2e}"
    else:
        digits = digits if size < 100 else min(digits, 1)
        rounded = round(value, digits) + 0.0  # no minus before what is 0 when rounded
        text = f"{rounded:+,.{digits}f}" if sign else f"{rounded:,.{digits}f}"
    return text.replace("-", "\u2212")


def decimals(values: Iterable[float | None]) -> int:
    """Decimals that numbers which stand together share: three, or more where even the largest is small."""
    top = max((abs(v) for v in values if known(v)), default=1.0)
    return min(9, max(3, 2 - math.floor(math.log10(max(top, NOTHING)))))


def axis_over(values: Iterable[float | None]) -> Axis:
    """An axis with round ticks that holds all values that are known."""
    held = [float(v) for v in values if v is not None and math.isfinite(v)] or [0.0, 1.0]
    low, high = min(held), max(held)
    span = (high - low) or max(abs(high), 1e-6)
    low, high = low - 0.06 * span, high + 0.06 * span
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return Axis(low, high, tuple(round(i * step, 12) for i in range(first, last + 1)))


def axis_row(axis: Axis, label: str) -> Markup:
    """The axis itself: ticks, their numbers and, unless ``label`` is empty, what is measured."""
    digits = max(0, -math.floor(math.log10(axis.ticks[1] - axis.ticks[0]))) if len(axis.ticks) > 1 else 3
    digits += any(abs(t - round(t, digits)) > 1e-9 for t in axis.ticks)
    marks = [
        Markup('<line x1="{x}%" x2="{x}%" y1="0" y2="5"/><text x="{x}%" y="19" text-anchor="middle">{t}</text>').format(
            x=axis.at(tick), t=number(tick, digits) if tick else "0"
        )
        for tick in axis.ticks
    ]
    body = Markup("").join(marks)
    title = Markup('<text class="title" x="50%" y="36" text-anchor="middle">{}</text>').format(label) if label else ""
    return Markup(
        '<svg class="axis" width="100%" height="{height}" aria-hidden="true"><line x1="0" x2="100%" y1="0.5" y2="0.5"/>'
        "{body}{title}</svg>"
    ).format(height=40 if label else 24, body=body, title=title)


def interval_row(
    axis: Axis, value: float | None, low: float | None, high: float | None, *, kind: str, chance: float | None, tip: str
) -> Markup:
    """One row of a dot-and-interval plot: the interval as a bar, the value as a mark, chance as a line behind.

    Args:
        axis: shared by the rows of the figure.
        value: where the mark lies; without one the row is empty.
        low: lower end of the interval, if there is one.
        high: its upper end.
        kind: ``ours``, ``best``, ``baseline``, ``control``, ``untrained`` or ``chance``: shape and colour.
        chance: value of the chance predictor.
        tip: what hovering says.
    """
    parts = [Markup('<line class="rule" x1="0" x2="100%" y1="14" y2="14"/>')]
    if known(chance):
        parts.append(Markup('<line class="at-chance" x1="{x}%" x2="{x}%" y1="0" y2="28"/>').format(x=axis.at(chance)))
    if known(value):
        if known(low) and known(high):
            parts.append(
                Markup('<line class="bar" x1="{a}%" x2="{b}%" y1="14" y2="14"/>').format(
                    a=axis.at(low),
                    b=axis.at(high),
                )
            )
        x = axis.at(value)
        if kind in ("best", "untrained"):
            turn = Markup(" rotate(45)") if kind == "untrained" else ""
            parts.append(
                Markup(
                    '<svg x="{x}%" y="14" overflow="visible"><rect class="dot" x="-5" y="-5" width="10" height="10"'
                    ' transform="translate(0){turn}"/></svg>'
                ).format(x=x, turn=turn)  # fmt: skip
            )
        else:
            parts.append(
                Markup('<circle class="dot" cx="{x}%" cy="14" r="{r}"/>').format(x=x, r=6.5 if kind == "ours" else 5)
            )
    return Markup(
        '<svg class="row k-{kind}" width="100%" height="28" aria-hidden="true" data-tip="{tip}">{body}</svg>'
    ).format(kind=kind, tip=tip, body=Markup("").join(parts))


def share_bar(shares: Sequence[tuple[str, str, int]], about: str) -> Markup:
    """Counts as parts of one bar.

    Args:
        shares: (class, name, count), drawn in this order; zero counts are left out.
        about: what the bar counts, for who cannot see it.
    """
    total, left, parts = sum(n for *_, n in shares), 0.0, []
    for name, text, n in shares:
        if n:
            width = 100 * n / total
            parts.append(
                Markup(
                    '<g data-tip="{text}: {n} of {total}"><rect class="s-{c}" x="{x}%" width="{w}%" height="100%"/>'
                    '<text x="{m}%" y="20" text-anchor="middle">{n}</text></g>'
                ).format(
                    text=text,
                    n=n,
                    total=total,
                    c=name,
                    x=round(left, 3),
                    w=round(width, 3),
                    m=round(left + width / 2, 3),
                )  # fmt: skip
            )
            left += width
    said = ", ".join(f"{text} {n}" for _, text, n in shares if n)
    return Markup(
        '<svg class="shares" width="100%" height="30" role="img" aria-label="{about}: {said}">{body}</svg>'
    ).format(about=about, said=said, body=Markup("").join(parts))


def null_strip(value: float, null: Sequence[float], low: float | None, high: float | None, *, about: str) -> Markup:
    """A value on the histogram of its null: bars for surrogates, a line for the value, a bar for its interval.

    Args:
        value: the statistic.
        null: (S,) the statistic on surrogates, S >= 1.
        low: lower end of the interval of the value, if there is one.
        high: its upper end.
        about: what the value is, for who cannot see it.
    """
    surrogates = np.asarray(null, dtype=np.float64)
    axis = axis_over([value, low, high, float(surrogates.min()), float(surrogates.max())])
    counts, edges = np.histogram(surrogates, bins=np.linspace(axis.low, axis.high, 2 * BINS + 1))
    top, height = max(int(counts.max()), 1), 62
    width = 100 / (2 * BINS)
    bars = Markup("").join(
        Markup('<rect x="{x}%" y="{y}" width="{w}%" height="{h}"/>').format(
            x=axis.at(edge), y=round(height - height * n / top, 2), w=round(width, 3), h=round(height * n / top, 2)
        )
        for edge, n in zip(edges[:-1].tolist(), counts.tolist())
        if n
    )
    a, b = (float(q) for q in np.quantile(surrogates, (0.025, 0.975)))
    mean = float(surrogates.mean())
    tip = f"{about}: {number(value)}; {len(surrogates)} surrogates: mean {number(mean)}"
    tip += f", 95% of them {number(a)} to {number(b)}"
    interval = Markup("")
    if known(low) and known(high):
        interval = Markup('<line class="bar" x1="{a}%" x2="{b}%" y1="76" y2="76"/>').format(
            a=axis.at(low), b=axis.at(high)
        )
    return Markup(
        '<svg class="null" width="100%" height="84" role="img" aria-label="{tip}" data-tip="{tip}">'
        '<rect class="band" x="{a}%" width="{w}%" y="0" height="62"/><g class="bars">{bars}</g>'
        '<line class="at-chance" x1="{m}%" x2="{m}%" y1="0" y2="62"/>'
        '<line class="base" x1="0" x2="100%" y1="62.5" y2="62.5"/>'
        '<line class="at" x1="{v}%" x2="{v}%" y1="0" y2="76"/>{interval}'
        '<circle class="dot" cx="{v}%" cy="76" r="5.5"/></svg>{axis}'
    ).format(tip=tip, a=axis.at(a), w=round(axis.at(b) - axis.at(a), 3), bars=bars, m=axis.at(mean),
             v=axis.at(value), interval=interval, axis=axis_row(axis, ""))  # fmt: skip


def loss_curves(runs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Markup:
    """Losses over steps: validation as a line a run, training as a faint one.

    Args:
        runs: (name, history) a run; rows of a history have ``step`` and, where measured, ``train`` and ``valid``.
    """
    points = [
        (name, kind, [(float(h["step"]), float(h[kind])) for h in rows if known(h.get(kind))])
        for kind in ("train", "valid")
        for name, rows in runs
    ]
    held = [p for *_, line in points for p in line]
    if not held:
        return Markup('<p class="none">No loss was stored.</p>')
    last = max(max(step for step, _ in held), 1.0)
    # the first training losses may be many times the rest: the axis is cut at twice the largest validation loss
    losses = [loss for _, kind, line in points if kind == "valid" for _, loss in line] or [loss for _, loss in held]
    low, high = min(loss for _, loss in held), max(losses)
    high = min(max(loss for _, loss in held), low + 2 * ((high - low) or abs(high) or 1.0))
    span = (high - low) or 1.0
    lines = []
    for name, kind, line in points:
        path = " ".join(f"{100 * s / last:.2f},{4 + 92 * (high - min(v, high)) / span:.2f}" for s, v in line)
        end = f", last {number(line[-1][1])}" if line else ""
        lines.append(
            Markup('<polyline class="l-{kind}" points="{path}" data-tip="{name}: {said}{end}"/>').format(
                kind=kind, path=path, name=name, said="validation" if kind == "valid" else "training", end=end
            )
        )
    return Markup(
        '<div class="curve"><span class="top">{high}</span><span class="low">{low}</span><svg width="100%" height="110"'
        ' viewBox="0 0 100 100" preserveAspectRatio="none" role="img"'
        ' aria-label="Loss over {last} steps, from {high} to {low}">'
        '{lines}</svg><span class="steps">{last} steps</span></div>'
    ).format(high=number(high), low=number(low), last=f"{last:,.0f}", lines=Markup("").join(lines))


def heat_map(cells: Sequence[Mapping[str, Any]], *, about: str) -> Markup:
    """Gains, source by target: positive and negative cells in two colours, a dot where the interval excludes 0.

    Args:
        cells: rows of one matrix of the catalog's ``transfer``.
        about: what the matrix is, for who cannot see it.
    """
    sources, targets = (sorted({str(c[side]) for c in cells}) for side in ("source", "target"))
    at = {(str(c["source"]), str(c["target"])): c for c in cells}
    left = 16 + GLYPH * max(len(short(s)) for s in sources)
    rise = 18 + 0.62 * GLYPH * max(len(short(t)) for t in targets)
    limit = max((abs(c["gain"]) for c in cells if known(c["gain"])), default=0.0) or 1.0
    parts: list[Markup] = []
    for j, target in enumerate(targets):
        x = left + (j + 0.5) * CELL_W
        parts.append(
            Markup(
                '<text class="label" x="{x}" y="{y}" transform="rotate(-38 {x} {y})"'
                ' data-tip="target {full}">{t}</text>'
            ).format(x=round(x, 1), y=round(rise - 8, 1), full=target, t=short(target))
        )
    for i, source in enumerate(sources):
        y = rise + i * CELL_H
        parts.append(
            Markup('<text class="label" x="{x}" y="{y}" text-anchor="end" data-tip="source {full}">{t}</text>').format(
                x=round(left - 10, 1), y=round(y + CELL_H / 2 + 4, 1), full=source, t=short(source)
            )
        )
        for j, target in enumerate(targets):
            parts.append(_cell(at.get((source, target)), left + j * CELL_W, y, limit))
    width = left + len(targets) * CELL_W + 0.79 * GLYPH * len(short(targets[-1]))
    height = rise + len(sources) * CELL_H
    return Markup(
        '<svg class="heat" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" aria-label="{about}">{body}</svg>'
    ).format(w=math.ceil(width), h=math.ceil(height), about=about, body=Markup("").join(parts))


def _cell(cell: Mapping[str, Any] | None, x: float, y: float, limit: float) -> Markup:
    box = Markup('x="{x}" y="{y}" width="{w}" height="{h}" rx="3"').format(
        x=round(x + 1.5, 1), y=round(y + 1.5, 1), w=CELL_W - 3, h=CELL_H - 3
    )
    if cell is None or not known(cell["gain"]):
        tip = "not measured" if cell is None else f"{cell['source']} to {cell['target']}: no value"
        return Markup('<rect class="missing" {box} data-tip="{tip}"/>').format(box=box, tip=tip)
    gain, low, high = cell["gain"], cell["gain_low"], cell["gain_high"]
    interval = (
        f"95% {number(low, sign=True, fixed=True)} to {number(high, sign=True, fixed=True)}"
        if known(low) and known(high)
        else "no interval"
    )
    tip = (
        f"{cell['source']} to {cell['target']}: gain {number(gain, sign=True, fixed=True)}, {interval}; n {cell['n']},"
        f" {cell['n_units']} units; checkpoint {cell['checkpoint'] or 'none'}"
    )
    sure = known(low) and known(high) and (low > 0 or high < 0)
    dot = Markup('<circle class="sure" cx="{x}" cy="{y}" r="3.2"/>').format(
        x=round(x + CELL_W - 11, 1), y=round(y + 11, 1)
    )
    return Markup(
        '<g data-tip="{tip}"><rect class="{c}" {box} fill-opacity="{a}"/>'
        '<text x="{m}" y="{b}" text-anchor="middle">{t}</text>{dot}</g>'
    ).format(tip=tip, c="negative" if gain < 0 else "positive", box=box, a=round(MOST_OPAQUE * abs(gain) / limit, 3),
             m=round(x + CELL_W / 2, 1), b=round(y + CELL_H / 2 + 5, 1), t=number(gain, 2, sign=True, fixed=True),
             dot=dot if sure else "")  # fmt: skip


def short(text: str, most: int = 22) -> str:
    """The last part of a name, cut to fit a label."""
    return cut(text.rstrip("/").rsplit("/", 1)[-1], most)


def cut(text: str, most: int) -> str:
    """A text of at most so many characters, with an ellipsis where something is left out."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def picture(png: bytes, alt: str) -> Markup:
    """A PNG inside the page."""
    return Markup('<img src="data:image/png;base64,{data}" alt="{alt}">').format(
        data=base64.b64encode(png).decode(), alt=alt
    )
