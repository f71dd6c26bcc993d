"""`make bench [ONLY=stage]`: runs one bench a stage, prints each as a table, keeps it as JSON."""

from __future__ import annotations

import importlib
import sys

from rich.console import Console
from rich.table import Table

from bench.figure import keep

STAGES = ("pipeline", "ingest", "lake", "model", "train", "evaluate", "interpret")


def main(chosen: list[str]) -> int:
    """Runs the chosen stages (all when none is named); returns 1 when a goal is missed."""
    unknown = set(chosen) - set(STAGES)
    if unknown:
        print(f"unknown stage {', '.join(sorted(unknown))}; expected one of {', '.join(STAGES)}", file=sys.stderr)
        return 2
    console, missed = Console(), 0
    for stage in chosen or STAGES:
        figures = importlib.import_module(f"bench.{stage}").figures()
        keep(stage, figures)
        table = Table("figure", "value", "unit", "goal", "holds", "peers", title=stage, title_justify="left")
        for f in figures:
            holds = {True: "yes", False: "[red]no[/red]", None: ""}[f.holds]
            peers = ", ".join(f"{k} {v:.4g}" for k, v in f.peers.items())
            table.add_row(f.figure, f"{f.value:.4g}", f.unit, f.goal, holds, peers)
            missed += f.holds is False
        console.print(table)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
