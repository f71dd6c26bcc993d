"""Source x target transfer matrices over the subjects of a lake: which pairs, what is kept, what is not computed again.

`evaluate.cells` says what a cell is. Each has a catalog part of its own, written when it is done: a new target costs
one column, a new source one row, and a matrix that was killed goes on. The diagonal is left out: a subject's own
score is in table ``scores``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

from neurofmx import catalog
from neurofmx.errors import ConfigError
from neurofmx.evaluate.build import task_data
from neurofmx.evaluate.cells import Beside, Cell, Plan, beside, cell, pretrain
from neurofmx.evaluate.metrics import metric_named
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.evaluate.tasks import runnable_tasks, task_named
from neurofmx.ingest.simulate import SIMULATED, sessions
from neurofmx.lake import Lake
from neurofmx.provenance import canonical_json, digest_of
from neurofmx.splits import SALT
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.recipes import Recipe
from neurofmx.types import RecordingId

VERSION = 1  # raised by hand when the same recordings and recipe would give another cell
WORKERS = 8  # most processes: each holds a copy of torch
FEW_UNITS = 5  # fewer allow no claim beyond the recording
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One matrix: every ordered pair of a task's subjects.

    Args:
        name: what it is called in table ``transfer``.
        task: row of ``evaluate.tasks``.
        shots: labelled units (blocks, repetitions) of a target recording.
        seeds: seeds of every arm, each with other labelled units.
        at_most: subjects; where there are more, those whose names hash lowest.
    """

    name: str
    task: str
    shots: int
    seeds: int
    at_most: int


MATRICES = (
    Matrix(name="simulated", task="sim-lorenz-behaviour", shots=1, seeds=2, at_most=6),
    # three repetitions: each is tested by one seed, trained on by another, and stops a third
    Matrix(name="emg-subjects", task="emg-gesture-repetition", shots=1, seeds=3, at_most=6),
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One row and column of a matrix.

    Args:
        label: the recording's id, or dataset and subject where there are several.
        data: the task's windows of this subject.
        digests: recording -> digest of its content.
        subject: the archive's name of the subject.
        species: as the catalog says.
        angle_deg: of a simulated session's readout from its law, None for real recordings.
    """

    label: str
    data: TaskData
    digests: Mapping[str, str]
    subject: str
    species: str
    angle_deg: float | None


def transfer_matrices(
    lake: Lake, recipe: Recipe, *, snapshot: str, on: OnProgress, jobs: int | None = None
) -> list[dict[str, Any]]:
    """Fills table ``transfer``; finished cells are found by their id.

    Args:
        lake: holds the recordings; networks pretrained on sources are kept under ``runs``.
        recipe: sizes, objective, seed and lengths (`Plan.of`).
        snapshot: digest of the lake that is read.
        on: told ``transfer``, jobs done, jobs in all.
        jobs: processes; as many as there are cores if None, one where there is a GPU. The numbers don't depend on it.

    Returns:
        The rows of every matrix for which the lake has two subjects or more.
    """
    runnable = {task.name for task in runnable_tasks(lake)}
    work = [_open(lake, matrix, recipe) for matrix in MATRICES if matrix.task in runnable]
    for opened in work:
        current = {_key(opened.matrix, *pair) for pair in opened.pairs}
        for row in catalog.rows(lake, "transfer"):
            key = f"{row['matrix']}|{row['source']}|{row['target']}"
            if row["matrix"] == opened.matrix.name and key not in current:
                catalog.drop(lake, "transfer", key)
    done, total = 0, sum(opened.size for opened in work)
    on("transfer", done, total)
    for opened in work:
        for _ in _fill(lake, opened, recipe, snapshot, jobs or _workers()):
            done += 1
            on("transfer", done, total)
    return [catalog.rows(lake, "transfer", _key(o.matrix, *pair))[0] for o in work for pair in o.pairs]


@dataclass(frozen=True, kw_only=True)
class _Open:
    """A matrix over a lake: all its pairs, and those that are still to do."""

    matrix: Matrix
    task: TaskSpec
    plan: Plan
    pairs: Sequence[tuple[Subject, Subject]]
    todo: Sequence[tuple[Subject, Subject]]

    @property
    def sources(self) -> list[Subject]:
        return list({s.label: s for s, _ in self.todo}.values())

    @property
    def targets(self) -> list[Subject]:
        return list({t.label: t for _, t in self.todo}.values())

    @property
    def size(self) -> int:
        """Jobs: networks on sources, one control each, arms beside, cells."""
        return len(self.sources) * (self.plan.seeds + 1) + len(self.targets) + len(self.todo)


def _open(lake: Lake, matrix: Matrix, recipe: Recipe) -> _Open:
    task, plan = task_named(matrix.task), Plan.of(recipe, shots=matrix.shots, seeds=matrix.seeds)
    pairs = list(permutations(subjects(lake, task, at_most=matrix.at_most), 2))
    todo = []
    for source, target in pairs:
        held = catalog.rows(lake, "transfer", _key(matrix, source, target))
        if [row["cell_id"] for row in held] != [cell_id(task, source, target, recipe, plan)]:
            todo.append((source, target))
    return _Open(matrix=matrix, task=task, plan=plan, pairs=pairs, todo=todo)


def subjects(lake: Lake, task: TaskSpec, *, at_most: int) -> list[Subject]:
    """A task's subjects, those whose names hash lowest where there are more than ``at_most``, in order of label."""
    chosen: dict[str, list[dict[str, Any]]] = {}
    for row in catalog.rows(lake, "recordings"):
        if task.where.holds(row):
            chosen.setdefault(f"{row['archive']}:{row['dataset']}/{row['subject_id']}", []).append(row)
    kept = sorted(chosen, key=lambda s: hashlib.sha256(f"{SALT}|transfer|{s}".encode()).digest())[:at_most]
    found = []
    for name in kept:
        rows = chosen[name]
        data = task_data(task, lake, recordings=[row["recording_id"] for row in rows])
        ids = [windows.recording for windows in data.recordings]
        found.append(
            Subject(
                label=ids[0] if len(ids) == 1 else name,
                data=data,
                digests={i: lake.recording_digest(i) for i in ids},
                subject=rows[0]["subject_id"],
                species=rows[0]["species"],
                angle_deg=_angle(RecordingId.parse(ids[0])),
            )
        )
    return sorted(found, key=lambda s: s.label)


def cell_id(task: TaskSpec, source: Subject, target: Subject, recipe: Recipe, plan: Plan) -> str:
    """Identity of everything that determines a cell (16 hex digits)."""
    how = replace(recipe, tasks=())  # which tasks a recipe learns elsewhere is nothing to a cell
    return digest_of(["transfer", VERSION, task.digest(), source.digests, target.digests, how, plan])[:16]


def differs(source: Subject, target: Subject) -> str:
    """What differs between a source and a target, in words."""
    parts = [f"subject {source.subject} to {target.subject}"]
    same = source.species == target.species
    parts.append(f"same species ({source.species})" if same else f"species {source.species} to {target.species}")
    if source.angle_deg is not None and target.angle_deg is not None:
        parts.append(f"readout {source.angle_deg:g} to {target.angle_deg:g} degrees from the law's")
    return ", ".join(parts)


def _fill(lake: Lake, opened: _Open, recipe: Recipe, snapshot: str, jobs: int) -> Iterable[None]:
    """Computes what is to do, in three rounds of independent jobs; yields after each job."""
    plan, out, metric = opened.plan, lake.root / "runs", metric_named(opened.task.metric)
    arms: dict[str, Beside] = {}
    first: list[tuple[Any, ...]] = []
    for source in opened.sources:
        controls = [(number, False) for number in range(plan.seeds)] + [(0, True)]
        first += [(_pretrained, source.data, recipe, plan, number, shuffled, out) for number, shuffled in controls]
    first += [(_beside, target.label, target.data, recipe, plan) for target in opened.targets]
    for label, found in _each(first, jobs):
        if found is not None:
            arms[label] = found
        yield
    second = [
        (_cell, number, source.data, target.data, recipe, plan, metric.name, out, arms[target.label])
        for number, (source, target) in enumerate(opened.todo)
    ]
    for number, found in _each(second, jobs):
        source, target = opened.todo[number]
        _put(lake, opened, source, target, recipe, found, snapshot)
        yield


def _each(work: Sequence[tuple[Any, ...]], jobs: int) -> Iterable[tuple[Any, Any]]:
    """Runs (function, arguments...) in processes; results come as they are done."""
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=jobs, return_as="generator_unordered")
    return pool(delayed(function)(*arguments) for function, *arguments in work)  # type: ignore[return-value]


def _pretrained(data: TaskData, recipe: Recipe, plan: Plan, number: int, shuffled: bool, out: Any) -> tuple[str, None]:
    return pretrain(data, recipe, plan, number=number, shuffled=shuffled, out=out)[1], None


def _beside(label: str, data: TaskData, recipe: Recipe, plan: Plan) -> tuple[str, Beside]:
    return label, beside(data, recipe, plan)


def _cell(
    number: int, source: TaskData, target: TaskData, recipe: Recipe, plan: Plan, metric: str, out: Any, arms: Beside
) -> tuple[int, Cell]:
    return number, cell(source, target, recipe, plan, metric=metric_named(metric), out=out, arms=arms)


def _put(
    lake: Lake, opened: _Open, source: Subject, target: Subject, recipe: Recipe, found: Cell, snapshot: str
) -> None:
    task, plan = opened.task, opened.plan
    identity = cell_id(task, source, target, recipe, plan)
    details = {
        "task": task.name,
        "recipe": recipe.digest(),
        "plan": plan,
        "seeds": [recipe.seed + number for number in range(plan.seeds)],
        "shuffled": found.shuffled,
        "checkpoints": found.checkpoints,
        "linear_path": "off in every arm",
        "caveats": ["fewer than five units: within one recording"] if found.n_units < FEW_UNITS else [],
    }
    row = {
        "cell_id": identity, "matrix": opened.matrix.name, "source": source.label, "target": target.label,
        "metric": task.metric, "value": found.value, "scratch": found.scratch, "random_init": found.random_init,
        "gain": found.gain, "gain_low": found.gain_ci95[0], "gain_high": found.gain_ci95[1], "n": found.n,
        "n_units": found.n_units, "simulated": source.angle_deg is not None or target.angle_deg is not None,
        "differs": differs(source, target), "seed": recipe.seed, "snapshot": snapshot,
        "checkpoint": found.checkpoints[0], "details": canonical_json(details),
    }  # fmt: skip
    catalog.put(lake, "transfer", _key(opened.matrix, source, target), [row])
    parents = [
        {"child": identity, "child_kind": "transfer", "parent": recording, "parent_kind": "recording",
         "detail": canonical_json({"digest": digest, "role": role})}
        for role, side in (("source", source), ("target", target))
        for recording, digest in side.digests.items()
    ]  # fmt: skip
    catalog.put(lake, "lineage", identity, parents)


def _key(matrix: Matrix, source: Subject, target: Subject) -> str:
    return f"{matrix.name}|{source.label}|{target.label}"


def _angle(rid: RecordingId) -> float | None:
    if rid.archive != "simulated" or rid.dataset not in SIMULATED:
        return None
    named = {session.name: session.spec.relatedness_deg for session in sessions(rid.dataset)}
    if rid.name not in named:
        raise ConfigError("simulated session", got=rid.name, expected=f"one of {', '.join(named)}")
    return named[rid.name]


def _workers() -> int:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if torch.cuda.is_available() else min(WORKERS, cores)
