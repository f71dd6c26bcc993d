"""The stages wired together as plain functions: what the CLI, the Dagster assets and DVC all call."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofmx import catalog
from neurofmx.config import override
from neurofmx.errors import ConfigError, NeurofmxError, NotThere
from neurofmx.lake import Lake
from neurofmx.provenance import plain
from neurofmx.twins import components, links
from neurofmx.types import Finding, RecordingId, Score

if TYPE_CHECKING:
    from neurofmx.evaluate.tasks import TaskSpec
    from neurofmx.ingest.ingest import IngestReport
    from neurofmx.ingest.restore import Restored
    from neurofmx.ingest.sessions import Session
    from neurofmx.snapshots import Manifest
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


def sessions_of(lake: Lake, source: str, address: str = "") -> list[Session]:
    """Lists the sessions of one dataset and keeps the answer, so that they can then be ingested by id.

    Args:
        lake: its sources file says where the dataset is.
        source: ``archive:dataset@version``.
        address: a folder or URL that stands in for the archive.

    Raises:
        ConfigError: the text has another shape.
        NotThere: no such dataset; and what the archive's connector raises.
    """
    from neurofmx.ingest.sessions import Source
    from neurofmx.ingest.sources import list_source, sources_of

    known = {s.text: s for s in sources_of(lake)}
    wanted = Source.parse(source, address) if address or source not in known else known[source]
    return list_source(lake, wanted)


def all_sessions(lake: Lake) -> tuple[list[Session], dict[str, NeurofmxError]]:
    """Lists all of a lake's sources.

    Returns:
        The sessions, and source -> why it could not be listed; one that is down keeps no other waiting.
    """
    from neurofmx.ingest.sources import list_source, sources_of

    found: list[Session] = []
    unlisted: dict[str, NeurofmxError] = {}
    for source in sources_of(lake):
        try:
            found += list_source(lake, source)
        except NeurofmxError as error:
            unlisted[source.text] = error
    return found, unlisted


def ingest_many(lake: Lake, sessions: Iterable[Session]) -> Iterator[IngestReport]:
    """Ingests sessions one after the other; one that is refused or cannot be had stops no other."""
    from neurofmx.ingest.ingest import ingest_session

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


def restore_snapshot(
    target: Lake, manifest: Path | Manifest, *, origin: Lake | None = None, addresses: Mapping[str, str] | None = None
) -> Iterator[Restored]:
    """Rebuilds the recordings and tokens that a snapshot names in an empty lake, as `ingest.restore.restore`."""
    from neurofmx.ingest.restore import restore

    return restore(target, manifest, origin=origin, addresses=addresses, tokens=tokens_of)


# models


def chosen_recipe(name: str, settings: Iterable[str] = ()) -> Recipe:
    """A recipe by name with overrides applied.

    Raises:
        ConfigError: no such recipe, or no such field.
    """
    from neurofmx.train.recipes import recipe_named

    return override(recipe_named(name), settings)


def tasks_of(lake: Lake, recipe: Recipe) -> list[TaskSpec]:
    """The tasks that a recipe trains and whose recordings are in the lake.

    Raises:
        ConfigError: the recipe names a task that does not exist.
        NotThere: none of its tasks has a recording here.
    """
    from neurofmx.evaluate.tasks import TASKS, runnable_tasks

    unknown = sorted(set(recipe.tasks) - set(TASKS))
    if unknown:
        raise ConfigError("recipe.tasks", got=", ".join(unknown), expected=f"out of {', '.join(TASKS)}")
    tasks = [t for t in runnable_tasks(lake) if not recipe.tasks or t.name in recipe.tasks]
    if not tasks:
        raise NotThere("tasks", got="no task has recordings in this lake", fix="Ingest some: neurofmx ingest --all")
    return tasks


def splits_all(lake: Lake) -> int:
    """Stores the split rows of every task that has recordings here; old rows stay; returns the number of tasks."""
    from neurofmx.evaluate.build import task_data
    from neurofmx.evaluate.tasks import runnable_tasks

    tasks = runnable_tasks(lake)
    for task in tasks:
        task_data(task, lake)
    return len(tasks)


def training_sets(
    data: Mapping[str, TaskData], twins: Mapping[str, tuple[str, ...]] | None = None
) -> list[dict[str, TaskData]]:
    """Groups tasks that one network may learn together: no window tested in a fold lies in another's training.

    Tasks that share a recording, or its content, go together only when their folds agree wherever their windows
    overlap in time.
    """
    sets: list[dict[str, TaskData]] = []
    for name, task in data.items():
        fits = (s for s in sets if all(_folds_agree(task, other, twins or {}) for other in s.values()))
        home = next(fits, None)
        if home is None:
            sets.append({name: task})
        else:
            home[name] = task
    return sets


def _folds_agree(a: TaskData, b: TaskData, twins: Mapping[str, tuple[str, ...]]) -> bool:
    others = {r.recording: r for r in b.recordings}
    alike = [(one, others.get(name)) for one in a.recordings for name in twins.get(one.recording, (one.recording,))]
    for one, other in alike:
        if other is None:
            continue
        spans = []
        for windows in (one, other):
            bins = next(iter(windows.values.values())).shape[1]
            spans.append((windows.start_s, windows.start_s + bins * windows.dt_s, windows.fold))
        (start_a, stop_a, fold_a), (start_b, stop_b, fold_b) = spans
        overlap = (start_a[:, None] < stop_b - 1e-9) & (start_b < stop_a[:, None] - 1e-9)
        used = (fold_a[:, None] >= 0) & (fold_b >= 0)
        if np.any(overlap & used & (fold_a[:, None] != fold_b)):
            return False
    return True


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Tasks that one network learns together, and its run in every fold.

    Args:
        data: task -> windows.
        runs: fold -> the row of table ``runs``.
    """

    data: dict[str, TaskData]
    runs: dict[int, dict[str, Any]]


def _trained_sets(
    lake: Lake, name: str, settings: Iterable[str], on: OnProgress
) -> tuple[Recipe, str, dict[str, TaskSpec], list[TrainingSet]]:
    """Trains what is not trained yet; finished runs are found by their digest."""
    from neurofmx.evaluate.build import task_data

    recipe = chosen_recipe(name, settings)
    tasks = {t.name: t for t in tasks_of(lake, recipe)}
    snapshot = lake.snapshot()
    data = {}
    for i, task in enumerate(tasks.values()):
        data[task.name] = task_data(task, lake)
        on("windows of tasks", i + 1, len(tasks))
    one = recipe.networks == "one"
    sets = training_sets(data, components(links(lake))) if one else [{task: own} for task, own in data.items()]
    return recipe, snapshot, tasks, _trained(lake, recipe, sets, snapshot, on)


def _trained(
    lake: Lake, recipe: Recipe, sets: list[dict[str, TaskData]], snapshot: str, on: OnProgress
) -> list[TrainingSet]:
    """One network a set and fold, with its row in ``runs``."""
    from neurofmx.train.folds import Network, fit_networks
    from neurofmx.train.runs import keep_run

    networks = [
        Network(data=together, fold=fold, name=f"{', '.join(together)}, fold {fold}")
        for together in sets
        for fold in sorted({int(f) for d in together.values() for r in d.recordings for f in r.fold if f >= 0})
    ]
    over: set[str] = set()

    def tell(name: str, step: int, steps: int) -> None:
        if step == steps:
            over.add(name)
        on("networks", len(over), len(networks))

    on("networks", 0, len(networks))
    results = fit_networks(recipe, networks, out=lake.root / "runs", on=tell)
    on("networks", len(networks), len(networks))
    runs: list[dict[int, dict[str, Any]]] = [{} for _ in sets]
    for network, result in zip(networks, results):
        number = next(i for i, together in enumerate(sets) if together is network.data)
        runs[number][network.fold] = keep_run(lake, recipe, network.data, result, snapshot=snapshot)
    return [TrainingSet(data=together, runs=own) for together, own in zip(sets, runs)]


def train_all(lake: Lake, recipe: str, settings: Iterable[str] = (), *, on: OnProgress = quiet) -> list[dict[str, Any]]:
    """Trains a recipe on every task that has recordings here, one run a fold and training set.

    Returns:
        The rows of table ``runs``; finished runs are not trained again.
    """
    *_, sets = _trained_sets(lake, recipe, settings, on)
    return [run for s in sets for run in s.runs.values()]


def _loaded(lake: Lake, runs: Mapping[int, Mapping[str, Any]]) -> dict[int, Trained]:
    from neurofmx.train.checkpoints import load_trained

    return {fold: load_trained(lake.at(run["path"])) for fold, run in runs.items()}


def _each_task(
    work: Callable[..., list[Any]],
    lake: Lake,
    tasks: Mapping[str, TaskSpec],
    sets: Iterable[TrainingSet],
    on: Callable[[int, int], None],
    **settings: Any,
) -> list[Any]:
    """``work(lake, task, windows, runs, **settings)`` of every task, one process a core; results in order of tasks."""
    from joblib import Parallel, delayed

    jobs = [(tasks[name], data, training.runs) for training in sets for name, data in training.data.items()]
    pool = Parallel(n_jobs=min(os.cpu_count() or 1, len(jobs)), return_as="generator")
    found: list[Any] = []
    on(0, len(jobs))
    each: Any = pool(delayed(work)(lake, *job, **settings) for job in jobs)
    for number, results in enumerate(each):
        found += results
        on(number + 1, len(jobs))
    return found


def _scores(
    lake: Lake, task: TaskSpec, data: TaskData, runs: Mapping[int, Mapping[str, Any]], *, seed: int, snapshot: str
) -> list[Score]:
    from neurofmx.evaluate.evaluate import evaluate_task

    checkpoints = {fold: run["run_id"] for fold, run in runs.items()}
    trained = _loaded(lake, runs)
    return evaluate_task(task, data, trained, seed=seed, snapshot=snapshot, lake=lake, checkpoints=checkpoints)


def _findings(lake: Lake, task: TaskSpec, data: TaskData, runs: Mapping[int, Mapping[str, Any]]) -> list[Finding]:
    from neurofmx.interpret.catalog import interpret_task

    return interpret_task(task, data, _loaded(lake, runs), lake=lake)


def evaluate_all(lake: Lake, recipe: str, settings: Iterable[str] = (), *, on: OnProgress = quiet) -> list[Score]:
    """Scores every task of a recipe beside chance, tuned baselines and the untrained network."""
    chosen, snapshot, tasks, sets = _trained_sets(lake, recipe, settings, on)
    tell = functools.partial(on, "scores")
    return _each_task(_scores, lake, tasks, sets, tell, seed=chosen.seed, snapshot=snapshot)


def transfer_all(
    lake: Lake, recipe: str, settings: Iterable[str] = (), *, on: OnProgress = quiet
) -> list[dict[str, Any]]:
    """Fills the transfer matrices for which the lake has sources and targets; returns their cells."""
    from neurofmx.evaluate.transfer import transfer_matrices

    chosen = chosen_recipe(recipe, settings)
    return transfer_matrices(lake, chosen, snapshot=lake.snapshot(), on=on)


def interpret_all(lake: Lake, recipe: str, settings: Iterable[str] = (), *, on: OnProgress = quiet) -> list[Finding]:
    """Runs the declared analyses on the networks of a recipe's tasks."""
    _, _, tasks, sets = _trained_sets(lake, recipe, settings, on)
    return _each_task(_findings, lake, tasks, sets, functools.partial(on, "findings"))


# files for DVC: small, sorted, the same for the same content


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(value), indent=1, sort_keys=True) + "\n")


def write_ingest_manifest(lake: Lake, path: Path) -> None:
    """Digest and raw digests of every recording, and the reasons of every refusal."""
    rows = catalog.rows(lake, "recordings")
    _write(
        path,
        {
            "recordings": {r["recording_id"]: {"digest": r["digest"], "raw_sha256": r["raw_sha256"]} for r in rows},
            "quarantine": {r["recording_id"]: r["reasons"] for r in catalog.rows(lake, "quarantine")},
        },
    )


def write_token_manifest(lake: Lake, path: Path) -> None:
    """Digest of every token grid, and of the snapshot."""
    rows = catalog.rows(lake, "tokens")
    grids = {f"{r['recording_id']}|{r['spec']}": r["digest"] for r in rows}
    _write(path, {"snapshot": lake.snapshot(), "tokens": grids})


def write_train_metrics(runs: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Run ids and best validation losses by fold, and beside it ``<name>.csv`` with the loss curves to plot."""
    listed = list(runs)
    _write(path, {r["run_id"]: {"fold": r["fold"], "steps": r["steps"], "best_valid": r["best_valid"]} for r in listed})
    lines = ["run,step,valid"]
    for run in listed:
        lines += [f"{run['run_id']},{int(h['step'])},{h['valid']:.6g}" for h in json.loads(run["history"])]
    path.with_suffix(".csv").write_text("\n".join(lines) + "\n")


def write_score_metrics(scores: Iterable[Score], path: Path) -> None:
    """Task -> predictor -> value, and beside it ``<name>.csv`` with ids and intervals."""
    listed = sorted(scores, key=lambda s: (s.task, s.predictor))
    metrics: dict[str, dict[str, float]] = {}
    lines = ["task,predictor,metric,value,low,high,verdict,score_id"]
    for s in listed:
        metrics.setdefault(s.task, {})[s.predictor] = round(s.value, 6)
        low, high = s.ci95
        lines.append(f"{s.task},{s.predictor},{s.metric},{s.value:.6g},{low:.6g},{high:.6g},{s.verdict},{s.score_id}")
    _write(path, metrics)
    path.with_suffix(".csv").write_text("\n".join(lines) + "\n")


def write_findings(findings: Iterable[Finding], path: Path) -> None:
    """Every finding with its value, chance, p and status."""
    _write(
        path,
        [
            {"analysis": f.analysis, "about": f.subject, "value": round(f.value, 6), "p": f.p, "status": f.status,
             "chance": round(float(np.mean(f.null)), 6) if len(f.null) else None}
            for f in findings
        ],
    )  # fmt: skip
