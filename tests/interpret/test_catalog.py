from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from neurofmx import catalog
from neurofmx.ingest.simulate import SimSpec, simulate
from neurofmx.interpret.activations import MAX_ROWS, capture, held_out, in_runs, initial, probe_folds
from neurofmx.interpret.catalog import ANALYSES, arrays_json, interpret_task
from neurofmx.interpret.channels import regions_of
from neurofmx.splits import block_folds
from neurofmx.tokenize.catalog import spec
from neurofmx.tokenize.grid import tokenize
from neurofmx.tokenize.targets import TargetSpec
from neurofmx.tokenize.windows import SHARED, TaskData, continuous_windows, task_fields
from neurofmx.train.checkpoints import Trained, load_trained
from neurofmx.train.loop import fit
from neurofmx.train.recipes import OptimConfig, tiny
from neurofmx.types import Finding

FOLDS = 3


@dataclass(frozen=True)
class Task:
    name: str = "sim.behaviour"
    metric: str = "r2"


@pytest.fixture(scope="module")
def recording():
    return simulate(SimSpec(seed=5, duration_s=90.0, n_units=14, gain=1.0))[0]


@pytest.fixture(scope="module")
def data(recording) -> TaskData:
    grids = {"spikes": tokenize(recording, spec("spikes"))}
    blocks = block_folds(str(recording.id), np.array([recording.domain_s]), n_blocks=9, n_folds=FOLDS, guard_s=0.5)
    target = TargetSpec(kind="continuous", stream="behaviour")
    windows = continuous_windows(grids, target, recording, blocks, window_bins=20)
    return TaskData(
        name="sim.behaviour", kind="continuous", names=("vx", "vy"), recordings=(windows,), fields=task_fields(grids)
    )


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> dict[int, Trained]:
    recipe = replace(tiny(), optim=OptimConfig(steps=30, warmup=3))
    out = tmp_path_factory.mktemp("runs")
    return {f: load_trained(fit(recipe, {data.name: data}, fold=f, out=out).path) for f in range(FOLDS)}


def plain(finding: Finding) -> str:
    arrays = {k: np.asarray(v).tolist() for k, v in finding.arrays.items()}
    return repr((finding.analysis, finding.subject, finding.value, finding.p, finding.q, finding.ci95, finding.status,
                 finding.null.tolist(), dict(finding.scalars), arrays, finding.caveats))  # fmt: skip


def test_every_analysis_of_the_table_says_what_chance_means() -> None:
    for name, row in ANALYSES.items():
        assert name == row.name and row.null.text and row.assumptions and row.citation and row.question.endswith("?")


def test_a_task_gets_its_findings_and_the_catalog_keeps_them(data, trained, lake, recording) -> None:
    lake.publish_recording(recording)
    found = interpret_task(Task(), data, trained, lake=lake)  # type: ignore[arg-type]
    assert [f.analysis for f in found] == ["linear_probe"] * 2 + [
        "probe_gain",
        "cka",
        "channel_ablation",
        "block_ablation",
    ]
    by = {(f.analysis, f.subject): f for f in found}
    probe = by["linear_probe", "sim.behaviour at population"]
    assert probe.status == "significant" and probe.p == 0.001 and probe.ci95[0] < probe.value < probe.ci95[1]
    assert all(np.isfinite(f.q) == (f.provenance["role"] == "confirmatory") for f in found if f.status != "invalid")
    ranking = found[4]
    assert ranking.status == "significant" and list(ranking.arrays["group"]) == ["spikes A", "spikes B"]
    assert ranking.arrays["channels"].tolist() == [7, 7] and ranking.scalars["intact"] > 0.3
    rows = catalog.rows(lake, "findings", data.name)
    assert [r["analysis"] for r in rows] == [f.analysis for f in found]
    assert len({r["finding_id"] for r in rows}) == len(rows)
    kept = json.loads(rows[4]["arrays"])
    assert kept["drop"] == pytest.approx(ranking.arrays["drop"].tolist()) and kept["group"][0] == "spikes A"
    assert rows[0]["null"] == found[0].null.tolist() and json.loads(rows[0]["scalars"])["untrained"]
    again = interpret_task(Task(), data, trained, lake=lake)  # type: ignore[arg-type]
    assert [plain(f) for f in again] == [plain(f) for f in found]
    assert [r["finding_id"] for r in catalog.rows(lake, "findings", data.name)] == [r["finding_id"] for r in rows]


def test_recordings_that_no_network_can_read_are_skipped_with_the_reason(data, trained, lake) -> None:
    strange = replace(data, recordings=(replace(data.recordings[0], recording="sim:other@1/x"),))
    found = interpret_task(Task(), strange, trained, lake=lake)  # type: ignore[arg-type]
    assert {f.status for f in found} == {"skipped"} and len(found) == len(ANALYSES)
    assert all("never filled" in f.reason for f in found)
    assert len(catalog.rows(lake, "findings", data.name)) == len(ANALYSES)


def test_features_are_those_of_the_network_that_held_the_window_out(data, trained) -> None:
    parts, closed = held_out(data, trained)
    held = capture(data, trained, parts, seed=0)
    windows = data.recordings[0]
    assert closed == 0 and len(held.y) == int(windows.target_mask[windows.fold >= 0].sum()) <= MAX_ROWS
    for fold, network in trained.items():
        rows = np.flatnonzero(windows.fold == fold)
        expected = network.features(data.name, windows, rows)["block.0"][windows.target_mask[rows]]
        np.testing.assert_allclose(held.features["block.0"][held.model == fold], expected, atol=1e-6)
        np.testing.assert_allclose(held.y[held.model == fold], windows.target[rows][windows.target_mask[rows]])
    assert held.ordered and not np.array_equal(held.features["block.0"], held.untrained["block.0"])


def test_fewer_rows_are_evenly_spaced_and_stated(data, trained, monkeypatch) -> None:
    monkeypatch.setattr("neurofmx.interpret.activations.MAX_ROWS", 200)
    parts, _ = held_out(data, trained)
    a, b = (capture(data, trained, parts, seed=3) for _ in range(2))
    assert 150 < len(a.y) <= 200 and np.array_equal(a.features["population"], b.features["population"])
    assert a.chosen.startswith(f"{len(a.y)} of ")
    assert len(np.unique(a.unit)) == 9


def test_the_network_before_training_has_the_seed_of_its_run(trained) -> None:
    before = initial(trained[0]).model.state_dict()
    after = trained[0].model.state_dict()
    assert before.keys() == after.keys()
    assert any(not np.array_equal(before[k].numpy(), after[k].numpy()) for k in before)
    assert all(
        np.array_equal(v.numpy(), w.numpy())
        for v, w in zip(before.values(), initial(trained[1]).model.state_dict().values())
    )


def test_probe_folds_hold_units_together_inside_networks() -> None:
    unit = np.repeat([f"u{i}" for i in range(14)], 5)
    model = (np.arange(70) // 35).astype(int)
    fold = probe_folds(model, unit)
    assert all(len(set(fold[unit == u])) == 1 for u in set(unit))
    assert [len(set(fold[model == m])) for m in (0, 1)] == [5, 5] and len(set(fold)) == 10
    assert len(set(probe_folds(model, np.full(70, "one")))) == 8


def test_runs_of_classes_are_told_from_drawn_ones() -> None:
    rng = np.random.default_rng(0)
    session = np.repeat(["a", "b"], 100)
    assert in_runs(np.repeat(np.arange(10), 20) % 3, session)
    drawn = [in_runs(rng.integers(3, size=200), session) for _ in range(200)]
    assert np.mean(drawn) < 0.03
    assert not in_runs(np.arange(200) % 2, session)


def test_large_arrays_leave_their_shape_behind() -> None:
    told = json.loads(arrays_json({"small": np.array([1.0, np.nan]), "large": np.zeros((100, 50))}))
    assert told == {"small": [1.0, "nan"], "large": {"left_out": [100, 50]}}


def test_regions_come_from_the_catalog_under_the_names_of_the_inputs(data, recording, lake) -> None:
    lake.publish_recording(recording)
    windows = data.recordings[0]
    shared = replace(
        windows, channels={f"spikes{SHARED}": windows.channels["spikes"]},
        values={f"spikes{SHARED}": windows.values["spikes"]},
    )  # fmt: skip
    for w in (windows, shared):
        found = regions_of(lake, replace(data, recordings=(w,)))
        assert len(found) == 14 and set(found.values()) == {"A", "B"}
