"""The closed-form start against scikit-learn, fold by fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from neurofmx.tokenize.windows import SHARED, TaskData
from neurofmx.train.feed import Feed, make_feed
from neurofmx.train.linear import LinearStart, linear_refit, linear_start
from neurofmx.train.loop import set_linear, untrained
from neurofmx.train.recipes import FeedConfig, LinearConfig, Recipe

Plant = Callable[..., TaskData]
CONFIG = FeedConfig(bins=48)
LAGS = (-1, 0)
STRETCH = ((-1, 0),)  # all of the lags, so that nothing but the penalty is chosen
WHOLE = LinearConfig(stretches=STRETCH)


def _feed(task: TaskData) -> Feed:
    return make_feed({task.name: task}, fold=0, config=CONFIG, seed=0)


def _design(feed: Feed, rows: np.ndarray, lags: Sequence[int] = LAGS) -> np.ndarray:
    """(N, T, K C): normalised channels at each lag, zero beyond the window."""
    x = feed.batch("move", 0, rows).streams["spikes"].values.numpy()[..., 0]
    parts = []
    for lag in lags:
        moved = np.zeros_like(x)
        for t in range(x.shape[1]):
            if 0 <= t + lag < x.shape[1]:
                moved[:, t] = x[:, t + lag]
        parts.append(moved)
    return np.concatenate(parts, axis=-1).astype(np.float64)


def _alpha(x: np.ndarray, penalty: float) -> float:
    centred = x - x.mean(0)
    return penalty * float(np.linalg.eigvalsh(centred.T @ centred).mean())


def _decoded(start: LinearStart, task: TaskData, recipe: Recipe, rows: np.ndarray, number: int = 0) -> np.ndarray:
    how = replace(recipe, model=replace(recipe.model, lags=LAGS))
    trained = untrained(how, {task.name: task}, fold=0)
    set_linear(trained.model, start)
    return trained.predict(task.name, task.recordings[number], rows)


def test_one_recording_is_ridge_regression(plant: Plant, short: Recipe) -> None:
    task = plant()
    feed = _feed(task)
    start = linear_start(feed, WHOLE, LAGS)
    rows = feed.train_rows["move", 0]
    x = _design(feed, rows).reshape(-1, 10)
    y = task.recordings[0].target[rows].reshape(-1, 2)
    ridge = Ridge(alpha=_alpha(x, start.chosen["move"][0].penalty)).fit(x, y)
    held = np.flatnonzero(task.recordings[0].fold == 0)
    expected = ridge.predict(_design(feed, held).reshape(-1, 10)).reshape(len(held), 12, 2)
    np.testing.assert_allclose(_decoded(start, task, short, held), expected, rtol=1e-3, atol=1e-3)
    truth = task.recordings[0].target[held]
    assert 1 - np.square(truth - expected).sum() / np.square(truth - truth.mean((0, 1))).sum() > 0.9


def test_offsets_come_from_fits_that_did_not_see_them(plant: Plant) -> None:
    task = plant()
    feed = _feed(task)
    config = LinearConfig(stretches=STRETCH, inner_folds=3)
    start = linear_start(feed, config, LAGS)
    rows = feed.train_rows["move", 0]
    units = task.recordings[0].unit[rows]
    order = list(dict.fromkeys(units))
    inner = np.array([order.index(u) % 3 for u in units])
    x = _design(feed, rows)
    y = feed.batch("move", 0, rows).targets["move"].values.numpy().astype(np.float64)
    for which in range(3):
        seen = inner != which
        flat = x[seen].reshape(-1, 10)
        ridge = Ridge(alpha=_alpha(flat, start.chosen["move"][0].penalty)).fit(flat, y[seen].reshape(-1, 2))
        expected = ridge.predict(x[~seen].reshape(-1, 10)).reshape(-1, 12, 2)
        np.testing.assert_allclose(start.offset["move", 0][rows[~seen]], expected, rtol=1e-3, atol=1e-3)
    others = np.setdiff1d(np.arange(len(task.recordings[0])), rows)
    assert not start.offset["move", 0][others].any()


def test_windows_of_classes_are_logistic_regression(plant: Plant, short: Recipe) -> None:
    task = plant(kind="class", windows=80)
    feed = _feed(task)
    start = linear_start(feed, WHOLE, LAGS)
    assert start.weight["move"].shape == (5, 1, 1, 3)
    rows = feed.train_rows["move", 0]
    x = feed.batch("move", 0, rows).streams["spikes"].values.numpy()[..., 0].mean(1).astype(np.float64)
    decay = start.chosen["move"][0].penalty * x.var(0).mean()
    peer = LogisticRegression(C=1 / (decay * len(x)), tol=1e-8, max_iter=1000).fit(x, task.recordings[0].target[rows])
    held = np.flatnonzero(task.recordings[0].fold == 0)
    z = feed.batch("move", 0, held).streams["spikes"].values.numpy()[..., 0].mean(1)
    np.testing.assert_allclose(_decoded(start, task, short, held), peer.predict_proba(z), atol=5e-3)


def test_penalty_grows_with_noise(plant: Plant) -> None:
    clean, noise = plant(), plant()
    windows = noise.recordings[0]
    random = np.random.default_rng(5).standard_normal(windows.target.shape).astype(np.float32)
    noise = replace(noise, recordings=(replace(windows, target=random),))
    chosen = [linear_start(_feed(t), WHOLE, LAGS).chosen["move"][0].penalty for t in (clean, noise)]
    assert chosen == [1e-3, 10.0]


def _remembering(task: TaskData) -> TaskData:
    """The target of a bin is what the channels were one bin ago."""
    windows = task.recordings[0]
    target = np.roll(windows.target, 1, axis=1)
    known = windows.target_mask.copy()
    known[:, 0] = False
    return replace(task, recordings=(replace(windows, target=target, target_mask=known),))


def test_the_stretch_of_lags_is_chosen_and_the_others_stay_at_zero(plant: Plant) -> None:
    config = LinearConfig(stretches=((0, 0), (-1, 0), (-4, 4)))
    now = linear_start(_feed(plant()), config, (-3, -2, -1, 0))
    past = linear_start(_feed(_remembering(plant())), config, (-3, -2, -1, 0))
    assert now.chosen["move"][0].lags == (3,)
    assert not now.weight["move"][:, :3].any()
    assert past.chosen["move"][0].lags == (2, 3)
    assert not past.weight["move"][:, :2].any()
    elsewhere = linear_start(_feed(plant()), LinearConfig(stretches=((5, 9),)), LAGS)
    assert elsewhere.chosen["move"][0].lags == (0, 1)


def test_the_refit_adds_validation_windows_and_chooses_nothing_anew(plant: Plant, short: Recipe) -> None:
    task = plant()
    feed = _feed(task)
    start = linear_start(feed, WHOLE, LAGS)
    same = linear_refit(feed, WHOLE, LAGS, start, {"move": 1.0})
    assert np.array_equal(same.weight["move"], start.weight["move"])
    again = linear_refit(feed, WHOLE, LAGS, start, {"move": 0.0})
    assert again.chosen == start.chosen
    rows = np.sort(np.concatenate([feed.train_rows["move", 0], feed.valid_rows["move", 0]]))
    x, y = _design(feed, rows).reshape(-1, 10), task.recordings[0].target[rows].reshape(-1, 2)
    ridge = Ridge(alpha=_alpha(x, start.chosen["move"][0].penalty)).fit(x, y)
    held = np.flatnonzero(task.recordings[0].fold == 0)
    expected = ridge.predict(_design(feed, held).reshape(-1, 10)).reshape(len(held), 12, 2)
    np.testing.assert_allclose(_decoded(again, task, short, held), expected, rtol=1e-3, atol=1e-3)


def test_repeated_channels_lose_nothing_to_the_rank(plant: Plant, short: Recipe) -> None:
    task = plant()
    windows = task.recordings[0]
    wide = replace(
        task,
        recordings=(
            replace(
                windows,
                values={"spikes": np.tile(windows.values["spikes"], (1, 1, 40, 1))},
                mask={"spikes": np.tile(windows.mask["spikes"], (1, 1, 40))},
                channels={"spikes": tuple(f"c{i}" for i in range(200))},
            ),
        ),
    )
    held = np.flatnonzero(windows.fold == 0)
    config = LinearConfig(stretches=STRETCH, penalties=(1e-9,), rank=5)
    narrow = _decoded(linear_start(_feed(task), config, LAGS), task, short, held)
    broad = _decoded(linear_start(_feed(wide), config, LAGS), wide, short, held)
    np.testing.assert_allclose(broad, narrow, atol=2e-3)


def test_fewer_bins_than_channels_are_fitted(plant: Plant, short: Recipe) -> None:
    task = plant(channels=80, windows=8)
    feed = _feed(task)
    rows = feed.train_rows["move", 0]
    start = linear_start(feed, LinearConfig(stretches=STRETCH, penalties=(1e-9,), rank=70), LAGS)
    expected = task.recordings[0].target[rows]  # as many unknowns as bins: what was seen is met exactly
    assert expected.size // 2 < 80
    np.testing.assert_allclose(_decoded(start, task, short, rows), expected, atol=0.05 * expected.std())


def test_recordings_that_share_channels_share_a_fit(plant: Plant, join: Callable[..., TaskData], short: Recipe) -> None:
    names = ("simulated:planted@1/one", "simulated:planted@1/two", "simulated:other@1/one")
    task = join(*(plant(recording=n, modality=f"eeg{SHARED}", seed=i) for i, n in enumerate(names)))
    start = linear_start(_feed(task), WHOLE, LAGS)
    assert len(start.chosen["move"]) == 2
    assert np.array_equal(start.bias["move"][0], start.bias["move"][1])
    assert not np.array_equal(start.bias["move"][0], start.bias["move"][2])


def test_one_unit_alone_is_cut_in_stretches(plant: Plant) -> None:
    task = plant(windows=12)
    windows = task.recordings[0]
    unit = np.where(windows.fold == 2, "a", np.where(windows.fold == 0, "b", "c"))
    keep = np.isin(windows.fold, [0, 1, 2])
    start = linear_start(_feed(replace(task, recordings=(replace(windows, unit=unit).take(keep),))), WHOLE, LAGS)
    assert np.abs(start.offset["move", 0]).sum() > 0


def test_a_fit_to_one_inner_fold_takes_the_middle_penalty(plant: Plant) -> None:
    start = linear_start(
        _feed(plant()), LinearConfig(stretches=STRETCH, inner_folds=1, penalties=(0.1, 1.0, 10.0)), LAGS
    )
    assert [c.penalty for c in start.chosen["move"]] == [1.0]
    assert not start.offset["move", 0].any()


def test_a_recording_that_is_held_out_whole_takes_part_in_nothing(plant: Plant, join: Callable[..., TaskData]) -> None:
    other = plant(recording="simulated:planted@1/two", seed=3)
    windows = other.recordings[0]
    task = join(plant(), replace(other, recordings=(replace(windows, fold=np.zeros_like(windows.fold)),)))
    start = linear_start(_feed(task), WHOLE, LAGS)
    assert len(start.chosen["move"]) == 1
    assert not start.weight["move"][5:].any()
    assert not start.bias["move"][1].any()


@pytest.mark.parametrize("missing", [0.2, 0.6])
def test_unknown_targets_are_left_out(plant: Plant, missing: float) -> None:
    task = plant()
    windows = task.recordings[0]
    known = np.random.default_rng(0).random(windows.target_mask.shape) > missing
    wrong = np.where(known[..., None], windows.target, np.float32(np.nan))
    blank = np.where(known[..., None], windows.target, np.float32(0))
    fits = [
        linear_start(_feed(replace(task, recordings=(replace(windows, target=t, target_mask=known),))), WHOLE, LAGS)
        for t in (wrong, blank)
    ]
    assert np.array_equal(fits[0].weight["move"], fits[1].weight["move"])
