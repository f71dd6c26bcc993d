"""Baselines find what is planted, no more, and are tuned inside the training folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge

from neurofmx.errors import ConfigError
from neurofmx.evaluate import spatial
from neurofmx.evaluate.baselines import BASELINES, PENALTIES, _lda, _logistic, baseline_named, tune
from neurofmx.evaluate.build import task_data_of
from neurofmx.evaluate.design import Design, designs
from neurofmx.evaluate.kalman import _steady
from neurofmx.evaluate.metrics import METRICS, value_of
from neurofmx.evaluate.predict import classical, scored_rows, task_designs
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.types import Recording

Planted = Callable[..., Recording]


def score(task: TaskSpec, recordings: list[Recording], name: str) -> float:
    data = task_data_of(task, recordings)
    rows, _ = task_designs(task, data, {})
    found = classical(task, data, rows, name)
    return value_of(METRICS[task.metric], scored_rows(task, data, found.arrays)[0])


def test_ridge_reaches_the_analytic_r2_of_a_planted_code(planted: Planted, task: TaskSpec) -> None:
    made = planted(noise=1.0, duration_s=600.0)
    made = replace(made, streams={k: v for k, v in made.streams.items() if k != "trials"})
    data = task_data_of(task, [made])
    (design,) = designs(data, joint=False)
    # the best linear reader of the present bin, by the covariances of all bins
    x, y = design.x[design.known], design.y[design.known] - design.y[design.known].mean(axis=0)
    w = np.linalg.lstsq(x, y, rcond=None)[0]
    best = 1 - np.square(y - x @ w).sum() / np.square(y).sum()
    assert score(task, [made], "ridge") == pytest.approx(best, abs=0.02)
    assert score(task, [made], "wiener") >= best - 0.01


def test_ridge_is_that_of_scikit_learn(planted: Planted, task: TaskSpec) -> None:
    (design,) = designs(task_data_of(task, [planted()]), joint=False)
    train = frozenset({0, 1, 2})
    rows, test = design.rows(train) & design.known, design.rows((3,))
    predicted = BASELINES["ridge"].fit(design, train)(test)
    x = design.x / design.field_scale
    centred = x[rows] - x[rows].mean(axis=0)
    unit = np.linalg.eigvalsh(centred.T @ centred).mean()
    for setting, ours in zip(BASELINES["ridge"].grid, predicted):
        if setting["scale"] == "field":
            theirs = Ridge(alpha=setting["penalty"] * unit).fit(x[rows], design.y[rows]).predict(x[test])
            assert np.allclose(ours, theirs, atol=1e-8)


def test_lda_and_logistic_are_those_of_scikit_learn() -> None:
    own = np.random.default_rng(0)
    y = own.integers(0, 3, 150)
    x = own.standard_normal((150, 6)) + np.eye(3, 6)[y]
    w, b = _lda(x, y, 3)[0]
    inside = x - np.stack([x[y == k].mean(axis=0) for k in range(3)])[y]
    pooled = inside.T @ inside / 147
    shrunk = 0.99 * pooled + 0.01 * np.trace(pooled) / 6 * np.eye(6)
    means = np.stack([x[y == k].mean(axis=0) for k in range(3)])
    assert np.allclose(w, np.linalg.solve(shrunk, means.T))
    plain = LinearDiscriminantAnalysis(solver="lsqr").fit(x, y)
    assert np.mean((x @ w + b).argmax(axis=1) == plain.predict(x)) > 0.97
    for penalty, (w, b) in zip(PENALTIES, _logistic(x, y, 3)):
        theirs = LogisticRegression(C=1 / (penalty * len(x)), max_iter=5000, tol=1e-8).fit(x, y).predict_proba(x)
        e = np.exp(x @ w + b)
        assert np.allclose(e / e.sum(axis=1, keepdims=True), theirs, atol=0.01)


def test_the_kalman_gain_is_what_the_recursion_settles_to() -> None:
    own = np.random.default_rng(0)
    a = 0.9 * np.linalg.qr(own.standard_normal((4, 4)))[0]
    h = own.standard_normal((30, 4))
    w, information = 0.1 * np.eye(4), h.T @ h / 5
    covariance = w
    for _ in range(500):
        after = np.linalg.inv(np.linalg.inv(covariance) + information)
        covariance = a @ after @ a.T + w
    move, gain = _steady(a, w, information)
    assert np.allclose(gain, after)
    assert np.allclose(move, after @ np.linalg.inv(covariance) @ a)


def test_kalman_beats_a_reader_of_one_bin_on_a_smooth_path(planted: Planted, task: TaskSpec) -> None:
    made = [planted(noise=4.0, duration_s=300.0)]
    smooth = replace(task, baselines=("kalman",))
    assert score(smooth, made, "kalman") > score(smooth, made, "ridge") + 0.1


@pytest.mark.parametrize("name", ["lda", "logistic", "lda_time"])
def test_classifiers_find_a_planted_side(planted: Planted, trials: TaskSpec, name: str) -> None:
    assert score(trials, [planted(noise=0.5)], name) > 0.9


def test_csp_and_tangent_space_find_a_source_by_its_variance() -> None:
    own = np.random.default_rng(0)
    mixing = own.standard_normal((6, 6))
    label = np.arange(120) % 2
    source = own.standard_normal((120, 6, 160))
    source[label == 1, 0] *= 2.0
    raw = np.einsum("cs,nst->nct", mixing, source)
    design = Design(
        kind="class", classes=2, x=np.zeros((120, 1)), kind_of=np.zeros(1, int), y=label, known=np.ones(120, bool),
        cell=np.arange(120) // 30, folds={f: (f,) for f in range(4)}, sequence=np.arange(120),
        at=np.stack([np.zeros(120, int), np.arange(120), np.zeros(120, int)], axis=1), timed=np.zeros((120, 1)),
        raw=raw, raw_hz=160.0,
    )  # fmt: skip
    for name in ("csp_lda", "tangent"):
        (predicted,) = tune(baseline_named(name), [design]).predicted
        assert np.mean(predicted.argmax(axis=1) == label) > 0.95
    covariance = spatial.covariances(raw, 160.0)
    filters = spatial.csp(covariance, label, patterns=2, shrinkage=0.0).filters
    found = np.abs(np.linalg.inv(mixing).T[:, 0] @ filters) / np.linalg.norm(filters, axis=0)
    assert found.max() / np.linalg.norm(np.linalg.inv(mixing).T[:, 0]) > 0.95


def test_shuffled_labels_are_at_chance(planted: Planted, trials: TaskSpec) -> None:
    made = planted(duration_s=300.0)
    held = made.streams["trials"]
    mixed = np.random.default_rng(5).permutation(held.columns["side"])  # type: ignore[union-attr]
    shuffled = replace(
        made,
        streams=dict(made.streams) | {"trials": replace(held, columns=dict(held.columns) | {"side": mixed})},  # type: ignore[union-attr]
    )
    for name in ("lda", "logistic", "lda_time"):
        assert abs(score(trials, [shuffled], name) - 0.5) < 0.12
    assert score(trials, [shuffled], "chance") == 0.5


def test_the_test_fold_changes_no_choice_and_no_inner_prediction(planted: Planted, task: TaskSpec) -> None:
    (design,) = designs(task_data_of(task, [planted()]), joint=False)
    other = replace(design, y=np.where(design.rows((2,))[:, None], 1e3, design.y))
    one, two = (tune(BASELINES["wiener"], [d]) for d in (design, other))
    assert one.chosen[2] == two.chosen[2]
    assert np.allclose(one.inner[2][0], two.inner[2][0], equal_nan=True)
    test = design.rows((2,))
    assert np.allclose(one.predicted[0][test], two.predicted[0][test])


def test_two_folds_are_tuned_inside_by_units(planted: Planted, task: TaskSpec) -> None:
    (design,) = designs(task_data_of(replace(task, n_folds=2), [planted()]), joint=False)
    assert {f: len(c) for f, c in design.folds.items()} == {0: 4, 1: 4}
    found = tune(BASELINES["ridge"], [design])
    assert np.isfinite(found.predicted[0][design.cell >= 0]).all()


def test_lags_stop_at_the_ends_of_a_stretch(planted: Planted, task: TaskSpec) -> None:
    (design,) = designs(task_data_of(task, [planted()]), joint=False)
    numbered = np.arange(1.0, len(design.x) + 1)[:, None]
    lagged = design.lagged(numbered, (-1, 1))
    first = np.concatenate([[True], np.diff(design.sequence) > 0])
    assert not lagged[first, 0].any()
    assert np.array_equal(lagged[~first, 0], numbered[~first, 0] - 1)
    assert not lagged[np.roll(first, -1), 1].any()


def test_many_channels_are_reduced_first(planted: Planted, task: TaskSpec) -> None:
    wide = planted(channels=400, noise=5.0, duration_s=100.0)
    assert score(replace(task, n_folds=3), [wide], "wiener") > 0.8


def test_a_baseline_of_another_kind_is_refused(planted: Planted, task: TaskSpec) -> None:
    with pytest.raises(ConfigError, match="class target"):
        score(task, [planted()], "lda")
    with pytest.raises(ConfigError, match="wiener"):
        baseline_named("winner")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "baseline", "floor"),
    [("hippocampus-track-position", "wiener", 0.458), ("hippocampus-maze-position", "wiener", 0.29)],
)
def test_real_position_reaches_the_floor(mirror, name: str, baseline: str, floor: float) -> None:
    from neurofmx.evaluate.tasks import TASKS
    from neurofmx.ingest.archives import dandi
    from neurofmx.ingest.formats import table
    from neurofmx.ingest.sessions import Source
    from neurofmx.types import RawFile

    root = mirror / "dandi"
    task = TASKS[name]
    source = Source(archive="dandi", dataset="900001", version="draft", address=str(root))
    sessions = [s for s in dandi.list_sessions(source) if task.where.names[0].strip("*") in s.id.name]
    files = tuple(RawFile(path=f.path, url=f.url, sha256="0" * 64, size=1) for f in sessions[0].files)
    recording = table.read("nwb", root / "900001", sessions[0], files)
    assert score(task, [recording], baseline) > floor - 0.1
