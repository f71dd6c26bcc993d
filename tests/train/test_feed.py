"""What a batch is, what it may not hold, and what statistics are of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from neurofmx.errors import ConfigError, Leakage
from neurofmx.tokenize.windows import SHARED, TaskData
from neurofmx.train.feed import Feed, Vocabulary, hidden, make_feed, n_folds, split, validation_fold
from neurofmx.train.recipes import FeedConfig

Plant = Callable[..., TaskData]
CONFIG = FeedConfig(bins=48)


def _feed(task: TaskData, *, fold: int | None = 0, config: FeedConfig = CONFIG, seed: int = 0) -> Feed:
    return make_feed({task.name: task}, fold=fold, config=config, seed=seed)


def test_batch_number_n_is_a_function_of_seed_and_n(plant: Plant) -> None:
    feed, again, other = _feed(plant()), _feed(plant()), _feed(plant(), seed=1)
    whole = list(islice(feed.batches(0), 30))
    for start in (0, 1, 7, 23):
        for (one, i, rows), (two, j, others) in zip(islice(again.batches(start), 7), whole[start:]):
            assert (one, i) == (two, j)
            assert np.array_equal(rows, others)
    assert any(not np.array_equal(a[2], b[2]) for a, b in zip(whole, islice(other.batches(0), 30)))


@pytest.mark.parametrize("bins", [1, 13, 48, 100, 400])
def test_every_training_window_is_seen_once_an_epoch(plant: Plant, bins: int) -> None:
    feed = _feed(plant(), config=replace(CONFIG, bins=bins))
    for epoch in (0, 1, 50):
        order = [rows for _, _, rows in feed.order(epoch)]
        assert sorted(np.concatenate(order)) == sorted(feed.train_rows["move", 0])
        assert max(map(len, order)) <= max(1, bins // 12)


def test_held_out_and_validation_folds_are_kept_apart(plant: Plant) -> None:
    task = plant()
    feed, fold = _feed(task, fold=3), task.recordings[0].fold
    assert validation_fold({"move": task}, 3) == 0
    assert set(fold[feed.train_rows["move", 0]]) == {1, 2}
    assert set(fold[feed.valid_rows["move", 0]]) == {0}
    assert set(np.concatenate([rows for *_, rows in feed.validation()])) == set(feed.valid_rows["move", 0])


def test_validation_goes_to_the_next_fold_that_holds_windows(plant: Plant) -> None:
    task = plant()
    windows = task.recordings[0]
    kept = replace(task, recordings=(windows.take(windows.fold != 1),))
    assert n_folds({"move": kept}) == 4
    assert validation_fold({"move": kept}, 0) == 2
    lonely = replace(task, recordings=(windows.take(windows.fold == 1),))
    with pytest.raises(ConfigError, match="a fold for validation"):
        validation_fold({"move": lonely}, 1)


def test_guard_windows_are_in_no_set(plant: Plant) -> None:
    windows = plant().recordings[0]
    fold = windows.fold.copy()
    fold[4:8] = -1
    train, valid = split(replace(windows, fold=fold), fold=0, valid=1)
    assert not {4, 5, 6, 7} & set(np.concatenate([train, valid]))


def test_a_unit_on_both_sides_is_leakage(plant: Plant) -> None:
    task = plant()
    windows = task.recordings[0]
    one = np.full(len(windows), "the same")
    with pytest.raises(Leakage, match="expected one fold a unit"):
        _feed(replace(task, recordings=(replace(windows, unit=one),)))


def test_statistics_are_of_training_folds_to_the_bit(plant: Plant) -> None:
    task = plant()
    windows = task.recordings[0]
    values, target = windows.values["spikes"].copy(), windows.target.copy()
    unseen = np.isin(windows.fold, [0, 1])  # held out, and validation
    values[unseen] = 1e6
    target[unseen] = -1e6
    other = replace(task, recordings=(replace(windows, values={"spikes": values}, target=target),))
    one, two = _feed(task).normalisation, _feed(other).normalisation
    for kind in ("mean", "std", "target_mean", "target_std"):
        for key, array in getattr(one, kind).items():
            assert array.tobytes() == getattr(two, kind)[key].tobytes()


def test_statistics_are_those_of_real_bins(plant: Plant) -> None:
    task = plant()
    windows = task.recordings[0]
    mask = np.random.default_rng(0).random(windows.mask["spikes"].shape) > 0.3
    values = np.where(mask[..., None], windows.values["spikes"] * 3 + 2, np.nan).astype(np.float32)
    feed = _feed(replace(task, recordings=(replace(windows, values={"spikes": values}, mask={"spikes": mask}),)))
    rows = feed.train_rows["move", 0]
    real = np.where(mask[rows], values[rows][..., 0], np.nan)
    np.testing.assert_allclose(feed.normalisation.mean["spikes"][:, 0], np.nanmean(real, (0, 1)), rtol=1e-5)
    np.testing.assert_allclose(feed.normalisation.std["spikes"][:, 0], np.nanstd(real, (0, 1)), rtol=1e-5)
    y = windows.target[rows].reshape(-1, 2)
    np.testing.assert_allclose(feed.normalisation.target_mean["move"], y.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(feed.normalisation.target_std["move"], y.std(0), rtol=1e-5)


def test_channels_that_hardly_vary_are_not_blown_up(plant: Plant) -> None:
    task = plant()
    windows = task.recordings[0]
    values = windows.values["spikes"].copy()
    values[:, :, 0] = 4.0
    values[:, :, 1] *= 1e-4
    std = _feed(replace(task, recordings=(replace(windows, values={"spikes": values}),))).normalisation.std["spikes"]
    assert std[0, 0] == 1
    assert std[1, 0] == pytest.approx(0.1 * np.median(std[1:, 0]), rel=0.3)


def test_batch_is_normalised_masked_and_of_its_recording(plant: Plant, join: Callable[..., TaskData]) -> None:
    task = join(plant(), plant(recording="simulated:planted@1/two", seed=1, channels=3))
    feed = _feed(task)
    rows = feed.train_rows["move", 1]
    batch = feed.batch("move", 1, rows)
    tokens = batch.streams["spikes"]
    assert tokens.values.dtype == torch.float32
    assert tokens.values.mean().abs() < 1e-5
    assert tokens.channel.tolist()[0] == [5, 6, 7]
    assert batch.recording.unique().tolist() == [1]
    assert tokens.time_s[0, 0].item() == pytest.approx(task.recordings[1].start_s[rows[0]] + 0.025)
    assert batch.targets["move"].values.std().item() == pytest.approx(1, abs=0.5)


def test_channels_without_training_data_are_refused(plant: Plant, join: Callable[..., TaskData]) -> None:
    other = plant(recording="simulated:planted@1/two", seed=1)
    held = other.recordings[0]
    task = replace(other, recordings=(replace(held, fold=np.zeros_like(held.fold)),))
    feed = _feed(join(plant(), task))
    with pytest.raises(ConfigError, match="train.adapt"):
        feed.batch("move", 1, np.array([0]))


def test_validation_on_unseen_channels_alone_is_refused(plant: Plant, join: Callable[..., TaskData]) -> None:
    one, two = plant().recordings[0], plant(recording="simulated:planted@1/two").recordings[0]
    task = replace(
        plant(),
        recordings=(replace(one, fold=np.full_like(one.fold, 2)), replace(two, fold=np.full_like(two.fold, 1))),
    )
    with pytest.raises(ConfigError, match="whose channels training filled"):
        _feed(task)


def test_no_training_window_and_wrong_names_are_refused(plant: Plant) -> None:
    task = plant(folds=2)
    with pytest.raises(ConfigError, match="training windows"):
        _feed(task)
    with pytest.raises(ConfigError, match="its name"):
        make_feed({"walk": task}, fold=0, config=CONFIG, seed=0)
    blind = plant()
    windows = replace(blind.recordings[0], target_mask=np.zeros((24, 12), dtype=bool))
    with pytest.raises(ConfigError, match="known target"):
        _feed(replace(blind, recordings=(windows,)))


def test_keys_are_of_the_recording_or_of_the_dataset() -> None:
    book = Vocabulary(channels=(), recordings=())
    assert book.key("dandi:1@draft/a", "spikes", "u1") == "dandi:1@draft/a|spikes|u1"
    eeg = f"eeg{SHARED}"
    assert book.key("dandi:1@draft/a", eeg, "C3") == book.key("dandi:1@draft/b", eeg, "C3") == f"dandi:1@draft|{eeg}|C3"
    assert book.key("dandi:2@draft/a", eeg, "C3") != book.key("dandi:1@draft/a", eeg, "C3")
    assert book.key("not an id", "spikes", "u1") == "not an id|spikes|u1"
    with pytest.raises(ConfigError, match="archive:dataset@version/name"):
        book.key("not an id", eeg, "C3")


def test_shared_channels_are_one_row_in_a_dataset_and_more_in_two(plant: Plant, join: Callable[..., TaskData]) -> None:
    names = ("simulated:planted@1/one", "simulated:planted@1/two", "simulated:other@1/one")
    task = join(*(plant(recording=name, modality=f"eeg{SHARED}", seed=i) for i, name in enumerate(names)))
    book = _feed(task).vocabulary
    assert len(book.channels) == 10
    rows = [book.rows(name, f"eeg{SHARED}", ("c0", "c1")).tolist() for name in names]
    assert rows == [[0, 1], [0, 1], [5, 6]]


def test_extension_keeps_old_rows(plant: Plant) -> None:
    book = Vocabulary(channels=(), recordings=()).extended([plant()])
    longer = book.extended([plant(recording="simulated:planted@1/two"), plant()])
    assert longer.channels[: len(book.channels)] == book.channels
    assert longer.recordings == ("simulated:planted@1/one", "simulated:planted@1/two")
    assert longer.recording_row("simulated:planted@1/two") == 1
    with pytest.raises(ConfigError, match="train.adapt"):
        book.rows("simulated:planted@1/two", "spikes", ["c0"])
    with pytest.raises(ConfigError, match="Adapt first"):
        book.recording_row("simulated:planted@1/two")


def test_hiding_is_a_function_of_its_generator_and_hides_what_was_real(plant: Plant) -> None:
    feed = _feed(plant())
    batch = feed.batch("move", 0, np.arange(8))
    config = replace(CONFIG, unit_dropout=0.9, time_dropout=0.2)
    shown, gone = hidden(batch, config, torch.Generator().manual_seed(3))
    again, _ = hidden(batch, config, torch.Generator().manual_seed(3))
    assert torch.equal(shown.streams["spikes"].mask, again.streams["spikes"].mask)
    assert torch.equal(shown.streams["spikes"].mask | gone["spikes"], batch.streams["spikes"].mask)
    assert not (shown.streams["spikes"].mask & gone["spikes"]).any()
    assert 0.2 < gone["spikes"].float().mean() < 0.8
    none, nothing = hidden(batch, replace(CONFIG, unit_dropout=0, time_dropout=0), torch.Generator().manual_seed(3))
    assert torch.equal(none.streams["spikes"].mask, batch.streams["spikes"].mask)
    assert not nothing["spikes"].any()
