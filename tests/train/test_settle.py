"""How much of a network is kept is what validation supports; a readout changes heads alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from neurofmx.tokenize.windows import TaskData
from neurofmx.train.feed import Feed, make_feed
from neurofmx.train.loop import untrained
from neurofmx.train.recipes import Recipe
from neurofmx.train.settle import keep_what_validates, with_readout

Plant = Callable[..., TaskData]


def _unscaled(task: TaskData, recipe: Recipe) -> Feed:
    feed = make_feed({"move": task}, fold=0, config=recipe.feed, seed=0)
    plain = {"move": np.zeros(2, dtype=np.float32)}, {"move": np.ones(2, dtype=np.float32)}
    return replace(feed, normalisation=replace(feed.normalisation, target_mean=plain[0], target_std=plain[1]))


@pytest.mark.parametrize("share", [-0.5, 0.0, 0.3, 1.0, 2.0])
def test_the_share_that_validates_is_kept(plant: Plant, short: Recipe, share: float) -> None:
    task = plant()
    trained = untrained(short, {"move": task}, fold=0)
    torch.manual_seed(0)
    torch.nn.init.normal_(trained.model.heads[0].out.weight)  # type: ignore[union-attr,arg-type]
    windows = task.recordings[0]
    with torch.no_grad():
        correction = trained.model(_unscaled(task, short).batch("move", 0, np.arange(24)), "move").decode.numpy()
    before = trained.model.heads[0].out.weight.clone()  # type: ignore[union-attr,operator]
    aimed = replace(task, recordings=(replace(windows, target=(share * correction).astype(np.float32)),))
    kept = keep_what_validates(trained.model, _unscaled(aimed, short))["move"]
    assert kept == pytest.approx(min(max(share, 0.0), 1.0))
    torch.testing.assert_close(trained.model.heads[0].out.weight, before * kept)  # type: ignore[union-attr]


def test_only_validation_windows_speak(plant: Plant, short: Recipe) -> None:
    task = plant()
    trained = untrained(short, {"move": task}, fold=0)
    torch.nn.init.normal_(trained.model.heads[0].out.weight)  # type: ignore[union-attr,arg-type]
    windows = task.recordings[0]
    loud = np.full_like(windows.target, 1e3)
    loud[windows.fold == 1] = 0
    other = replace(task, recordings=(replace(windows, target=loud),))
    assert keep_what_validates(trained.model, _unscaled(other, short)) == {"move": 0.0}


@pytest.mark.parametrize("kind", ["continuous", "class"])
def test_a_readout_of_random_features_decodes_and_leaves_the_core(plant: Plant, short: Recipe, kind: str) -> None:
    task = plant(kind=kind, windows=160)
    data = {"move": task}
    trained = untrained(short, data, fold=0)
    before = {k: v.clone() for k, v in trained.model.state_dict().items()}
    read = with_readout(trained, data, fold=0)
    changed = {k for k, v in read.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"heads.0.out.weight", "heads.0.out.bias"}
    windows = task.recordings[0]
    held = np.flatnonzero(windows.fold == 0)
    predicted, truth = read.predict("move", windows, held), windows.target[held]
    if kind == "class":
        assert (predicted.argmax(1) == truth).mean() > 0.6
    else:
        assert 1 - np.square(predicted - truth).sum() / np.square(truth - truth.mean((0, 1))).sum() > 0.5


def test_a_readout_does_not_see_the_held_out_fold(plant: Plant, short: Recipe) -> None:
    task = plant()
    windows = task.recordings[0]
    target = windows.target.copy()
    target[windows.fold == 0] = 1e6
    other = replace(task, recordings=(replace(windows, target=target),))
    heads = [
        with_readout(untrained(short, {"move": t}, fold=0), {"move": t}, fold=0).model.heads[0].state_dict()
        for t in (task, other)
    ]
    assert all(torch.equal(heads[0][key], heads[1][key]) for key in heads[0])
