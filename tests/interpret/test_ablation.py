from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from neurofmx.interpret import ablation, answers
from neurofmx.interpret.activations import held_out, initial
from neurofmx.interpret.catalog import analysis_for
from neurofmx.interpret.channels import MAX_GROUPS, channel_groups, random_groups
from neurofmx.interpret.runner import Data, run
from neurofmx.interpret.terms import Metric
from neurofmx.tokenize.windows import RecordingWindows, TaskData
from neurofmx.train.checkpoints import Trained, load_trained
from neurofmx.train.loop import fit
from neurofmx.train.recipes import OptimConfig, tiny

FOLDS, PER_UNIT, BINS, CHANNELS = 2, 4, 10, 6
UNITS = 12
PLANTED = 2


def made(kind: str, *, seed: int = 0, recording: str = "sim:a@1/r") -> RecordingWindows:
    """Windows of white channels, of which one alone carries the target."""
    rng = np.random.default_rng(seed)
    n = UNITS * PER_UNIT
    values = rng.standard_normal((n, BINS, CHANNELS, 1)).astype(np.float32)
    if kind == "class":
        target = rng.integers(2, size=n)
        values[:, :, PLANTED, 0] += 2 * (2 * target[:, None] - 1)
        known = np.ones(n, dtype=bool)
    else:
        target = (values[:, :, PLANTED] + 0.3 * rng.standard_normal((n, BINS, 1))).astype(np.float32)
        known = np.ones((n, BINS), dtype=bool)
    unit = np.arange(n) // PER_UNIT
    return RecordingWindows(
        recording=recording, values={"lfp": values}, mask={"lfp": np.ones((n, BINS, CHANNELS), bool)},
        channels={"lfp": tuple(f"c{i}" for i in range(CHANNELS))}, start_s=np.arange(n) * 1.0, dt_s=0.1,
        target=target, target_mask=known, fold=(unit % FOLDS).astype(np.int8),
        unit=np.array([f"{recording}#{u}" for u in unit]),
    )  # fmt: skip


def task_of(kind: str, *windows: RecordingWindows) -> TaskData:
    names = ("no", "yes") if kind == "class" else ("y",)
    return TaskData(name="task", kind=kind, names=names, recordings=windows, fields={"lfp": ("value",)})  # type: ignore[arg-type]


def networks(data: TaskData, out: Path) -> dict[int, Trained]:
    recipe = replace(tiny(), optim=OptimConfig(steps=20, warmup=2))
    # the network's validation needs a third fold: the folds alternate, so the other one is cut in two
    halves = [
        replace(w, fold=np.where(w.start_s % 24 < 12, w.fold, w.fold + 2).astype(np.int8)) for w in data.recordings
    ]
    data = replace(data, recordings=tuple(halves))
    return {fold: load_trained(fit(recipe, {"task": data}, fold=fold, out=out).path) for fold in range(FOLDS)}


@pytest.fixture(scope="module", params=["continuous", "class"])
def planted(request, tmp_path_factory) -> tuple[TaskData, dict[int, Trained]]:
    data = task_of(request.param, made(request.param))
    return data, networks(data, tmp_path_factory.mktemp("runs"))


def ablated(data: TaskData, trained: dict[int, Trained]):
    parts, _ = held_out(data, trained)
    groups = channel_groups(data, {})
    return groups, answers.ablate_channels(data, trained, parts, groups, seed=0)


def score_of(data: TaskData) -> Metric:
    return "balanced_accuracy" if data.kind == "class" else "r2"


def as_data(said: answers.Predictions) -> Data:
    return said.as_data("task", confirmatory=False, provenance={})


def test_the_planted_channel_ranks_first_and_the_others_lose_nothing(planted) -> None:
    data, trained = planted
    groups, said = ablated(data, trained)
    assert [g.name for g in groups] == [f"lfp c{i}" for i in range(CHANNELS)]
    found = run(analysis_for("channel_ablation", score_of(data)), as_data(said), seed=0)
    drop, p = found.arrays["drop"], found.arrays["p"]
    assert found.status == "significant" and int(drop.argmax()) == PLANTED and found.value == drop[PLANTED] > 0.3
    others = np.arange(CHANNELS) != PLANTED
    assert np.abs(drop[others]).max() < 0.1 and p[others].min() > 0.1
    assert found.arrays["drop_mean"][PLANTED] > 0.3
    assert found.ci95[0] > 0.2


def test_answers_are_those_that_the_network_gives_to_windows_so_changed(planted) -> None:
    data, trained = planted
    parts, _ = held_out(data, trained)
    part = parts[0]
    network, windows = trained[part.fold], part.windows
    batch = network.batch("task", windows, part.rows)
    partner = np.roll(np.arange(len(part.rows)), 5)
    said = answers._swapped(network, "task", batch, [({"lfp": [1, 4]}, partner), ({"lfp": [PLANTED]}, None)])
    moved = windows.take(part.rows)
    values = moved.values["lfp"].copy()
    values[:, :, [1, 4]] = values[partner][:, :, [1, 4]]
    np.testing.assert_allclose(said[:, 0], network.predict("task", replace(moved, values={"lfp": values})), atol=1e-5)
    values = moved.values["lfp"].copy()
    row = network.vocabulary.rows(windows.recording, "lfp", ["c2"])
    values[:, :, PLANTED] = network.normalisation.mean["lfp"][row]
    np.testing.assert_allclose(said[:, 1], network.predict("task", replace(moved, values={"lfp": values})), atol=1e-5)


def stirred(trained: dict[int, Trained]) -> dict[int, Trained]:
    """The same networks with a head that reads the latents, which the linear path alone does not need here."""
    found = {}
    for fold, network in trained.items():
        model = deepcopy(network.model)
        drawn = torch.Generator().manual_seed(0)
        for parameter in model.group("head"):
            torch.nn.init.normal_(parameter, std=0.3, generator=drawn)
        found[fold] = replace(network, model=model)
    return found


def test_a_block_is_replaced_by_what_it_adds_elsewhere(planted) -> None:
    data, trained = planted
    trained = stirred(trained)
    parts, _ = held_out(data, trained)
    said = answers.ablate_block(data, trained, parts, 0, seed=0)
    n, outputs = len(said.unit), said.arrays["intact"].shape[1:]
    assert said.arrays["without"].shape == (n, answers.EXCHANGES, *outputs)
    assert said.arrays["turned"].shape == (n, answers.TURNS, *outputs)
    found = run(analysis_for("block_ablation", score_of(data)), as_data(said), seed=0)
    assert len(found.null) == answers.TURNS and found.status in ("significant", "not significant")


def test_pushes_move_the_site_and_nothing_else(planted) -> None:
    data, trained = planted
    part = held_out(data, trained)[0][0]
    network = stirred(trained)[part.fold]
    batch = network.batch("task", part.windows, part.rows)
    before, after = answers._held(network, "task", batch, ("population", "block.0"))
    whole = network.predict("task", part.windows, part.rows)
    push = 0.5 * torch.randn(after[0].shape, generator=torch.Generator().manual_seed(1))
    pushes = [[torch.zeros_like(push)], [before[0] - after[0]], [push]]
    said = answers._pushed(network, "task", batch, 0, after, pushes)
    np.testing.assert_allclose(said[:, 0], whole, atol=1e-5)
    for place, edit in ((1, lambda tokens: before[0]), (2, lambda tokens: tokens + push)):
        with torch.no_grad():
            decoded = network.model(batch, "task", edits={"block.0": edit}).decode
        np.testing.assert_allclose(said[:, place], answers._in_units(network, "task", decoded), atol=1e-4)
    assert np.abs(said[:, 1] - whole).max() > 1e-3


def test_blocks_and_networks_that_no_answer_hangs_on_are_invalid(planted) -> None:
    data, trained = planted
    dull = {fold: initial(network) for fold, network in trained.items()}  # heads begin at zero, no linear path
    parts, _ = held_out(data, dull)
    for name, said in (
        ("channel_ablation", ablated(data, dull)[1]),
        ("block_ablation", answers.ablate_block(data, dull, parts, 0, seed=0)),
    ):
        found = run(analysis_for(name, score_of(data)), as_data(said), seed=0)
        assert found.status == "invalid" and found.reason


@pytest.mark.parametrize("special", [True, False])
def test_a_block_counts_when_it_loses_more_than_pushes_of_its_size(special: bool) -> None:
    rng, n = np.random.default_rng(1), 200
    y = rng.standard_normal((n, 1))

    def said(noise: float, *many: int) -> np.ndarray:
        return y.reshape(n, *[1] * len(many), 1) + noise * rng.standard_normal((n, *many, 1))

    arrays = {"y": y, "intact": said(0.1), "without": said(0.8, 2), "mean": said(0.5)}
    arrays["turned"] = said(0.2 if special else 0.8, answers.TURNS)
    unit = (np.arange(n) // 20).astype(str)
    given = answers.Predictions(arrays=arrays, unit=unit, session=np.full(n, "s"), model=np.zeros(n, int))
    found = run(analysis_for("block_ablation", "r2"), as_data(given), seed=0)
    lost = np.mean([r2_score(y, arrays["without"][:, i]) for i in range(2)])
    assert found.value == pytest.approx(r2_score(y, arrays["intact"]) - lost) and found.ci95[0] > 0
    assert (found.status == "significant") == special


def test_p_of_groups_that_carry_nothing_holds_its_level_over_their_number() -> None:
    rng, low = np.random.default_rng(2), 0
    unit = np.repeat(np.arange(10), 10).astype(str)
    for _ in range(200):
        y = rng.standard_normal((100, 1))
        noise = rng.standard_normal((100, 9, 1))  # intact and eight groups err alike
        arrays = {
            "y": y,
            "intact": y + noise[:, 0],
            "without": (y[:, None] + noise[:, 1:])[:, :, None],
            "mean": y[:, None],
        }
        given = answers.Predictions(arrays=arrays, unit=unit, session=np.full(100, "s"), model=np.zeros(100, int))
        low += ablation.channel_ablation(as_data(given), rng, 199, metric="r2").arrays["p"].min() <= 0.05
    assert low / 200 <= 0.09


def test_groups_are_regions_or_channels_or_stretches() -> None:
    one, two = made("continuous"), made("continuous", recording="sim:a@1/s")
    assert len(channel_groups(task_of("continuous", one, two), {})) == CHANNELS
    regions = {("sim:a@1/r", "lfp", f"c{i}"): "V1" if i < 4 else "CA1" for i in range(CHANNELS)}
    groups = channel_groups(task_of("continuous", one), regions)
    assert [(g.name, len(g.channels)) for g in groups] == [("lfp V1", 4), ("lfp CA1", 2)]
    many = replace(one, channels={"lfp": tuple(f"u{i}" for i in range(40))})
    groups = channel_groups(task_of("continuous", many), {})
    assert len(groups) == MAX_GROUPS and groups[0].name == "lfp u0 to u4"
    assert sum(len(g.channels) for g in groups) == 40
    dealt = random_groups(groups, np.random.default_rng(0))
    assert [len(g.channels) for g in dealt] == [len(g.channels) for g in groups]
    assert frozenset().union(*(g.channels for g in dealt)) == frozenset().union(*(g.channels for g in groups))


def test_partners_are_other_windows() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 10):
        for partner in answers._partners(n, 2, rng):
            assert sorted(partner) == list(range(n)) and (partner != np.arange(n)).all()
