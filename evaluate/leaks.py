"""The leakage check over a lake's splits, and over one task's windows before they are scored."""

from __future__ import annotations

import numpy as np

from neurofmx import catalog, leakage
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.evaluate.tasks import TASKS
from neurofmx.lake import Lake
from neurofmx.leakage import Promise, Windows
from neurofmx.splits import salt_of
from neurofmx.tokenize.windows import RecordingWindows, TaskData
from neurofmx.twins import links
from neurofmx.types import Check


def promise(task: TaskSpec) -> Promise:
    """What the split of a task promises."""
    return Promise(
        group=task.group if task.split == "recordings" else None, gap_s=task.gap_s if task.split == "blocks" else 0.0
    )


def judge_lake(lake: Lake) -> tuple[Check, ...]:
    """The leakage checks over the splits of all tasks of the table that a lake holds rows of."""
    salt = salt_of(lake)
    promises = {task.split_id(salt): promise(task) for task in TASKS.values()}
    return leakage.judge(catalog.rows(lake, "splits"), links(lake), promises)


def judge_task(task: TaskSpec, data: TaskData, lake: Lake | None) -> tuple[Check, ...]:
    """The leakage checks over the windows of one task, and over its stored rows where there is a lake.

    Args:
        task: the task.
        data: its windows.
        lake: holds its split rows and tells which recordings are the same; None where there is none.
    """
    split = task.split_id() if lake is None else task.split_id(salt_of(lake))
    cut = {split: [windows_of(one) for one in data.recordings]}
    if lake is None:
        return leakage.judge((), (), {split: promise(task)}, cut)
    rows = [
        row for one in data.recordings for row in catalog.rows(lake, "splits", f"{task.name}|{split}|{one.recording}")
    ]
    return leakage.judge(rows, links(lake), {split: promise(task)}, cut)


def windows_of(one: RecordingWindows) -> Windows:
    """When the windows of a recording begin, and when the last real bin of each is over."""
    real = np.logical_or.reduce([mask.any(axis=2) for mask in one.mask.values()])
    if one.target_mask.ndim == 2:
        real = real | one.target_mask
    bins = np.where(real, np.arange(1, real.shape[1] + 1), 0).max(axis=1, initial=0)
    return Windows(
        recording=one.recording,
        start_s=one.start_s,
        stop_s=one.start_s + bins * one.dt_s,
        fold=np.asarray(one.fold, np.int64),
    )
