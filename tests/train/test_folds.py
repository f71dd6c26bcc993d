"""Networks in processes of their own are those of one process, bit for bit, and say why they failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from neurofmx.errors import ConfigError
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import load_trained
from neurofmx.train.folds import Network, fit_networks
from neurofmx.train.recipes import Recipe

Plant = Callable[..., TaskData]


def _networks(task: TaskData, folds: tuple[int, ...]) -> list[Network]:
    data = {"move": task}
    return [Network(data=data, fold=fold, name=f"fold {fold}") for fold in folds]


def test_networks_in_this_process_are_told_and_found_again(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    networks = _networks(plant(), (0, 2))
    told: list[tuple[str, int, int]] = []
    first = fit_networks(short, networks, out=tmp_path, workers=1, on=lambda *t: told.append(t))
    assert [run.fold for run in first] == [0, 2]
    assert [t for t in told if t[1] == t[2]] == [(f"fold {f}", n, n) for f in (0, 2) for n in (12, 1)]
    told.clear()
    again = fit_networks(short, networks, out=tmp_path, workers=1, on=lambda *t: told.append(t))
    assert told == []
    assert [run.run_id for run in again] == [run.run_id for run in first]


@pytest.mark.slow
def test_processes_give_the_same_bits(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    networks = _networks(plant(curved=True), (0, 1, 2))
    torch.set_num_threads(1)
    one = fit_networks(short, networks, out=tmp_path / "a", workers=1)
    two = fit_networks(short, networks, out=tmp_path / "b", workers=2)
    for a, b in zip(one, two):
        here, there = (load_trained(run.path).model.state_dict() for run in (a, b))
        assert all(torch.equal(here[key], there[key]) for key in here)


@pytest.mark.slow
def test_a_failed_process_says_why(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    task = plant(folds=2)  # nothing is left to train on once one fold is held out and one validates
    with pytest.raises(ConfigError, match="training windows"):
        fit_networks(short, _networks(task, (0, 1)), out=tmp_path, workers=2)
