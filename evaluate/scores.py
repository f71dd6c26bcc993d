"""Scores as rows of the catalog and as a table that a person reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from neurofmx.lake import now
from neurofmx.provenance import code_version
from neurofmx.types import Score

if TYPE_CHECKING:
    from rich.table import Table

COLOURS = {"better": "green", "worse": "red", "equivalent": "cyan", "undecided": "yellow"}


def score_row(score: Score) -> dict[str, Any]:
    """The row of catalog table ``scores``; a value that is not a number is null there."""
    row = {f.name: getattr(score, f.name) for f in dataclasses.fields(score)}
    low, high = row.pop("ci95")
    delta_low, delta_high = row.pop("delta_ci95")
    row |= {"ci_low": low, "ci_high": high, "delta_low": delta_low, "delta_high": delta_high}
    row = {k: None if isinstance(v, float) and v != v else v for k, v in row.items()}
    return row | {"recordings": list(score.recordings), "code_version": code_version(), "scored_at": now()}


def print_scores(scores: Iterable[Score | Mapping[str, Any]]) -> None:
    """Prints the table on standard output, wide enough for whole rows where that is a file or a pipe."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=130)).print(scores_table(scores))


def scores_table(scores: Iterable[Score | Mapping[str, Any]]) -> Table:
    """A block a task: chance first, baselines, then our network in bold with its verdict; ids are never broken.

    Args:
        scores: scores, or rows of catalog table ``scores``.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column("predictor", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("against the best baseline", overflow="fold")
    table.add_column("score id", no_wrap=True, min_width=16)
    rows = [score_row(s) if isinstance(s, Score) else dict(s) for s in scores]
    rows.sort(key=lambda r: (r["task"], *_place(r["predictor"])))
    before = None
    for row in rows:
        if row["task"] != before:
            if before is not None:
                table.add_row()
            units = f"{row['n_units']} {row['unit']}{'s' if row['n_units'] != 1 else ''}"
            about = (Text(row["metric"], style="dim"), Text(f"resampled over {units}", style="dim"))
            table.add_row(Text(row["task"], style="bold cyan"), "", *about, "")
            before = row["task"]
        style = "bold" if row["predictor"] == "neurofmx" else ""
        table.add_row(
            Text(f"  {row['predictor']}", style=style),
            Text(_number(row["value"]), style=style),
            f"{_number(row['ci_low'])} to {_number(row['ci_high'])}",
            _verdict(row) if row["predictor"].startswith("neurofmx") else Text(""),
            Text(row["score_id"], style="dim"),
        )
    return table


def _place(predictor: str) -> tuple[int, str]:
    """Chance, controls, baselines, the network untrained, the network."""
    order = {"chance": 0, "neurofmx untrained": 3, "neurofmx": 4}
    return order.get(predictor, 1 if predictor.startswith("control") else 2), predictor


def _verdict(row: Mapping[str, Any]) -> Any:
    from rich.text import Text

    text = Text(row["verdict"], style=COLOURS.get(row["verdict"], ""))
    if row["delta"] is not None:
        text.append(f" {row['delta']:+.3f} to {row['baseline']}", style="default")
    return text


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"
