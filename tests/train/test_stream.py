"""The torch face of the loader: the same windows, as tensors, with a state that torch can keep."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from neurofmx.lake import Lake
from neurofmx.tokenize.batches import WindowBatch
from neurofmx.tokenize.cursor import Cursor
from neurofmx.tokenize.loader import Loader
from neurofmx.tokenize.mixture import Mixture, Source
from neurofmx.train.stream import WindowDataset, device_batches, open_loader
from neurofmx.types import Channels, Events, Licence, Provenance, Recording, RecordingId, Samples, Subject


@pytest.fixture
def filled(lake: Lake) -> Lake:
    for number, width in enumerate((2, 5)):
        rng, valid = np.random.default_rng(number), np.array([[0.0, 40.0]])
        channels = Channels(ids=tuple(f"c{i}" for i in range(width)))
        spikes = Events(
            times_s=np.sort(rng.uniform(0, 40, 900)),
            codes=rng.integers(0, width, 900).astype(np.int32),
            channels=channels,
            modality="spikes",
            valid=valid,
        )
        lfp = Samples(
            values=rng.integers(-500, 500, (4000, width)).astype(np.int16),
            unit="uV",
            channels=channels,
            modality="lfp",
            valid=valid,
            rate_hz=100.0,
        )
        lake.publish_recording(
            Recording(
                id=RecordingId("a", "b", "1", f"r{number}"),
                streams={"spikes": spikes, "lfp": lfp},
                subject=Subject(id="s1"),
                domain_s=(0.0, 40.0),
                provenance=Provenance(files=(), reader="t@1"),
                licence=Licence(spdx="CC0-1.0"),
            )
        )
    return lake


def mixture(lake: Lake) -> Mixture:
    sources = (Source(recordings=tuple(lake.recording_ids())),)
    return Mixture(sources=sources, streams=("spikes", "lfp"), window_s=1.0, batch=6, epoch=40)


def wanted(lake: Lake, n: int, cursor: Cursor) -> list[WindowBatch]:
    with Loader(lake, mixture(lake), cursor=cursor) as loader:
        return [batch.copied() for _, batch in zip(range(n), loader)]


def assert_same(tensors: Iterable[WindowBatch], arrays: list[WindowBatch]) -> None:
    listed = list(tensors)
    assert len(listed) == len(arrays)
    for one, other in zip(listed, arrays):
        assert one.cursor == other.cursor
        assert isinstance(one.start_s, torch.Tensor)
        np.testing.assert_array_equal(one.start_s.cpu(), other.start_s)
        mine, its = one.samples("lfp"), other.samples("lfp")
        for i in range(len(other)):
            np.testing.assert_array_equal(mine.row(i).cpu(), its.row(i))
        events, others = one.events("spikes"), other.events("spikes")
        np.testing.assert_array_equal(events.times_s.cpu(), others.times_s)
        np.testing.assert_array_equal(events.codes.cpu(), others.codes)


def some(batches: Iterable[WindowBatch], n: int) -> list[WindowBatch]:
    return [batch for _, batch in zip(range(n), batches)]


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


@pytest.mark.parametrize("device", DEVICES)
def test_tensors_on_a_device_outlive_the_loaders_memory(filled: Lake, device: str) -> None:
    with open_loader(filled, mixture(filled), device=device, cursor=Cursor(seed=3), prefetch=1) as loader:
        kept = some(device_batches(loader, device), 25)
    assert {batch.start_s.device.type for batch in kept} == {device}
    assert_same(kept, wanted(filled, 25, Cursor(seed=3)))


def test_device_batches_end_with_their_loader(filled: Lake) -> None:
    with open_loader(filled, mixture(filled), device="cpu", epochs=1) as loader:
        assert sum(len(batch) for batch in device_batches(loader, "cpu")) == 40


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_dataset_gives_the_order_of_one_process(filled: Lake, workers: int) -> None:
    data = WindowDataset(filled.root, mixture(filled), seed=3)
    settings: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": "forkserver"} if workers else {}
    loader = DataLoader(data, batch_size=None, **settings)
    assert_same(some(loader, 9), wanted(filled, 9, Cursor(seed=3)))


def test_a_state_resumes_in_the_middle(filled: Lake, tmp_path: Path) -> None:
    whole = wanted(filled, 12, Cursor(seed=3))
    first = WindowDataset(filled.root, mixture(filled), seed=3)
    assert_same(some(first, 8), whole[:8])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    again = WindowDataset(filled.root, mixture(filled))
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.cursor.epoch == 1
    assert_same(some(again, 4), whole[8:])


def test_ranks_share_what_one_process_reads(filled: Lake) -> None:
    settings: dict[str, Any] = {"seed": 3, "epochs": 1, "ranks": 2}
    shared = [b for rank in range(2) for b in WindowDataset(filled.root, mixture(filled), rank=rank, **settings)]
    with Loader(filled, mixture(filled), cursor=Cursor(seed=3), epochs=1) as loader:
        alone = np.concatenate([b.start_s.copy() for b in loader])
    assert sorted(torch.cat([b.start_s for b in shared]).tolist()) == sorted(alone.tolist())
