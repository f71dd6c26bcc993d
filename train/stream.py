"""Windows from the lake as tensors: on a device by copies that do not wait, or through torch's own data classes.

Reading is `tokenize.loader`'s, in threads of this process; here are only pinned memory, copies and a state that torch
can keep. A training loop takes `device_batches`; `WindowDataset` is for those who want a `DataLoader`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from neurofmx.config import from_plain
from neurofmx.lake import Lake
from neurofmx.tokenize.batches import WindowBatch
from neurofmx.tokenize.cursor import Cursor
from neurofmx.tokenize.loader import Loader, in_memory
from neurofmx.tokenize.mixture import Mixture

_HELD = 2  # batches that stay valid: one on its way to the device, one just taken


def pinned(n_bytes: int) -> np.ndarray:
    """Page-locked memory for buffers, from which a device copies without waiting."""
    return torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True).numpy()


def open_loader(lake: Lake, mixture: Mixture, *, device: torch.device | str, **settings: Any) -> Loader:
    """A loader whose buffers suit `device_batches`.

    Args:
        lake: where the recordings are.
        mixture: what to read.
        device: where the batches go; under Fabric ``fabric.device``.
        settings: of `Loader`: cursor, threads, prefetch, epochs; under Fabric ``rank=fabric.global_rank`` and
            ``ranks=fabric.world_size``.
    """
    on_gpu = torch.device(device).type == "cuda"
    return Loader(lake, mixture, held=_HELD, allocate=pinned if on_gpu else in_memory, **settings)


def device_batches(loader: Loader, device: torch.device | str) -> Iterator[WindowBatch]:
    """The loader's batches as tensors on a device, in memory of their own.

    On CUDA the copies run on a stream of their own beside the step before; the current stream waits for them, Python
    does not. ``batch.cursor`` is what a checkpoint keeps.

    Args:
        loader: from `open_loader`.
        device: where to.
    """
    device = torch.device(device)
    if device.type != "cuda":
        for batch in loader:
            yield batch.mapped(lambda array: torch.from_numpy(array).to(device, copy=True))
        return
    aside, copied = torch.cuda.Stream(device), deque[torch.cuda.Event]()
    while True:
        if len(copied) == _HELD:
            copied.popleft().synchronize()  # the loader is about to use that batch's memory again
        batch = next(loader, None)
        if batch is None:
            return
        with torch.cuda.stream(aside):
            moved = batch.mapped(lambda array: torch.from_numpy(array).to(device, non_blocking=True))
            copied.append(torch.cuda.Event())
            copied[-1].record(aside)
        yield _handed_over(moved, copied[-1], torch.cuda.current_stream(device))


def _handed_over(batch: WindowBatch, copied: torch.cuda.Event, stream: torch.cuda.Stream) -> WindowBatch:
    """Makes a stream wait for the copies, and keeps their memory from being given away before it is done."""

    def used(tensor: torch.Tensor) -> torch.Tensor:
        tensor.record_stream(stream)
        return tensor

    stream.wait_event(copied)
    return batch.mapped(used)


class WindowDataset(IterableDataset):
    """The same batches, in the same order, as an iterable dataset; use it with ``batch_size=None``.

    Workers take turns, so a `DataLoader` gives them in the order of one process whatever the number of workers. In
    one process `state_dict` says where it stands; with workers save ``batch.cursor`` of the last batch taken and
    give it to `load_state_dict` as ``dataclasses.asdict(cursor)``.

    Args:
        lake: the lake's folder or address.
        mixture: what to read.
        seed: of the order.
        settings: of `Loader`: rank, ranks, threads, prefetch, epochs.
    """

    def __init__(self, lake: Path | str, mixture: Mixture, *, seed: int = 0, **settings: Any) -> None:
        super().__init__()
        self.lake, self.mixture, self.settings = lake, mixture, settings
        self.cursor = Cursor(seed=seed)

    def __iter__(self) -> Iterator[WindowBatch]:
        worker = get_worker_info()
        turn = (0, 1) if worker is None else (worker.id, worker.num_workers)
        with Loader(Lake.open(self.lake), self.mixture, cursor=self.cursor, turn=turn, **self.settings) as loader:
            for batch in loader:
                self.cursor = batch.cursor
                yield batch.mapped(lambda array: torch.from_numpy(np.copy(array)))

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch begins, as plain values."""
        return asdict(self.cursor)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state of `state_dict`, at the next iteration."""
        self.cursor = from_plain(Cursor, state)
