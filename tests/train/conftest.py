"""Small planted tasks whose answer is known, and recipes of a few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from neurofmx.tokenize.windows import RecordingWindows, TaskData
from neurofmx.train.recipes import Recipe, tiny

RECORDING = "simulated:planted@1/one"


def planted(
    *,
    recording: str = RECORDING,
    kind: str = "continuous",
    windows: int = 24,
    bins: int = 12,
    channels: int = 5,
    folds: int = 4,
    seed: int = 0,
    law: int = 0,
    curved: bool = False,
    modality: str = "spikes",
    name: str = "move",
) -> TaskData:
    """Windows whose target is a fixed function of the channels; two windows in a row are one unit of one fold."""
    random, fixed = np.random.default_rng(seed), np.random.default_rng(1000 + law)
    values = random.standard_normal((windows, bins, channels, 1)).astype(np.float32)
    mixing = fixed.standard_normal((channels, 3))
    latent = values[..., 0] @ mixing
    if kind == "class":
        target = latent.mean(1).argmax(1)
        known = np.ones(windows, dtype=bool)
        names: tuple[str, ...] = ("a", "b", "c")
    else:
        straight = latent[..., :2] + 0.1 * random.standard_normal((windows, bins, 2))
        target = (np.abs(latent[..., :2]) - 1.0 if curved else straight).astype(np.float32)
        known = np.ones((windows, bins), dtype=bool)
        names = ("x", "y")
    block = np.arange(windows) // 2
    held = RecordingWindows(
        recording=recording,
        values={modality: values},
        mask={modality: np.ones((windows, bins, channels), dtype=bool)},
        channels={modality: tuple(f"c{i}" for i in range(channels))},
        start_s=np.arange(windows) * bins * 0.05,
        dt_s=0.05,
        target=target,
        target_mask=known,
        fold=(block % folds).astype(np.int8),
        unit=np.array([f"{recording}#{b}" for b in block]),
    )
    return TaskData(name=name, kind=kind, names=names, recordings=(held,), fields={modality: ("value",)})  # type: ignore[arg-type]


def joined(*tasks: TaskData) -> TaskData:
    """One task over the recordings of several."""
    return replace(tasks[0], recordings=tuple(w for task in tasks for w in task.recordings))


@pytest.fixture
def plant() -> Callable[..., TaskData]:
    return planted


@pytest.fixture
def join() -> Callable[..., TaskData]:
    return joined


@pytest.fixture
def short() -> Recipe:
    recipe = tiny()
    return replace(
        recipe,
        optim=replace(recipe.optim, steps=12, warmup=2, average=0.5),
        feed=replace(recipe.feed, bins=48),
        stop=replace(recipe.stop, every=4, save_every=5),
    )
