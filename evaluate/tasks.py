"""The table of tasks, and which of them a lake has recordings for."""

from __future__ import annotations

from collections import defaultdict

from neurofmx import catalog
from neurofmx.errors import NotThere
from neurofmx.evaluate import tasks_events, tasks_open, tasks_signals
from neurofmx.evaluate.build import held_together
from neurofmx.evaluate.spec import Chosen, Phase, TaskSpec
from neurofmx.lake import Lake
from neurofmx.splits import group_fold
from neurofmx.tokenize.catalog import SPECS

__all__ = ["Chosen", "Phase", "TASKS", "TaskSpec", "runnable_tasks", "task_named"]

TASKS: dict[str, TaskSpec] = {row.name: row for row in (*tasks_open.ROWS, *tasks_signals.ROWS, *tasks_events.ROWS)}
FOLDS = 3  # to train on, to stop by, to test on


def task_named(name: str) -> TaskSpec:
    """A task by name.

    Raises:
        NotThere: there is none; the message lists those there are.
    """
    if name not in TASKS:
        raise NotThere(f"task {name}", expected=f"one of {', '.join(TASKS)}")
    return TASKS[name]


def runnable_tasks(lake: Lake) -> list[TaskSpec]:
    """The tasks that have enough recordings in the catalog, with the streams that they read, in the table's order.

    A task split by whole recordings also needs them to fall into three folds.
    """
    recordings = catalog.rows(lake, "recordings")
    modalities, streams = defaultdict(set), defaultdict(set)
    for row in catalog.rows(lake, "streams"):
        streams[row["recording_id"]].add(row["stream"])
        modalities[row["recording_id"]].add(row["modality"])
    found = []
    for task in TASKS.values():
        fit = [
            r
            for r in recordings
            if task.where.holds(r)
            and task.target_stream in streams[r["recording_id"]]
            and all(SPECS[spec].modality in modalities[r["recording_id"]] for spec in task.inputs.values())
        ]
        folds = {group_fold(held_together(r, task.group), n_folds=task.n_folds) for r in fit}
        if len(fit) >= task.where.at_least and (task.split != "recordings" or len(folds) >= FOLDS):
            found.append(task)
    return found
