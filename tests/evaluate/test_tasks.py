"""The table of tasks: every row is whole, and a lake's runnable tasks are those that it has recordings for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from neurofmx.config import from_plain
from neurofmx.errors import NotThere
from neurofmx.evaluate import tasks as table
from neurofmx.evaluate.baselines import BASELINES
from neurofmx.evaluate.metrics import METRICS
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.evaluate.tasks import TASKS, runnable_tasks, task_named
from neurofmx.ingest.simulate import SIMULATED
from neurofmx.lake import Lake
from neurofmx.provenance import canonical_json
from neurofmx.tokenize.catalog import SPECS
from neurofmx.tokenize.windows import SHARED
from neurofmx.types import Recording

EACH = pytest.mark.parametrize("spec", TASKS.values(), ids=list(TASKS))


@EACH
def test_rows_name_what_exists(spec: TaskSpec) -> None:
    assert spec.question.endswith("?")
    assert METRICS[spec.metric].kind == spec.target.kind
    assert set(spec.inputs.values()) <= set(SPECS)
    assert spec.baselines
    assert all(BASELINES[name].kind in (spec.target.kind, "any") for name in spec.baselines)
    assert spec.caveats
    assert spec.n_folds >= 3
    assert spec.split != "blocks" or spec.n_blocks >= spec.n_folds
    assert (spec.window_s > 0) == (spec.target.kind == "continuous")
    assert spec.target.stream not in spec.inputs


@EACH
def test_rows_survive_json(spec: TaskSpec) -> None:
    assert from_plain(TaskSpec, json.loads(canonical_json(spec))).digest() == spec.digest()


def test_every_simulated_dataset_has_a_task() -> None:
    asked = {d for t in TASKS.values() if "simulated" in t.where.archives for d in t.where.datasets}
    assert asked == set(SIMULATED)


def test_names_and_digests_are_unique() -> None:
    assert len({t.digest() for t in TASKS.values()}) == len(TASKS)
    assert [t.name for t in TASKS.values()] == list(TASKS)


def test_the_split_is_blind_to_what_does_not_move_it() -> None:
    spec = next(iter(TASKS.values()))
    assert replace(spec, question="other?", metric="mse").split_id() == spec.split_id()
    assert replace(spec, n_folds=7).split_id() != spec.split_id()
    assert replace(spec, metric="mse").digest() != spec.digest()


def test_shared_inputs_are_named_so() -> None:
    assert set(task_named("haxby-category").spec_of) == {f"fmri{SHARED}"}
    assert set(task_named("it-object").spec_of) == {"spikes"}


def test_runnable_tasks_follow_the_catalog(
    lake: Lake, planted: Callable[..., Recording], task: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    across = replace(task, name="across", split="recordings", where=replace(task.where, at_least=3), n_folds=16)
    other = replace(task, name="other", inputs={"lfp": "lfp_bands"})
    monkeypatch.setattr(table, "TASKS", {t.name: t for t in (task, across, other)})
    assert runnable_tasks(lake) == []
    lake.publish_recording(planted("r0"))
    assert [t.name for t in runnable_tasks(lake)] == [task.name]
    for i in range(1, 6):
        lake.publish_recording(planted(f"r{i}", seed=i))
    assert [t.name for t in runnable_tasks(lake)] == [task.name, "across"]


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(NotThere, match="it-object"):
        task_named("it-objects")
