"""The whole DAG on the sample and simulated archives (and a mirror): the command ``neurofmx demo``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console

from neurofmx import catalog
from neurofmx.assets.definitions import definitions
from neurofmx.assets.instance import instance_of
from neurofmx.assets.learned import report_path
from neurofmx.assets.materialize import Outcome, materialize_learned, materialize_recordings
from neurofmx.assets.resources import RecipeResource
from neurofmx.evaluate.scores import print_scores
from neurofmx.ingest.sources import demo_sources, read_sources, write_sources
from neurofmx.lake import Lake
from neurofmx.pipeline import all_sessions, with_progress


def demo(lake: Lake, *, recipe: str = "laptop", mirror: Path | None = None) -> int:
    """Materializes everything, showing what it does, and prints the scores and the report's path.

    Args:
        lake: gets the demo's sources beside those that it has.
        recipe: name of a training recipe.
        mirror: a folder of recordings laid out as the archives, or None.

    Returns:
        0, or 1 when a recording could not be had or something learned failed. What was refused for its own
        sake is in quarantine and is not a failure of the pipeline.
    """
    console = Console()
    write_sources(lake, [*read_sources(lake), *demo_sources(mirror)])
    sessions, unlisted = all_sessions(lake)
    for source, error in unlisted.items():
        console.print(f"[red]{source} was left out:[/red] {error}")
    keys = [str(session.id) for session in sessions]
    with with_progress() as on, instance_of(lake) as instance:
        defs = definitions(lake, recipe=RecipeResource(name=recipe), on=on)
        outcomes: list[Outcome] = []

        def told(outcome: Outcome) -> None:
            outcomes.append(outcome)
            on("recordings", len(outcomes), len(keys))

        on("recordings", 0, len(keys))
        materialize_recordings(defs, instance, lake, keys, told)
        learned = materialize_learned(defs, instance)
    return _summary(lake, outcomes, learned, len(unlisted), console)


def _summary(lake: Lake, outcomes: list[Outcome], learned: Outcome, unlisted: int, console: Console) -> int:
    counts = Counter(outcome.status for outcome in outcomes)
    for outcome in outcomes:
        for reason in outcome.reasons:
            console.print(f"[yellow]{outcome.status}[/yellow] {outcome.key}: {reason}", highlight=False)
    console.print("recordings: " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
    if learned.status == "failed":
        for reason in learned.reasons:
            console.print(f"[red]failed[/red] {reason}", highlight=False)
    else:
        print_scores(catalog.rows(lake, "scores"))
        console.print(f"report: {report_path(lake)}")
    return 1 if unlisted or counts["failed"] or learned.status == "failed" else 0
