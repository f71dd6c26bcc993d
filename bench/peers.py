"""The other loaders over the same recordings; runs in an environment of its own and answers JSON for JSON.

`python bench/peers.py FOLDER` reads one command a line: ``["convert"]``, ``["check", windows]``,
``["dataset", windows, seconds]``, ``["loader", name, batches, batch]``; it prints one JSON line for each.
FOLDER holds ``raw/<recording>/<array>.npy`` and ``raw/<recording>.json`` with the rates.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import contextlib
import io
import json
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import webdataset
from torch_brain.data import Data, Interval, IrregularTimeSeries, RegularTimeSeries
from torch_brain.datasets import Dataset, DatasetIndex
from torch_brain.samplers import RandomFixedWindowSampler

SHARDS = 4  # tar files, so that both workers have some
WORKERS, AHEAD = 2, 4


def recordings(folder: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, np.ndarray]]]:
    """Name, rates and arrays of each recording."""
    for path in sorted((folder / "raw").glob("*.json")):
        arrays = {p.stem: np.load(p, mmap_mode="r") for p in sorted((folder / "raw" / path.stem).glob("*.npy"))}
        yield path.stem, json.loads(path.read_text()), arrays


def convert(folder: Path) -> dict[str, float]:
    """temporaldata's HDF5, one file a recording, by its own writer; WebDataset tars of one-second samples."""
    (folder / "brain").mkdir()
    (folder / "tar").mkdir()
    clock = time.process_time()
    for name, about, arrays in recordings(folder):
        parts: dict[str, Any] = {
            key: RegularTimeSeries(sampling_rate=rate, values=np.asarray(arrays[key]))
            for key, rate in about["rates_hz"].items()
        }
        whole = Interval(0.0, about["seconds"])
        parts["spikes"] = IrregularTimeSeries(
            timestamps=np.asarray(arrays["times_s"]), unit_index=np.asarray(arrays["codes"]), domain=whole
        )
        with h5py.File(folder / "brain" / f"{name}.h5", "w") as file:
            Data(**parts, domain=whole).to_hdf5(file)
    written = time.process_time() - clock
    with contextlib.ExitStack() as stack:
        tars = [stack.enter_context(tarfile.open(folder / "tar" / f"{i}.tar", "w")) for i in range(SHARDS)]
        for name, about, arrays in recordings(folder):
            for second in range(int(about["seconds"])):
                for key, array in cut(arrays, about, float(second), second + 1.0).items():
                    data = io.BytesIO()
                    np.save(data, array)
                    entry = tarfile.TarInfo(f"{name}-{second:05d}.{key}.npy")
                    entry.size = data.tell()
                    data.seek(0)
                    tars[second % SHARDS].addfile(entry, data)
    return {"hdf5_cpu_s": written}


def cut(arrays: dict[str, np.ndarray], about: dict[str, Any], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
    """The arrays between two times."""
    lo, hi = np.searchsorted(arrays["times_s"], [start_s, stop_s])
    found = {"times_s": arrays["times_s"][lo:hi] - start_s, "codes": arrays["codes"][lo:hi]}
    for key, rate in about["rates_hz"].items():
        lo, hi = (int(np.ceil(t * rate - 1e-9)) for t in (start_s, stop_s))
        found[key] = arrays[key][lo:hi]
    return found


class Slices(torch.utils.data.Dataset):
    """torch_brain's Dataset with every array of a window read, opened where it is used: its files do not pickle."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.inner = folder, None

    def __getitem__(self, index: DatasetIndex) -> dict[str, np.ndarray]:
        if self.inner is None:
            self.inner = Dataset(self.folder / "brain")
        return values_of(self.inner[index])


def values_of(window: Data) -> dict[str, np.ndarray]:
    """Every array of a window, read."""
    found = {"times_s": window.spikes.timestamps, "codes": window.spikes.unit_index}
    return found | {key: part.values for key, part in vars(window).items() if isinstance(part, RegularTimeSeries)}


def packed(samples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Rows end to end, as our own batches are."""
    keys = [key for key in samples[0] if not key.startswith("__")]
    names = {key: key.removesuffix(".npy") for key in keys}
    return {names[key]: torch.from_numpy(np.concatenate([s[key] for s in samples])) for key in keys}


def loader(folder: Path, name: str, batch: int) -> Iterable[Any]:
    """An endless DataLoader of two workers."""
    if name == "webdataset":
        urls = [str(path) for path in sorted((folder / "tar").glob("*.tar"))]
        data = webdataset.WebDataset(urls, resampled=True, shardshuffle=False).decode()
        given: dict[str, Any] = {"dataset": data.batched(batch, collation_fn=packed), "batch_size": None}
    else:
        spans = Dataset(folder / "brain").get_sampling_intervals()
        sampler = RandomFixedWindowSampler(sampling_intervals=spans, window_length=1.0)
        given = {"dataset": Slices(folder), "sampler": sampler, "batch_size": batch, "collate_fn": packed}
    return torch.utils.data.DataLoader(
        **given,
        num_workers=WORKERS,
        prefetch_factor=AHEAD,
        persistent_workers=True,
        multiprocessing_context="forkserver",
    )


def forever(batches: Iterable[Any]) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from batches


def main() -> None:
    """Answers commands until there are no more."""
    folder, running = Path(sys.argv[1]), {}
    for line in sys.stdin:
        command, *given = json.loads(line)
        if command == "convert":
            answer: Any = convert(folder)
        elif command == "check":
            data = Dataset(folder / "brain")
            found = [values_of(data[DatasetIndex(*window)]) for window in given[0]]
            answer = [{key: float(np.sum(v, dtype=np.float64)) for key, v in one.items()} for one in found]
        elif command == "dataset":
            data = running.setdefault(command, Slices(folder))
            wall, cpu = time.perf_counter(), time.process_time()
            for name, start_s in given[0]:
                data[DatasetIndex(name, start_s, start_s + given[1])]
            answer = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        else:
            name, batches, batch = given
            if name not in running:
                running[name] = forever(loader(folder, name, batch))
                for _ in range(WORKERS * AHEAD + 2):  # workers start, buffers fill
                    next(running[name])
            wall = time.perf_counter()
            for _ in range(batches):
                next(running[name])
            answer = {"wall_s": time.perf_counter() - wall}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
