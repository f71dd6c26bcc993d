"""Pictures for the UI: loss curves of a training run, the transfer matrix as a heat map."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_curves(runs: Iterable[Mapping[str, Any]]) -> bytes:
    """Validation loss over steps, one line a fold.

    Args:
        runs: rows of the catalog's ``runs``; ``history`` is JSON, a list of objects with ``step`` and losses.

    Returns:
        A PNG.
    """
    figure = _figure(6.4, 3.2)
    axes = figure.subplots()
    for row in sorted(runs, key=lambda r: (r["recipe"], r["fold"])):
        history = [h for h in json.loads(row["history"] or "[]") if h.get("valid") is not None]
        axes.plot(
            [h["step"] for h in history], [h["valid"] for h in history], label=f"{row['recipe']}, fold {row['fold']}"
        )
    axes.set_xlabel("step")
    axes.set_ylabel("validation loss")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def transfer_heat_map(cells: Iterable[Mapping[str, Any]]) -> bytes:
    """Gain of adapting over training from scratch, source by target; cells whose interval excludes 0 carry a dot.

    Args:
        cells: rows of one matrix of the catalog's ``transfer``.

    Returns:
        A PNG.
    """
    rows = list(cells)
    sources, targets = sorted({r["source"] for r in rows}), sorted({r["target"] for r in rows})
    gain = np.full((len(sources), len(targets)), np.nan)
    figure = _figure(1.8 + 0.7 * max(len(targets), 3), 1.4 + 0.5 * max(len(sources), 3))
    axes = figure.subplots()
    for row in rows:
        i, j = sources.index(row["source"]), targets.index(row["target"])
        gain[i, j] = row["gain"]
        certain = row["gain_low"] > 0 or row["gain_high"] < 0
        axes.text(j, i, f"{row['gain']:+.2f}{'•' if certain else ''}", ha="center", va="center", fontsize=8)
    limit = max(float(np.nanmax(np.abs(gain))) if np.isfinite(gain).any() else 0.0, 1e-3)
    image = axes.imshow(gain, cmap="RdBu", vmin=-limit, vmax=limit, alpha=0.75)
    axes.set_xticks(range(len(targets)), [_short(t) for t in targets], rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(sources)), [_short(s) for s in sources], fontsize=8)
    axes.set_xlabel("target")
    axes.set_ylabel("source")
    figure.colorbar(image, label="gain over from-scratch")
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _short(text: str) -> str:
    return text.rsplit("/", 1)[-1][-24:]
