"""Folds in processes of their own give the bits of folds one after the other, and say why they failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from neurofmx.errors import ConfigError
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import load_trained
from neurofmx.train.folds import fit_folds
from neurofmx.train.recipes import Recipe

Plant = Callable[..., TaskData]


def test_folds_in_this_process_are_told_and_found_again(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    data = {"move": plant()}
    told: list[tuple[int, int, int]] = []
    first = fit_folds(short, data, (0, 2), out=tmp_path, workers=1, on=lambda *t: told.append(t))
    assert sorted(first) == [0, 2]
    assert [t for t in told if t[1] == 12] == [(0, 12, 12), (2, 12, 12)]
    told.clear()
    again = fit_folds(short, data, (0, 2), out=tmp_path, workers=1, on=lambda *t: told.append(t))
    assert told == []
    assert {fold: run.run_id for fold, run in again.items()} == {fold: run.run_id for fold, run in first.items()}


@pytest.mark.slow
def test_processes_give_the_same_bits(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    data = {"move": plant(curved=True)}
    torch.set_num_threads(1)
    one = fit_folds(short, data, (0, 1, 2), out=tmp_path / "a", workers=1)
    two = fit_folds(short, data, (0, 1, 2), out=tmp_path / "b", workers=2)
    for fold, run in one.items():
        here, there = (load_trained(r.path).model.state_dict() for r in (run, two[fold]))
        assert all(torch.equal(here[key], there[key]) for key in here)


@pytest.mark.slow
def test_a_failed_process_says_why(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    task = plant(folds=2)  # nothing is left to train on once one fold is held out and one validates
    with pytest.raises(ConfigError, match="training windows"):
        fit_folds(short, {"move": replace(task)}, (0, 1), out=tmp_path, workers=2)
