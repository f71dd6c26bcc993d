"""A network on new recordings: what is known stays, what is new begins as in a new network, frozen is frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neurofmx.errors import ConfigError, Leakage
from neurofmx.tokenize.windows import SHARED, TaskData
from neurofmx.train.adapt import adapt
from neurofmx.train.checkpoints import Trained, load_trained, new_model
from neurofmx.train.loop import StepReport, fit
from neurofmx.train.recipes import Recipe

Plant = Callable[..., TaskData]
NEW = "simulated:planted@1/new"
EMG = f"emg{SHARED}"


@pytest.fixture
def trained(plant: Plant, short: Recipe, tmp_path: Path) -> Trained:
    return _worn(load_trained(fit(short, {"move": plant(curved=True)}, fold=0, out=tmp_path / "runs").path))


@pytest.fixture
def new(plant: Plant) -> dict[str, TaskData]:
    return {"move": plant(curved=True, recording=NEW, seed=4, channels=4)}


@torch.no_grad()
def _worn(trained: Trained) -> Trained:
    """So that no part is by chance what a new network begins with."""
    torch.manual_seed(3)
    for parameter in trained.model.parameters():
        parameter.add_(0.01 * torch.randn(parameter.shape))
    return trained


def _parts(trained: Trained, *names: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in trained.model.state_dict().items() if k.split(".")[0] in names}


def _same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


CORE = ("population", "blocks", "fusion", "reconstruction")


@pytest.mark.parametrize(
    ("groups", "frozen"),
    [
        ((), (*CORE, "heads")),
        (("channels",), (*CORE, "heads")),
        (("channels", "head"), CORE),
        (("core",), ("heads",)),
    ],
)
def test_frozen_parameters_keep_every_bit(
    trained: Trained, new: dict[str, TaskData], short: Recipe, groups: tuple[str, ...], frozen: tuple[str, ...]
) -> None:
    before = {k: v.clone() for k, v in trained.model.state_dict().items()}
    every = replace(short, stop=replace(short.stop, every=1))
    adapted = adapt(trained, new, every, fold=0, groups=groups)
    assert _same(_parts(adapted, *frozen), _parts(trained, *frozen))
    assert _same(trained.model.state_dict(), before)


def test_all_groups_are_fine_tuning(trained: Trained, new: dict[str, TaskData], short: Recipe) -> None:
    every = replace(short, stop=replace(short.stop, every=1))
    adapted = adapt(trained, new, every, fold=0, groups=("channels", "core", "head"), linear=False, steps=30)
    for name in ("population", "blocks", "reconstruction", "heads"):  # one modality passes fusion unchanged
        assert not _same(_parts(adapted, name), _parts(trained, name))


def test_new_channels_begin_as_in_a_new_network(trained: Trained, new: dict[str, TaskData], short: Recipe) -> None:
    adapted = adapt(trained, new, short, fold=0, groups=())
    assert adapted.vocabulary.recordings == (NEW,)
    fresh = new_model(short, new, adapted.vocabulary)
    assert torch.equal(adapted.model.channels.weight, fresh.channels.weight)
    assert len(adapted.vocabulary.channels) == 4


def test_known_channels_keep_their_vectors(
    trained: Trained, new: dict[str, TaskData], plant: Plant, join: Callable[..., TaskData], short: Recipe
) -> None:
    both = {"move": join(new["move"], plant(curved=True))}
    adapted = adapt(trained, both, short, fold=0, groups=())
    rows = adapted.vocabulary.rows("simulated:planted@1/one", "spikes", ["c0", "c3"])
    assert torch.equal(adapted.model.channels.weight[rows], trained.model.channels.weight[[0, 3]])


def test_shared_channels_are_known_in_another_recording_of_the_dataset(
    plant: Plant, short: Recipe, tmp_path: Path
) -> None:
    source = {"move": plant(modality=EMG)}
    trained = _worn(load_trained(fit(short, source, fold=0, out=tmp_path).path))
    same = adapt(trained, {"move": plant(modality=EMG, recording=NEW)}, short, fold=0, groups=())
    other = adapt(trained, {"move": plant(modality=EMG, recording="simulated:other@1/new")}, short, fold=0, groups=())
    assert torch.equal(same.model.channels.weight, trained.model.channels.weight)
    assert not torch.equal(other.model.channels.weight, trained.model.channels.weight)


def test_the_linear_path_is_that_of_the_new_training_folds(
    trained: Trained, new: dict[str, TaskData], short: Recipe, tmp_path: Path
) -> None:
    adapted = adapt(trained, new, short, fold=0, groups=())
    alone = load_trained(fit(replace(short, optim=replace(short.optim, steps=0)), new, fold=0, out=tmp_path).path)
    assert _same(_parts(adapted, "linear"), _parts(alone, "linear"))
    without = adapt(trained, new, short, fold=0, groups=(), linear=False)
    assert not any(part.any() for part in _parts(without, "linear").values())


def test_the_held_out_fold_changes_no_bit(trained: Trained, new: dict[str, TaskData], short: Recipe) -> None:
    task = new["move"]
    w = task.recordings[0]
    values, target = w.values["spikes"].copy(), w.target.copy()
    values[w.fold == 0], target[w.fold == 0] = 1e6, -1e6
    other = {"move": replace(task, recordings=(replace(w, values={"spikes": values}, target=target),))}
    one, two = adapt(trained, new, short, fold=0), adapt(trained, other, short, fold=0)
    assert _same(one.model.state_dict(), two.model.state_dict())
    assert one.normalisation.mean["spikes"].tobytes() == two.normalisation.mean["spikes"].tobytes()


def test_a_new_task_gets_a_new_head(trained: Trained, plant: Plant, short: Recipe) -> None:
    data = {"pick": plant(kind="class", name="pick", recording=NEW)}
    adapted = adapt(trained, data, short, fold=0, groups=())
    assert list(adapted.tasks) == ["pick"]
    assert not adapted.model.heads[0].out.weight.any()  # type: ignore[union-attr,union-attr]
    assert _same(_parts(adapted, *CORE), _parts(trained, *CORE))


def test_adaptation_learns_from_few_steps(trained: Trained, new: dict[str, TaskData], short: Recipe) -> None:
    losses: list[StepReport] = []
    adapt(trained, new, short, fold=0, linear=False, steps=40, callbacks=[losses.append])
    assert losses[-1].steps == 40
    assert losses[-1].best_valid < next(r.valid for r in losses if r.valid is not None)  # type: ignore[operator]


def test_a_finished_adaptation_is_found(
    trained: Trained, new: dict[str, TaskData], short: Recipe, tmp_path: Path
) -> None:
    told: list[StepReport] = []
    first = adapt(trained, new, short, fold=0, out=tmp_path / "kept", callbacks=[told.append])
    count = len(told)
    again = adapt(trained, new, short, fold=0, out=tmp_path / "kept", callbacks=[told.append])
    assert count == len(told) == 13
    assert _same(first.model.state_dict(), again.model.state_dict())
    adapt(trained, new, short, fold=1, out=tmp_path / "kept")
    adapt(trained, new, short, fold=0, out=tmp_path / "kept", linear=False)
    adapt(trained, new, short, fold=0, out=tmp_path / "kept", groups=("head",))
    assert len(list((tmp_path / "kept").iterdir())) == 4
    assert not list((tmp_path / "kept").rglob("last.pt"))


def test_a_killed_adaptation_goes_on(trained: Trained, new: dict[str, TaskData], short: Recipe, tmp_path: Path) -> None:
    def die(report: StepReport) -> None:
        if report.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(trained, new, short, fold=0, out=tmp_path / "kept", callbacks=[die])
    steps: list[int] = []
    resumed = adapt(trained, new, short, fold=0, out=tmp_path / "kept", callbacks=[lambda r: steps.append(r.step)])
    whole = adapt(trained, new, short, fold=0)
    assert steps[0] == 6
    assert _same(resumed.model.state_dict(), whole.model.state_dict())


def test_what_does_not_fit_is_refused(trained: Trained, new: dict[str, TaskData], short: Recipe, plant: Plant) -> None:
    with pytest.raises(ConfigError, match="recipe.model"):
        adapt(trained, new, replace(short, model=replace(short.model, width=64)), fold=0)
    with pytest.raises(ConfigError, match="got tail"):
        adapt(trained, new, short, fold=0, groups=("tail",))
    with pytest.raises(ConfigError, match="modality 'lfp'"):
        adapt(trained, {"move": plant(modality="lfp", recording=NEW)}, short, fold=0)
    with pytest.raises(ConfigError, match="as it was trained"):
        adapt(trained, {"move": replace(new["move"], names=("y", "x"))}, short, fold=0)
    leaky = replace(new["move"].recordings[0], unit=np.full(24, "one"))
    with pytest.raises(Leakage):
        adapt(trained, {"move": replace(new["move"], recordings=(leaky,))}, short, fold=0)
