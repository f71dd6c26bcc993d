"""The table of tasks, and which of them a lake has recordings for."""

from __future__ import annotations

from collections import defaultdict

from neurofmx import catalog
from neurofmx.errors import NotThere
from neurofmx.evaluate import tasks_events, tasks_open, tasks_signals
from neurofmx.evaluate.spec import Chosen, Phase, TaskSpec
from neurofmx.evaluate.split_rows import deal
from neurofmx.lake import Lake
from neurofmx.splits import group_fold, salt_of
from neurofmx.tokenize.catalog import SPECS
from neurofmx.twins import components, links

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
    modalities, streams, clocks = defaultdict(set), defaultdict(set), defaultdict(list)
    for row in catalog.rows(lake, "streams"):
        streams[row["recording_id"]].add(row["stream"])
        modalities[row["recording_id"]].add(row["modality"])
        clocks[row["recording_id"]].append(({row["stream"], row["modality"]}, row["clock_error_s"] or 0.0))
    salt, twins = salt_of(lake), components(links(lake))
    found = []
    for task in TASKS.values():
        fit = [
            r
            for r in recordings
            if task.where.holds(r)
            and task.target_stream in streams[r["recording_id"]]
            and all(SPECS[spec].modality in modalities[r["recording_id"]] for spec in task.inputs.values())
            and all(
                error_s <= task.clock_limit_s
                for names, error_s in clocks[r["recording_id"]]
                if names & {task.target_stream, *task.inputs}  # inputs go by either name
            )
        ]
        if len(fit) < task.where.at_least:
            continue
        if task.split == "recordings":
            placed = deal(task, lake, fit, twins, salt).places.values()
            if len({group_fold(place.group, n_folds=task.n_folds, salt=salt) for place in placed}) < FOLDS:
                continue
        found.append(task)
    return found
