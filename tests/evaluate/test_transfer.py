"""Transfer: labels are few and apart, arms are matched, cells are found again, relatedness shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neurofmx import catalog
from neurofmx.errors import ConfigError
from neurofmx.evaluate import transfer
from neurofmx.evaluate.build import task_data_of
from neurofmx.evaluate.cells import (
    TEST,
    TRAIN,
    VALID,
    Arm,
    Plan,
    beside,
    cell,
    few_shot,
    gain_interval,
    moved_targets,
    pretrain,
)
from neurofmx.evaluate.metrics import METRICS, Rows
from neurofmx.evaluate.tasks import task_named
from neurofmx.ingest.archives.table import list_sessions
from neurofmx.ingest.ingest import ingest_session
from neurofmx.ingest.sessions import Source
from neurofmx.ingest.simulate import TUNING_SEED, sessions, simulate
from neurofmx.lake import Lake
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.recipes import Recipe, laptop, tiny
from neurofmx.types import RecordingId

TASK = task_named("sim-lorenz-behaviour")
PLAN = Plan(shots=2, seeds=2, pretrain_steps=4, steps=4)


def _subject(number: int, *, duration_s: float = 60.0, n_units: int = 12) -> TaskData:
    named = sessions("lorenz-transfer", seed=TUNING_SEED)[number]
    spec = replace(named.spec, duration_s=duration_s, n_units=n_units)
    return task_data_of(TASK, [simulate(spec, RecordingId("simulated", "lorenz-transfer", "1", named.name))[0]])


@pytest.fixture(scope="module")
def pair() -> tuple[TaskData, TaskData]:
    return _subject(0), _subject(1)


@pytest.fixture
def recipe() -> Recipe:
    return tiny()


def test_few_labels_lie_in_whole_units_apart_from_the_test(pair: tuple[TaskData, TaskData]) -> None:
    seen = []
    for number in range(3):
        few = few_shot(pair[0], shots=2, number=number).recordings[0]
        units = {fold: set(few.unit[few.fold == fold]) for fold in (TRAIN, VALID, TEST)}
        assert [len(units[fold]) for fold in (TRAIN, VALID, TEST)] == [2, 1, 7]
        assert not units[TRAIN] & units[TEST]
        assert not units[VALID] & units[TEST]
        seen.append(units[TRAIN] | units[VALID])
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]


def test_guard_windows_stay_out_and_too_few_units_are_refused(pair: tuple[TaskData, TaskData]) -> None:
    windows = pair[0].recordings[0]
    fold = np.where(windows.unit == windows.unit[0], -1, windows.fold).astype(np.int8)
    task = replace(pair[0], recordings=(replace(windows, fold=fold),))
    few = few_shot(task, shots=2, number=0).recordings[0]
    assert set(few.fold[windows.unit == windows.unit[0]]) == {-1}
    with pytest.raises(ConfigError, match="got 9; expected at least 10"):
        few_shot(task, shots=8, number=0)


def test_three_repetitions_take_turns(pair: tuple[TaskData, TaskData]) -> None:
    windows = pair[0].recordings[0]
    unit = np.array([f"r{i % 3}" for i in range(len(windows))])
    task = replace(pair[0], recordings=(replace(windows, unit=unit),))
    roles = [[str(few.unit[few.fold == f][0]) for f in (TRAIN, VALID, TEST)] for few in
             (few_shot(task, shots=1, number=n).recordings[0] for n in range(3))]  # fmt: skip
    assert all(sorted(role) == ["r0", "r1", "r2"] for role in (*roles, *zip(*roles)))


def test_moved_targets_keep_inputs_folds_and_values(pair: tuple[TaskData, TaskData]) -> None:
    before = pair[0].recordings[0]
    after = moved_targets(pair[0], 0).recordings[0]
    assert np.array_equal(after.values["spikes"], before.values["spikes"])
    assert np.array_equal(after.fold, before.fold)
    assert np.array_equal(after.target, np.roll(before.target, len(before) // 2, axis=0))
    assert after.target_mask.sum() == before.target_mask.sum()
    label = np.arange(len(before)) % 3
    named = replace(before, target=label, target_mask=np.ones(len(before), dtype=bool))
    classes = replace(pair[0], kind="class", names=("a", "b", "c"), recordings=(named,))
    dealt = moved_targets(classes, 1).recordings[0].target
    assert sorted(dealt) == sorted(label)
    assert 0 < (dealt == label).mean() < 0.8


def test_the_interval_is_paired_over_units_and_seeds() -> None:
    random = np.random.default_rng(0)
    unit = np.repeat(np.arange(6), 20)

    def arm(noise: float, shared: np.ndarray, truth: np.ndarray) -> Arm:
        rows = Rows(truth=truth, predicted=truth + noise * shared, unit=unit, recording=unit * 0, n_units=6)
        return Arm(rows=rows, units=tuple("abcdef"))

    truth = [random.standard_normal((120, 2)) for _ in range(2)]
    error = [random.standard_normal((120, 2)) for _ in range(2)]
    ours = [arm(0.5, e, t) for e, t in zip(error, truth)]
    theirs = [arm(0.6, e, t) for e, t in zip(error, truth)]
    low, high = gain_interval(ours, theirs, METRICS["r2"], seed=0)
    assert 0 < low < 0.6**2 - 0.5**2 < high
    assert gain_interval(ours, ours, METRICS["r2"], seed=0) == (0.0, 0.0)
    worse = gain_interval(theirs, ours, METRICS["mse"], seed=0)
    assert worse[1] < 0
    with pytest.raises(ValueError, match="shorter"):
        gain_interval(ours, ours[:1], METRICS["r2"], seed=0)


def test_a_cell_is_a_function_of_its_arguments(pair: tuple[TaskData, TaskData], recipe: Recipe, tmp_path: Path) -> None:
    arms = beside(pair[1], recipe, PLAN)
    one = cell(*pair, recipe, PLAN, metric=METRICS["r2"], out=tmp_path, arms=arms)
    two = cell(*pair, recipe, PLAN, metric=METRICS["r2"])
    assert one == two
    assert len(set(one.checkpoints)) == 2
    assert one.gain == pytest.approx(one.value - one.scratch)
    assert one.gain_ci95[0] <= one.gain <= one.gain_ci95[1]
    assert one.n_units == 10
    assert len(list(tmp_path.iterdir())) == 3  # a network a seed, and the control
    held = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("model.pt"))]
    assert cell(*pair, recipe, PLAN, metric=METRICS["r2"], out=tmp_path, arms=arms) == one
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("model.pt"))] == held


def test_the_control_learns_something_else(pair: tuple[TaskData, TaskData], recipe: Recipe, tmp_path: Path) -> None:
    networks = [pretrain(pair[0], recipe, PLAN, number=0, shuffled=s, out=tmp_path) for s in (False, True, True)]
    assert networks[0][1] != networks[1][1] == networks[2][1]
    weights = [network.model.state_dict()["blocks.0.mixer.in_proj.weight"] for network, _ in networks]
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])


def test_a_source_on_both_sides_is_refused(pair: tuple[TaskData, TaskData], recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="on both sides"):
        cell(pair[0], pair[0], recipe, PLAN, metric=METRICS["r2"])


def _ingest(lake: Lake, count: int) -> None:
    source = Source(archive="simulated", dataset="lorenz-transfer", version="1", address="")
    for session in list(list_sessions(source))[:count]:
        ingest_session(session, lake)


def test_a_new_subject_costs_its_row_and_column(lake: Lake, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(PLAN, shots=1, seeds=1, pretrain_steps=2, steps=2)
    monkeypatch.setattr(Plan, "of", classmethod(lambda cls, recipe, *, shots, seeds: short))
    told: list[tuple[str, int, int]] = []

    def fill(recipe: Recipe) -> list[dict]:
        told.clear()
        return transfer.transfer_matrices(lake, recipe, snapshot="s", on=lambda *t: told.append(t), jobs=1)

    assert fill(recipe) == []
    _ingest(lake, 2)
    first = fill(recipe)
    assert [(c["source"][-2:], c["target"][-2:]) for c in first] == [("s1", "s2"), ("s2", "s1")]
    # two sources with one seed and a control each, two targets, two cells
    assert told[0] == ("transfer", 0, 8)
    assert told[-1] == ("transfer", 8, 8)
    assert fill(recipe) == first
    assert told == [("transfer", 0, 0)]

    _ingest(lake, 3)
    second = fill(recipe)
    assert len(second) == 6
    assert told[-1] == ("transfer", 13, 13)  # 3 x 2 networks, most read back, 3 targets, 4 cells
    kept = {c["cell_id"] for c in second} & {c["cell_id"] for c in first}
    assert kept == {c["cell_id"] for c in first}
    assert fill(replace(recipe, tasks=("another",))) == second
    assert told == [("transfer", 0, 0)]
    one, two, three = transfer.subjects(lake, TASK, at_most=6)
    changed = [(one, two, recipe), (two, one, recipe), (one, two, replace(recipe, seed=1))]
    assert len({transfer.cell_id(TASK, s, t, how, short) for s, t, how in changed}) == 3
    assert len({s.label for s in transfer.subjects(lake, TASK, at_most=2)} & {s.label for s in (one, two, three)}) == 2


def test_a_cell_says_what_it_is(lake: Lake, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(PLAN, shots=1, seeds=2, pretrain_steps=2, steps=2)
    monkeypatch.setattr(Plan, "of", classmethod(lambda cls, recipe, *, shots, seeds: short))
    _ingest(lake, 2)
    row = transfer.transfer_matrices(lake, recipe, snapshot="snap", on=lambda *t: None, jobs=1)[0]
    assert (row["matrix"], row["metric"], row["snapshot"], row["simulated"]) == ("simulated", "r2", "snap", True)
    assert row["differs"].endswith("same species (sim-a), readout 0 to 10 degrees from the law's")
    details = json.loads(row["details"])
    assert details["seeds"] == [0, 1]
    assert details["plan"]["shots"] == 1
    assert np.isfinite(details["shuffled"])
    assert row["checkpoint"] in details["checkpoints"]
    assert (lake.root / "runs" / row["checkpoint"] / "model.pt").exists()
    parents = {r["parent"] for r in catalog.rows(lake, "lineage", row["cell_id"])}
    assert parents == {row["source"], row["target"]}
    stale = {**row, "source": "simulated:lorenz-transfer@1/gone"}
    catalog.put(lake, "transfer", f"simulated|{stale['source']}|{stale['target']}", [stale])
    transfer.transfer_matrices(lake, recipe, snapshot="snap", on=lambda *t: None, jobs=1)
    assert stale["source"] not in {r["source"] for r in catalog.rows(lake, "transfer")}


@pytest.mark.slow
def test_a_related_subject_helps_more_than_a_stranger(tmp_path: Path) -> None:
    near, target, far = (_subject(i, duration_s=240.0, n_units=40) for i in (2, 1, 5))
    recipe = laptop()
    plan = Plan.of(recipe, shots=1, seeds=2)
    arms = beside(target, recipe, plan)
    cells = [cell(s, target, recipe, plan, metric=METRICS["r2"], out=tmp_path, arms=arms) for s in (near, far)]
    assert cells[0].gain > cells[1].gain
    assert cells[0].value > cells[0].random_init + 0.05
    assert cells[0].value > cells[0].shuffled + 0.05


@pytest.mark.slow
def test_processes_change_no_number(lake: Lake, recipe: Recipe, tmp_path: Path) -> None:
    _ingest(lake, 2)
    one = transfer.transfer_matrices(lake, recipe, snapshot="", on=lambda *t: None, jobs=1)
    other = Lake.open(tmp_path / "other")
    _ingest(other, 2)
    assert transfer.transfer_matrices(other, recipe, snapshot="", on=lambda *t: None, jobs=2) == one
