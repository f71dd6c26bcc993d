"""Scores of a task: every predictor on the same folds, honest verdicts, ids that do not depend on the number."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurofmx import catalog
from neurofmx.errors import ConfigError
from neurofmx.evaluate.build import task_data, task_data_of
from neurofmx.evaluate.controls import TRIALS, control_features
from neurofmx.evaluate.evaluate import best_baseline, evaluate_task, judged, split_digest
from neurofmx.evaluate.predict import Predicted, folds_of
from neurofmx.evaluate.scores import scores_table
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.ingest.contracts import validate_tables
from neurofmx.lake import Lake
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import Trained, load_trained
from neurofmx.train.loop import fit
from neurofmx.train.recipes import tiny
from neurofmx.types import Recording, Score

Planted = Callable[..., Recording]
NOWHERE = {"snapshot": "none", "lake": None, "checkpoints": {}}


def networks(data: TaskData, out: Path) -> tuple[dict[int, Trained], dict[int, str]]:
    runs = {f: fit(tiny(), {data.name: data}, fold=f, out=out) for f in folds_of(data)}
    return {f: load_trained(r.path) for f, r in runs.items()}, {f: r.run_id for f, r in runs.items()}


def by_name(scores: list[Score]) -> dict[str, Score]:
    return {s.predictor: s for s in scores}


def test_every_predictor_is_scored_on_the_same_rows(planted: Planted, task: TaskSpec, tmp_path: Path) -> None:
    data = task_data_of(task, [planted()])
    trained, runs = networks(data, tmp_path)
    scores = evaluate_task(task, data, trained, seed=0, snapshot="none", lake=None, checkpoints=runs)
    assert [s.predictor for s in scores] == ["chance", "ridge", "wiener", "neurofmx", "neurofmx untrained"]
    found = by_name(scores)
    assert len({s.n for s in scores}) == 1
    assert {s.n_units for s in scores} == {10}
    assert found["chance"].value < 0.05
    assert found["wiener"].value > 0.8
    assert found["neurofmx"].value > 0.7
    for s in scores:
        assert s.ci95[0] <= s.value <= s.ci95[1]
        assert (s.baseline == "") == (not s.predictor.startswith("neurofmx"))
    assert found["neurofmx"].checkpoint.split(",") == [runs[f] for f in sorted(runs)]
    assert found["neurofmx"].delta == pytest.approx(found["neurofmx"].value - found[found["neurofmx"].baseline].value)
    assert json.loads(found["wiener"].details)["grid"]["lags"] == ["-1..1", "-2..2", "-4..4", "-9..0"]
    assert len(json.loads(found["wiener"].details)["chosen"]) == 5


def test_ids_are_stable_and_tell_what_determines_a_number(planted: Planted, task: TaskSpec) -> None:
    data = task_data_of(task, [planted()])
    first = evaluate_task(task, data, {}, seed=0, **NOWHERE)
    again = evaluate_task(task, task_data_of(task, [planted()]), {}, seed=0, **NOWHERE)
    assert [(s.score_id, s.value, s.ci95) for s in first] == [(s.score_id, s.value, s.ci95) for s in again]
    ids = {s.score_id for s in first}
    assert len(ids) == len(first)
    assert all(len(i) == 16 for i in ids)
    for other in (
        evaluate_task(task, data, {}, seed=1, **NOWHERE),
        evaluate_task(replace(task, margin=0.01), data, {}, seed=0, **NOWHERE),
        evaluate_task(task, task_data_of(task, [planted(seed=1)]), {}, seed=0, **NOWHERE),
    ):
        assert not ids & {s.score_id for s in other}


def test_a_network_that_loses_is_said_to_be_worse(planted: Planted, task: TaskSpec) -> None:
    data = task_data_of(task, [planted()])
    (windows,) = data.recordings

    def made(name: str, noise: float, inner: float) -> Predicted:
        own = np.random.default_rng(len(name))
        guess = windows.target + noise * own.standard_normal(windows.target.shape)
        return Predicted(name=name, arrays=[guess], recipe=name, inner=inner, details={})

    found = [made("chance", 1.0, 0.0), made("ridge", 0.3, 0.9), made("wiener", 0.2, 0.8), made("neurofmx", 0.6, np.nan)]
    assert best_baseline(found, higher=True) == "ridge"  # by its inner score, though wiener is better on test data
    scores = by_name(judged(task, data, found, seed=0, **NOWHERE))
    assert scores["neurofmx"].verdict == "worse"
    assert scores["neurofmx"].baseline == "ridge"
    assert scores["neurofmx"].delta_ci95[1] < 0
    found[3] = made("neurofmx", 0.1, np.nan)
    assert by_name(judged(task, data, found, seed=0, **NOWHERE))["neurofmx"].verdict == "better"
    few = replace(task, unit="recording")
    assert by_name(judged(few, data, found, seed=0, **NOWHERE))["neurofmx"].verdict == "within one recording"


def test_shuffled_targets_cover_chance(planted: Planted, trials: TaskSpec) -> None:
    made = planted(duration_s=300.0)
    held = made.streams["trials"]
    mixed = np.random.default_rng(3).permutation(held.columns["side"])  # type: ignore[union-attr]
    columns = dict(held.columns) | {"side": mixed}  # type: ignore[union-attr]
    made = replace(made, streams=dict(made.streams) | {"trials": replace(held, columns=columns)})
    for s in evaluate_task(trials, task_data_of(trials, [made]), {}, seed=0, **NOWHERE):
        assert s.ci95[0] <= 0.5 <= s.ci95[1], s.predictor


def test_a_control_is_scored_beside_the_neurons(planted: Planted, trials: TaskSpec) -> None:
    made = planted(noise=8.0)
    spec = replace(trials, controls=("hint", "spikes"), inputs={"calcium": "calcium"})
    hinted = replace(spec, controls=("hint",))
    data = task_data_of(hinted, [made])
    features = control_features(hinted, data, {str(made.id): made})[TRIALS][0][:, 0]
    assert np.array_equal(features > 0.5, data.recordings[0].target == 1)
    scores = evaluate_task(hinted, data, {}, seed=0, recordings={str(made.id): made}, **NOWHERE)
    assert by_name(scores)[TRIALS].value > 0.99
    with pytest.raises(ConfigError):
        control_features(replace(spec, controls=("nothing",)), data, {str(made.id): made})


def test_scores_and_their_lineage_are_stored_under_the_contracts(
    lake: Lake, planted: Planted, task: TaskSpec, tmp_path: Path
) -> None:
    lake.publish_recording(planted())
    data = task_data(task, lake)
    trained, runs = networks(data, tmp_path)
    scores = evaluate_task(task, data, trained, seed=0, snapshot=lake.snapshot(), lake=lake, checkpoints=runs)
    rows = catalog.rows(lake, "scores", task.name)
    assert {r["score_id"]: r["value"] for r in rows} == {s.score_id: s.value for s in scores}
    assert [r["delta"] for r in rows if r["predictor"] == "chance"] == [None]
    lineage = catalog.rows(lake, "lineage", f"scores|{task.name}")
    parents = {
        s.predictor: {(r["parent_kind"], r["parent"]) for r in lineage if r["child"] == s.score_id} for s in scores
    }
    assert ("recording", "test:planted@1/one") in parents["chance"]
    assert {p for kind, p in parents["neurofmx"] if kind == "run"} == set(runs.values())
    assert not any(kind == "run" for kind, _ in parents["wiener"])
    assert [c for c in validate_tables(lake) if c.name.startswith("scores.") and not c.passed] == []


def test_a_fold_without_a_network_is_refused(planted: Planted, task: TaskSpec, tmp_path: Path) -> None:
    data = task_data_of(task, [planted()])
    one = fit(tiny(), {task.name: data}, fold=0, out=tmp_path)
    with pytest.raises(ConfigError, match="none for folds"):
        evaluate_task(task, data, {0: load_trained(one.path)}, seed=0, **NOWHERE)


def test_the_split_digest_sees_every_move(planted: Planted, task: TaskSpec) -> None:
    data = task_data_of(task, [planted()])
    (windows,) = data.recordings
    fold = windows.fold.copy()
    fold[0] = (fold[0] + 1) % 5
    assert split_digest(replace(data, recordings=(replace(windows, fold=fold),))) != split_digest(data)
    assert split_digest(replace(data, recordings=(replace(windows, target=windows.target + 1),))) == split_digest(data)


def test_the_table_puts_chance_first_and_ours_last(planted: Planted, task: TaskSpec) -> None:
    from rich.console import Console

    data = task_data_of(task, [planted()])
    scores = evaluate_task(task, data, {}, seed=0, **NOWHERE)
    page = io.StringIO()
    Console(width=200, file=page).print(scores_table(reversed(scores)))
    text = page.getvalue()
    assert text.index("chance") < text.index("ridge") < text.index("wiener")
    assert scores[0].score_id in text
    assert text.count(task.name) == 1
