"""Training on the CPU: processes side by side, the convolution, what feeding costs."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from bench.figure import Figure, at_least, at_most, in_turn
from neurofmx.evaluate.build import task_data_of
from neurofmx.evaluate.tasks import TASKS
from neurofmx.ingest.simulate import sessions, simulate
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.feed import make_feed
from neurofmx.train.folds import Network, fit_networks
from neurofmx.train.loop import fit
from neurofmx.train.recipes import laptop
from neurofmx.types import RecordingId


def figures() -> list[Figure]:
    """Two networks of recipe laptop, 150 steps each, on one simulated session of four minutes and 40 units."""
    one = sessions("lorenz-transfer")[0]
    recording = simulate(one.spec, RecordingId("simulated", "lorenz-transfer", "1", one.name))[0]
    task = TASKS["sim-lorenz-behaviour"]
    return [*_networks(task_data_of(task, [recording])), _convolution()]


def _networks(data: TaskData) -> list[Figure]:
    recipe = laptop()
    recipe = replace(recipe, optim=replace(recipe.optim, steps=150), stop=replace(recipe.stop, patience=100))
    held = {data.name: data}
    networks = [Network(data=held, fold=fold, name=str(fold)) for fold in (0, 1)]
    before = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        turns = iter(range(1000))

        def out() -> Path:
            return Path(folder) / str(next(turns))

        together, alone, _ = in_turn(
            lambda: fit_networks(recipe, networks, out=out(), workers=2),
            lambda: fit_networks(recipe, networks, out=out(), workers=1),
            repeats=1,
        )
        torch.set_num_threads(1)
        feed = make_feed(held, fold=0, config=recipe.feed, seed=0)
        order = feed.order(0)

        def feeding() -> None:
            for step in range(150):
                feed.batch(*order[step % len(order)])

        fed, trained, share = in_turn(feeding, lambda: fit(recipe, held, fold=0, out=out()), repeats=3)
    torch.set_num_threads(before)
    return [
        at_least("one process for two networks over a process each, start of processes included", alone / together, "x",
                 1.2, one_process_s=alone, two_processes_s=together),
        at_most("making batches, share of a run on one core", share, "x", 0.1, batches_s=fed, run_s=trained),
    ]  # fmt: skip


def _convolution() -> Figure:
    """Forward and backward of a depthwise convolution of four taps over 160 channels, 40 bins, 10 windows."""
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((10, 40, 160)).astype(np.float32)).requires_grad_()
    weight = torch.randn(160, 1, 4, requires_grad=True)

    def shifted() -> None:
        padded = F.pad(x, (0, 0, 3, 0))
        sum(padded[:, tap : tap + 40] * weight[:, 0, tap] for tap in range(4)).sum().backward()  # type: ignore[union-attr]

    def conv1d() -> None:
        F.conv1d(F.pad(x.transpose(1, 2), (3, 0)), weight, groups=160).sum().backward()

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    ours, theirs, ratio = in_turn(shifted, conv1d, repeats=50)
    torch.set_num_threads(before)
    what = "torch's depthwise conv1d over shifted sums, forward and backward, one core"
    return at_least(what, 1 / ratio, "x", 1.5, conv1d_ms=theirs * 1e3, shifted_ms=ours * 1e3)
