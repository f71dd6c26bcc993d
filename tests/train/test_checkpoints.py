"""What is written is read back to the bit, or refused with its name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neurofmx.errors import ConfigError, MalformedFile, NotThere
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import Trained, load_trained, new_model, read_checked, save_trained, write_atomic
from neurofmx.train.loop import untrained
from neurofmx.train.recipes import Recipe

Plant = Callable[..., TaskData]


def _trained(data: dict[str, TaskData], recipe: Recipe) -> Trained:
    trained = untrained(recipe, data, fold=0)
    for head in trained.model.heads:
        torch.nn.init.normal_(head.out.weight, std=0.1)  # type: ignore[union-attr,arg-type]
    return trained


@pytest.fixture
def data(plant: Plant) -> dict[str, TaskData]:
    return {"move": plant(), "pick": plant(kind="class", name="pick")}


def test_a_model_answers_the_same_after_saving(data: dict[str, TaskData], short: Recipe, tmp_path: Path) -> None:
    trained = _trained(data, short)
    save_trained(trained, tmp_path / "model.pt")
    for path in (tmp_path, tmp_path / "model.pt"):
        loaded = load_trained(path)
        assert (loaded.recipe, loaded.vocabulary, loaded.tasks) == (short, trained.vocabulary, trained.tasks)
        assert not loaded.model.training
        for task, held in data.items():
            windows = held.recordings[0]
            assert np.array_equal(loaded.predict(task, windows), trained.predict(task, windows))


def test_predictions_are_in_the_units_of_the_target(plant: Plant, short: Recipe) -> None:
    task = plant()
    windows = task.recordings[0]
    scaled = {"move": replace(task, recordings=(replace(windows, target=windows.target * 100 + 7),))}
    one = _trained({"move": task}, short).predict("move", windows)
    torch.manual_seed(0)
    other = untrained(short, scaled, fold=0)
    other.model.load_state_dict(_trained({"move": task}, short).model.state_dict())
    assert other.normalisation.target_mean["move"] == pytest.approx(
        untrained(short, {"move": task}, fold=0).normalisation.target_mean["move"] * 100 + 7, rel=1e-3
    )
    assert one.dtype == np.float32
    assert other.predict("move", windows).std() == pytest.approx(100 * one.std(), rel=0.5)


def test_class_probabilities_sum_to_one(data: dict[str, TaskData], short: Recipe) -> None:
    predicted = _trained(data, short).predict("pick", data["pick"].recordings[0], [3, 1])
    assert predicted.shape == (2, 3)
    np.testing.assert_allclose(predicted.sum(1), 1, rtol=1e-5)


def test_predictions_do_not_depend_on_how_windows_are_cut(plant: Plant, short: Recipe) -> None:
    task = plant(windows=150)
    trained = _trained({"move": task}, short)
    windows = task.recordings[0]
    whole = trained.predict("move", windows)
    assert whole.shape == (150, 12, 2)
    np.testing.assert_allclose(trained.predict("move", windows, [140, 2]), whole[[140, 2]], rtol=1e-4, atol=1e-5)


def test_features_are_what_the_sites_hold(data: dict[str, TaskData], short: Recipe) -> None:
    features = _trained(data, short).features("move", data["move"].recordings[0], [0, 5])
    assert list(features) == ["population", "block.0", "fusion"]
    assert {a.shape for a in features.values()} == {(2, 12, 32)}


def test_unknown_tasks_and_recordings_are_refused(data: dict[str, TaskData], short: Recipe, plant: Plant) -> None:
    trained = _trained(data, short)
    with pytest.raises(NotThere, match=r"one of \['move', 'pick'\]"):
        trained.predict("fly", data["move"].recordings[0])
    with pytest.raises(ConfigError, match="train.adapt"):
        trained.predict("move", plant(recording="simulated:planted@1/two").recordings[0])


def test_weights_are_a_function_of_the_seed(data: dict[str, TaskData], short: Recipe) -> None:
    book = untrained(short, data).vocabulary
    one, two = (new_model(short, data, book).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    other = new_model(replace(short, seed=1), data, book).state_dict()
    assert not torch.equal(one["channels.weight"], other["channels.weight"])


def test_what_is_not_there_or_not_whole_is_named(data: dict[str, TaskData], short: Recipe, tmp_path: Path) -> None:
    with pytest.raises(NotThere, match="model.pt"):
        load_trained(tmp_path)
    save_trained(_trained(data, short), tmp_path / "model.pt")
    content = (tmp_path / "model.pt").read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for broken in (b"", b"text", content[:1000], content[:-100], bytes(flipped)):
        (tmp_path / "model.pt").write_bytes(broken)
        with pytest.raises(MalformedFile, match="model.pt"):
            load_trained(tmp_path)


class _Loud:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (Path.touch, (Path("ran"),))  # type: ignore[return-value]


def test_a_checkpoint_runs_nobodys_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pt").write_bytes(pickle.dumps(_Loud()))
    torch.save({"x": _Loud()}, tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        with pytest.raises(MalformedFile):
            read_checked(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_atomic(path, {"step": 1})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        write_atomic(path, {"step": 2, "bad": lambda: None})
    assert read_checked(path) == {"step": 1}
