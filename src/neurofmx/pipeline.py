"""The stages wired together as plain functions: what the CLI, the Dagster assets and DVC all call."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurofmx import catalog
from neurofmx.config import override
from neurofmx.errors import ConfigError, NotThere
from neurofmx.lake import Lake, now
from neurofmx.provenance import canonical_json, code_version, digest_of
from neurofmx.types import Finding, RecordingId, Score

if TYPE_CHECKING:
    from neurofmx.ingest.ingest import IngestReport
    from neurofmx.ingest.sessions import Session
    from neurofmx.tokenize.windows import TaskData
    from neurofmx.train.checkpoints import Trained
    from neurofmx.train.recipes import Recipe

# told (what is being done, steps done, steps in all)
OnProgress = Callable[[str, int, int], None]


def quiet(what: str, done: int, total: int) -> None:
    """Shows nothing."""


@contextlib.contextmanager
def with_progress() -> Iterator[OnProgress]:
    """A rich progress display as a callback."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars: dict[str, Any] = {}

        def on(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)

        yield on


# data


def sessions_of(lake: Lake, source: str | None = None, address: str = "") -> list[Session]:
    """Lists the sessions of one source text, or of all the lake's sources.

    Raises:
        NotThere: the source is not among the lake's and no address was given.
    """
    from neurofmx.ingest.archives.table import list_sessions
    from neurofmx.ingest.sessions import Source
    from neurofmx.ingest.sources import read_sources

    if source is None:
        return [s for known in read_sources(lake) for s in list_sessions(known)]
    known = {s.text: s for s in read_sources(lake)}
    if address or source not in known:
        archive, _, rest = source.partition(":")
        dataset, _, version = rest.partition("@")
        if not (archive and dataset and version):
            raise ConfigError("source", got=source, expected="archive:dataset@version, such as dandi:000140@draft")
        return list(list_sessions(Source(archive=archive, dataset=dataset, version=version, address=address)))
    return list(list_sessions(known[source]))


def ingest_many(lake: Lake, recordings: Iterable[str] | None = None) -> Iterator[IngestReport]:
    """Ingests the named recordings, or all of the lake's sources, one after the other."""
    from neurofmx.ingest.ingest import find_session, ingest_session

    sessions = sessions_of(lake) if recordings is None else [find_session(lake, r) for r in recordings]
    for session in sessions:
        with lake.lock():
            yield ingest_session(session, lake)


def tokens_of(lake: Lake, recording: RecordingId | str) -> int:
    """Makes the stored token grids of one recording that are missing or stale; returns how many."""
    from neurofmx.tokenize.catalog import specs_for
    from neurofmx.tokenize.grid import tokenize

    opened, made = lake.recording(recording), 0
    for spec in specs_for(opened):
        if spec.stored and not lake.has_tokens(recording, spec):
            lake.publish_tokens(recording, spec, tokenize(opened, spec))
            made += 1
    return made


def tokens_all(lake: Lake, on: OnProgress = quiet) -> int:
    """Makes every stored token grid that is missing or stale; returns how many."""
    ids, made = lake.recording_ids(), 0
    for i, recording in enumerate(ids):
        with lake.lock():
            made += tokens_of(lake, recording)
        on("tokens", i + 1, len(ids))
    return made


# models


def chosen_recipe(name: str, settings: Iterable[str] = ()) -> Recipe:
    """A recipe by name with overrides applied.

    Raises:
        ConfigError: no such recipe, or no such field.
    """
    from neurofmx.train.recipes import RECIPES

    if name not in RECIPES:
        raise ConfigError("recipe", got=name, expected=f"one of {', '.join(RECIPES)}")
    return override(RECIPES[name](), settings)


def task_data_of(lake: Lake, recipe: Recipe) -> dict[str, TaskData]:
    """Windows of every task that the recipe trains and whose recordings are in the lake.

    Raises:
        NotThere: no task of the recipe has any recording here.
    """
    from neurofmx.evaluate.build import task_data
    from neurofmx.evaluate.tasks import runnable_tasks

    tasks = [t for t in runnable_tasks(lake) if not recipe.tasks or t.name in recipe.tasks]
    if not tasks:
        raise NotThere("tasks", got="no task has recordings in this lake", fix="Ingest some: neurofmx ingest --all")
    return {t.name: task_data(t, lake) for t in tasks}


def _run_id(recipe: Recipe, fold: int, snapshot: str, data: dict[str, TaskData]) -> str:
    used = sorted({r.recording for d in data.values() for r in d.recordings})
    return digest_of({"recipe": recipe, "fold": fold, "snapshot": snapshot, "tasks": sorted(data), "used": used})[:16]
