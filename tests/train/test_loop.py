"""A run is a function of recipe, data and fold, whatever kills it in between; it keeps the best and touches no more."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neurofmx.errors import Leakage, MalformedFile
from neurofmx.provenance import canonical_json
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import load_trained, new_model
from neurofmx.train.feed import make_feed
from neurofmx.train.linear import linear_start
from neurofmx.train.loop import (
    RunResult,
    StepReport,
    data_digest,
    finished,
    fit,
    learning_rate,
    optimise,
    set_linear,
    untrained,
)
from neurofmx.train.recipes import OptimConfig, Recipe, laptop

Plant = Callable[..., TaskData]


class Killed(Exception):
    """Stands for a power cut in the middle of a step's callbacks."""


def _weights(result: RunResult) -> dict[str, torch.Tensor]:
    return load_trained(result.path).model.state_dict()


def _same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def _r2(truth: np.ndarray, predicted: np.ndarray) -> float:
    return 1 - float(np.square(truth - predicted).sum() / np.square(truth - truth.mean((0, 1))).sum())


@pytest.mark.parametrize("kind", ["continuous", "class"])
def test_the_same_run_gives_the_same_bits(plant: Plant, short: Recipe, tmp_path: Path, kind: str) -> None:
    data = {"move": plant(kind=kind)}
    one = fit(short, data, fold=0, out=tmp_path / "a")
    two = fit(short, data, fold=0, out=tmp_path / "b")
    assert one.run_id == two.run_id
    assert _same(_weights(one), _weights(two))
    assert repr(one.history) == repr(two.history)


@pytest.mark.parametrize("at", [3, 7, 11, 12])
def test_a_run_that_died_goes_on_to_the_same_bits(plant: Plant, short: Recipe, tmp_path: Path, at: int) -> None:
    data = {"move": plant(curved=True)}

    def die(report: StepReport) -> None:
        if report.step == at:
            raise Killed

    with pytest.raises(Killed):
        fit(short, data, fold=0, out=tmp_path / "a", callbacks=[die])
    assert finished(short, data, 0, tmp_path / "a") is None
    steps: list[int] = []
    resumed = fit(short, data, fold=0, out=tmp_path / "a", callbacks=[lambda r: steps.append(r.step)])
    whole = fit(short, data, fold=0, out=tmp_path / "b")
    assert steps[-1] == resumed.steps == 12
    assert steps[0] == (0 if at < 5 else at // 5 * 5 + 1)
    assert _same(_weights(resumed), _weights(whole))
    assert (repr(resumed.history), resumed.best_step) == (repr(whole.history), whole.best_step)


CHILD = """
import pickle, sys, time
from pathlib import Path
from neurofmx.train.loop import fit
recipe, data = pickle.loads(Path(sys.argv[1]).read_bytes())
def tell(report):
    print(report.step, flush=True)
    if report.step == int(sys.argv[3]):
        time.sleep(600)  # until it is killed: a slow parent must not be outrun
fit(recipe, data, fold=0, out=Path(sys.argv[2]), callbacks=[tell])
"""


@pytest.mark.slow
def test_kill_minus_nine_in_the_middle_changes_no_bit(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    recipe = replace(short, optim=replace(short.optim, steps=60), stop=replace(short.stop, patience=99, save_every=7))
    data = {"move": plant(curved=True, windows=40)}
    (tmp_path / "job").write_bytes(pickle.dumps((recipe, data)))
    for step in ("17", "40"):
        command = [sys.executable, "-c", CHILD, str(tmp_path / "job"), str(tmp_path / "a"), step]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.strip() == step:
                    child.kill()
                    break
        assert child.returncode == -9
        assert finished(recipe, data, 0, tmp_path / "a") is None
    steps: list[int] = []
    resumed = fit(recipe, data, fold=0, out=tmp_path / "a", callbacks=[lambda r: steps.append(r.step)])
    whole = fit(recipe, data, fold=0, out=tmp_path / "b")
    assert steps[0] > 28
    assert _same(_weights(resumed), _weights(whole))


def test_a_finished_run_is_found_and_not_trained_again(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    data = {"move": plant()}
    first = fit(short, data, fold=0, out=tmp_path)
    told: list[StepReport] = []
    again = fit(short, data, fold=0, out=tmp_path, callbacks=[told.append])
    assert told == []
    found = finished(short, data, 0, tmp_path)
    assert found is not None
    assert canonical_json(vars(again)) == canonical_json(vars(first)) == canonical_json(vars(found))
    anew = fit(short, data, fold=0, out=tmp_path, callbacks=[told.append], resume=False)
    assert len(told) == 13
    assert anew.run_id == first.run_id


def test_run_ids_tell_recipe_data_and_fold_apart(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    none = replace(short, optim=replace(short.optim, steps=0))
    runs = [
        fit(none, {"move": plant()}, fold=0, out=tmp_path),
        fit(none, {"move": plant()}, fold=1, out=tmp_path),
        fit(none, {"move": plant()}, fold=None, out=tmp_path),
        fit(none, {"move": plant(seed=1)}, fold=0, out=tmp_path),
        fit(replace(none, seed=1), {"move": plant()}, fold=0, out=tmp_path),
    ]
    assert len({run.run_id for run in runs}) == 5


def test_data_digest_sees_every_field(plant: Plant) -> None:
    task = plant()
    w = task.recordings[0]
    flipped = ~w.mask["spikes"]
    changes = [
        {"recording": "simulated:planted@1/two"},
        {"values": {"spikes": w.values["spikes"] + 1}},
        {"mask": {"spikes": flipped}},
        {"channels": {"spikes": ("z", *w.channels["spikes"][1:])}},
        {"start_s": w.start_s + 1},
        {"target": w.target + 1},
        {"target_mask": ~w.target_mask},
        {"fold": w.fold + 1},
        {"unit": np.char.add(w.unit, "x")},
    ]
    tasks = [task] + [replace(task, recordings=(replace(w, **change),)) for change in changes]
    tasks += [replace(task, names=("x", "z")), replace(task, fields={"spikes": ("other",)})]
    assert len({data_digest({"move": t}) for t in tasks}) == len(tasks)
    assert data_digest({"move": task}) == data_digest({"move": plant()})


def test_held_out_windows_change_no_bit_of_the_model(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    task = plant()
    w = task.recordings[0]
    values, target = w.values["spikes"].copy(), w.target.copy()
    values[w.fold == 0], target[w.fold == 0] = 1e6, -1e6
    other = replace(task, recordings=(replace(w, values={"spikes": values}, target=target),))
    one = fit(short, {"move": task}, fold=0, out=tmp_path)
    two = fit(short, {"move": other}, fold=0, out=tmp_path)
    assert one.run_id != two.run_id
    assert _same(_weights(one), _weights(two))


@pytest.mark.parametrize("name", ["last.pt", "linear.pt"])
def test_a_damaged_checkpoint_is_named(plant: Plant, short: Recipe, tmp_path: Path, name: str) -> None:
    data = {"move": plant()}
    result = fit(short, data, fold=0, out=tmp_path)
    (result.path / "run.json").unlink()
    whole = (result.path / name).read_bytes()
    (result.path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MalformedFile, match=f"{name}.*Delete it and train again"):
        fit(short, data, fold=0, out=tmp_path)
    (result.path / name).unlink()
    assert fit(short, data, fold=0, out=tmp_path).best_step == result.best_step


def test_leakage_stops_a_run(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    task = plant()
    leaky = replace(task, recordings=(replace(task.recordings[0], unit=np.full(24, "one")),))
    with pytest.raises(Leakage):
        fit(short, {"move": leaky}, fold=0, out=tmp_path)


def test_the_best_model_is_kept(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    task = plant()
    random = np.random.default_rng(9).standard_normal(task.recordings[0].target.shape).astype(np.float32)
    noise = {"move": replace(task, recordings=(replace(task.recordings[0], target=random),))}
    recipe = replace(
        short, optim=replace(short.optim, steps=80, lr=0.02), stop=replace(short.stop, every=2, patience=3)
    )
    result = fit(recipe, noise, fold=0, out=tmp_path)
    losses = {row["step"]: row["valid"] for row in result.history}
    assert result.steps < 80
    assert result.best_valid == min(losses.values()) == losses[result.best_step]
    assert result.steps == result.best_step + 6
    assert 0 <= result.kept["move"] <= 1


def test_callbacks_are_told_every_step_and_the_start(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    told: list[StepReport] = []
    fit(short, {"move": plant()}, fold=0, out=tmp_path, callbacks=[told.append])
    assert [r.step for r in told] == list(range(13))
    assert [r.step for r in told if r.valid is not None] == [0, 4, 8, 12]
    assert math.isnan(told[0].loss)
    assert all(math.isfinite(r.loss) for r in told[1:])


@pytest.mark.parametrize("groups", [("channels",), ("head",), ("core",), ("channels", "head")])
def test_groups_that_do_not_learn_keep_every_bit(plant: Plant, short: Recipe, groups: tuple[str, ...]) -> None:
    data = {"move": plant(curved=True)}
    feed = make_feed(data, fold=0, config=short.feed, seed=0)
    start = linear_start(feed, short.linear, short.model.lags)
    model = new_model(short, data, feed.vocabulary)
    for head in model.heads:
        torch.nn.init.normal_(head.out.weight, std=0.01)  # type: ignore[union-attr,arg-type]
    set_linear(model, start)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learning = {id(p) for name in groups for p in model.group(name)}
    last: list[StepReport] = []
    optimise(model, feed, start, short, groups=groups, path=None, callbacks=[last.append])
    average = dict(last[-1].model.named_parameters())
    for name, parameter in model.named_parameters():
        if id(parameter) not in learning:
            assert torch.equal(parameter, before[name]), name
            assert torch.equal(average[name], before[name]), name
    assert any(not torch.equal(average[n], before[n]) for n, p in model.named_parameters() if id(p) in learning)


def test_global_random_state_is_left_alone(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(short, {"move": plant()}, fold=0, out=tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    config = OptimConfig(lr=1.0, warmup=4)
    rates = [learning_rate(step, 104, config) for step in range(105)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[54] == pytest.approx(0.505)
    assert rates[104] == pytest.approx(0.01)
    assert all(a >= b for a, b in zip(rates[4:], rates[5:]))


def test_an_untrained_network_says_the_mean(plant: Plant, short: Recipe) -> None:
    data = {"move": plant()}
    trained = untrained(short, data, fold=0)
    predicted = trained.predict("move", data["move"].recordings[0])
    np.testing.assert_allclose(predicted, np.broadcast_to(trained.normalisation.target_mean["move"], predicted.shape))


def test_two_tasks_learn_together(plant: Plant, short: Recipe, tmp_path: Path) -> None:
    data = {"move": plant(), "pick": plant(kind="class", name="pick", recording="simulated:planted@1/two")}
    trained = load_trained(fit(short, data, fold=0, out=tmp_path).path)
    assert trained.predict("move", data["move"].recordings[0]).shape == (24, 12, 2)
    assert trained.predict("pick", data["pick"].recordings[0]).shape == (24, 3)


@pytest.mark.slow
def test_a_curved_target_is_beyond_the_linear_path(plant: Plant, tmp_path: Path) -> None:
    task = plant(curved=True, windows=200, bins=20)
    recipe = laptop()
    result = fit(recipe, {"move": task}, fold=0, out=tmp_path)
    trained = load_trained(result.path)
    windows = task.recordings[0]
    held = np.flatnonzero(windows.fold == 0)
    whole = _r2(windows.target[held], trained.predict("move", windows, held))
    for head in trained.model.heads:  # without its heads the network is its linear path
        torch.nn.init.zeros_(head.out.weight)  # type: ignore[union-attr,arg-type]
        torch.nn.init.zeros_(head.out.bias)  # type: ignore[union-attr,arg-type]
    alone = _r2(windows.target[held], trained.predict("move", windows, held))
    assert alone < 0.1
    assert whole > alone + 0.4
