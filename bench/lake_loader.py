"""The loader: delivered windows against raw pread, zarr-python, torch_brain and WebDataset, over the same recordings.

All warm, in one run, medians of interleaved repeats. A window holds seven arrays (spike times and units, counts, LFP,
behaviour, mask, fMRI), about 170 kB a second. Peers run in `.venv-peers`, where it exists, and read the recordings in
their own formats: temporaldata's HDF5 by torch_brain, tars of one-second samples by WebDataset.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from bench.figure import Figure, at_least, at_most
from neurofmx.index import Index
from neurofmx.lake import Lake
from neurofmx.tokenize.cursor import Cursor
from neurofmx.tokenize.loader import Loader
from neurofmx.tokenize.mixture import Mixture, Source
from neurofmx.types import Channels, Events, Licence, Provenance, Recording, RecordingId, Samples, Subject

RECORDINGS, SECONDS, UNITS, SPIKES_HZ = 8, 300, 300, 2000
# stream -> rate, width, type
SIGNALS: dict[str, tuple[float, int, str]] = {
    "lfp": (1000.0, 64, "i2"),
    "behaviour": (100.0, 4, "f4"),
    "counts": (50.0, UNITS, "u1"),
    "mask": (50.0, 1, "u1"),
    "fmri": (1.0, 100, "f4"),
}
BATCH, PREFETCH, REPEATS, WINDOWS = 32, 2, 7, {1.0: 3200, 10.0: 640}
PEERS = Path(__file__).resolve().parents[1] / ".venv-peers" / "bin" / "python"


@dataclass(frozen=True)
class Cost:
    """Seconds of wall clock and of all cores of this process, for one window."""

    wall_s: float
    cpu_s: float


def figures() -> list[Figure]:
    """One-second and ten-second windows of eight recordings of five minutes, 400 MB."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        lake, raw = Lake.open(folder / "lake"), [_made(folder, number) for number in range(RECORDINGS)]
        for recording in raw:
            lake.publish_recording(recording)
        peers = stack.enter_context(_peers(folder)) if PEERS.exists() else None
        if peers:
            peers(["convert"])
            _same(lake, raw, peers)
        return [figure for window_s in WINDOWS for figure in _windows(lake, folder, window_s, peers)]


def _windows(lake: Lake, folder: Path, window_s: float, peers: Callable[[list], Any] | None) -> list[Figure]:
    n = WINDOWS[window_s]
    random = np.random.default_rng(1)
    starts = [(int(random.integers(RECORDINGS)), float(random.uniform(0, SECONDS - window_s))) for _ in range(n)]
    mixture = Mixture(
        sources=(Source(recordings=tuple(lake.recording_ids())),),
        streams=("spikes", *SIGNALS), window_s=window_s, batch=BATCH, values="stored",
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        given = {"cursor": Cursor(seed=1), "prefetch": PREFETCH}
        loaders = {t: stack.enter_context(Loader(lake, mixture, threads=t, **given)) for t in (1, 2)}
        ways: dict[str, Callable[[], Cost]] = {
            "pread": _pread(stack, folder, starts, window_s),
            "reader": _reader(lake, starts, window_s),
            "zarr": _zarr(lake, starts[:BATCH], window_s),
            **{f"loader_{t}": lambda loader=loader: _delivered(loader, n // BATCH) for t, loader in loaders.items()},
        }
        if peers:
            named = [[f"r{r}", start_s] for r, start_s in starts[: n // 10]]
            ways["torch_brain"] = lambda: _asked(peers(["dataset", named, window_s]), len(named))
            for name in ("torch_brain", "webdataset") if window_s == 1.0 else ():
                ways[f"{name}_loader"] = lambda name=name: _asked(peers(["loader", name, 32, BATCH]), 32 * BATCH)
        for way in ways.values():
            way()
        runs = [{name: way() for name, way in ways.items()} for _ in range(REPEATS)]

    def ratio(over: str, under: str, what: str) -> float:
        return statistics.median(getattr(run[over], what) / getattr(run[under], what) for run in runs)

    rate = {name: 1 / statistics.median(run[name].wall_s for run in runs) for name in ways}
    here = [name for name in ways if not name.endswith("_loader")]  # the CPU of other processes is not known
    cpu_us = {f"{name}_cpu_us": 1e6 * statistics.median(run[name].cpu_s for run in runs) for name in here}
    text, ours = f"{window_s:g}-s windows", max(("loader_1", "loader_2"), key=rate.__getitem__)
    found = [
        Figure(figure=f"{text} delivered by the loader, warm", value=rate[ours], unit="windows/s", peers=rate),
        at_most(f"{text}, CPU of the direct reader over bare preadv into the same buffers",
                ratio("reader", "pread", "cpu_s"), "x", 1.3, **cpu_us),
        Figure(figure=f"{text}, CPU of the whole loader (1 thread) over bare preadv",
               value=ratio("loader_1", "pread", "cpu_s"), unit="x"),
        at_least(f"{text}, CPU of zarr-python over the loader's", ratio("zarr", "loader_1", "cpu_s"), "x", 10.0),
    ]  # fmt: skip
    if peers:
        goal = 8.0 if window_s == 1.0 else 2.5
        what = f"{text}, CPU of torch_brain's Dataset in one process over the loader's (1 thread)"
        found.append(at_least(what, ratio("torch_brain", "loader_1", "cpu_s"), "x", goal))
        for name, goal in (("torch_brain", 8.0), ("webdataset", 10.0)) if window_s == 1.0 else ():
            what = f"{text}, batches delivered in one process over {name} through DataLoader(2)"
            found.append(at_least(what, ratio(f"{name}_loader", ours, "wall_s"), "x", goal))
    return found


def _delivered(loader: Loader, batches: int) -> Cost:
    """Batches of a loader that runs already; those that may have been filled before the clock started do not count."""
    counted = (batches - PREFETCH) * BATCH
    return _timed(lambda: [next(loader) for _ in range(batches)], counted)


def _asked(answer: dict[str, float], n: int) -> Cost:
    return Cost(answer["wall_s"] / n, answer.get("cpu_s", float("nan")) / n)


def _timed(work: Callable[[], object], n: int) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost((time.perf_counter() - wall) / n, (time.process_time() - cpu) / n)


def _extents(times: list[np.ndarray], starts: list[tuple[int, float]], window_s: float) -> list[list[tuple]]:
    """(recording, array, first row, last row) of all arrays of each batch, in the order of files."""
    batches = []
    for lo in range(0, len(starts), BATCH):
        own: list[tuple] = []
        for r, start_s in sorted(starts[lo : lo + BATCH]):
            a, b = np.searchsorted(times[r], [start_s, start_s + window_s]).tolist()
            own += [(r, "times_s", a, b), (r, "codes", a, b)]
            for name, (rate, *_) in SIGNALS.items():
                own.append((r, name, int(np.ceil(start_s * rate)), int(np.ceil((start_s + window_s) * rate))))
        batches.append(own)
    return batches


def _row_bytes(name: str) -> int:
    rows = {name: width * np.dtype(t).itemsize for name, (_, width, t) in SIGNALS.items()}
    return (rows | {"times_s": 8, "codes": 4})[name]


def _placed(batches: list[list[tuple]]) -> list[tuple[int, str, int, int, np.ndarray]]:
    """The same reads, each with where it goes in the buffers of one batch, which all batches share."""
    names = ("times_s", "codes", *SIGNALS)
    sizes = {n: max(sum(hi - lo for _, m, lo, hi in own if m == n) for own in batches) * _row_bytes(n) for n in names}
    buffers, placed = {name: np.zeros(size, np.uint8) for name, size in sizes.items()}, []
    for own in batches:
        at = dict.fromkeys(names, 0)
        for r, name, lo, hi in own:
            begin, at[name] = at[name], at[name] + (hi - lo) * _row_bytes(name)
            placed.append((r, name, lo, hi, buffers[name][begin : at[name]]))
    return placed


def _pread(
    stack: contextlib.ExitStack, folder: Path, starts: list[tuple[int, float]], window_s: float
) -> Callable[[], Cost]:
    """Bare preadv of the arrays' bytes into one batch's buffers; where each window lies is worked out beforehand."""
    times = [np.load(folder / "raw" / f"r{r}" / "times_s.npy") for r in range(RECORDINGS)]
    handles = {(r, name): os.open(folder / "bytes" / f"r{r}-{name}", os.O_RDONLY)
               for r in range(RECORDINGS) for name in ("times_s", "codes", *SIGNALS)}  # fmt: skip
    for handle in handles.values():
        stack.callback(os.close, handle)
    placed = _placed(_extents(times, starts, window_s))
    reads = [(handles[r, name], out.data, lo * _row_bytes(name)) for r, name, lo, hi, out in placed if hi > lo]

    def read() -> None:
        for handle, out, offset in reads:
            os.preadv(handle, [out], offset)

    return lambda: _timed(read, len(starts))


def _reader(lake: Lake, starts: list[tuple[int, float]], window_s: float) -> Callable[[], Cost]:
    """The same reads by the lake's direct reader, into the same buffers."""
    index, ids = Index.open(lake), lake.recording_ids()
    arrays = {(r, name): index.array(rid, f"{'spikes' if name in ('times_s', 'codes') else name}/"
                                          f"{name if name in ('times_s', 'codes') else 'values'}")
              for r, rid in enumerate(ids) for name in ("times_s", "codes", *SIGNALS)}  # fmt: skip
    times = [arrays[r, "times_s"][:] for r in range(RECORDINGS)]
    placed = _placed(_extents(times, starts, window_s))
    reads = [(arrays[r, name].read_into, lo, hi, out.view(arrays[r, name].dtype)) for r, name, lo, hi, out in placed]

    def read() -> None:
        for read_into, lo, hi, out in reads:
            read_into(lo, hi, out)

    return lambda: _timed(read, len(starts))


def _zarr(lake: Lake, starts: list[tuple[int, float]], window_s: float) -> Callable[[], Cost]:
    """zarr-python over the lake's own groups; the row of each window's first spike is worked out beforehand."""
    groups = [zarr.open_group(str(lake.root / lake._row(rid)["path"]), mode="r") for rid in lake.recording_ids()]
    arrays: list[dict[str, Any]] = [
        {"times_s": g["spikes/times_s"], "codes": g["spikes/codes"]} | {n: g[f"{n}/values"] for n in SIGNALS}
        for g in groups
    ]
    times = [a["times_s"][:] for a in arrays]
    reads = [(arrays[r][name], lo, hi) for own in _extents(times, starts, window_s) for r, name, lo, hi in own]
    return lambda: _timed(lambda: [array[a:b] for array, a, b in reads], len(starts))


def _made(folder: Path, number: int) -> Recording:
    """A recording, also left as ``.npy`` for the peers to convert and as bare bytes for pread."""
    rng, name = np.random.default_rng(number), f"r{number}"
    raw, valid = folder / "raw" / name, np.array([[0.0, float(SECONDS)]])
    raw.mkdir(parents=True)
    (folder / "bytes").mkdir(exist_ok=True)
    arrays = {
        key: (rng.normal(size=(int(rate * SECONDS), width)) * 50).astype(t) if t != "u1"
        else rng.integers(0, 4, (int(rate * SECONDS), width), np.uint8)
        for key, (rate, width, t) in SIGNALS.items()
    }  # fmt: skip
    arrays["times_s"] = np.sort(rng.uniform(0, SECONDS, SECONDS * SPIKES_HZ))
    arrays["codes"] = rng.integers(0, UNITS, SECONDS * SPIKES_HZ).astype(np.int32)
    for key, array in arrays.items():
        np.save(raw / f"{key}.npy", array)
        array.tofile(folder / "bytes" / f"{name}-{key}")
    about = {"seconds": SECONDS, "rates_hz": {key: rate for key, (rate, *_) in SIGNALS.items()}}
    raw.with_suffix(".json").write_text(json.dumps(about))
    spikes = Events(
        times_s=arrays["times_s"], codes=arrays["codes"], valid=valid, modality="spikes",
        channels=Channels(ids=tuple(f"u{i}" for i in range(UNITS))),
    )  # fmt: skip
    signals = {
        key: Samples(values=arrays[key], unit="a.u.", modality=key, valid=valid, rate_hz=rate,
                     channels=Channels(ids=tuple(f"{key}{i}" for i in range(width))))
        for key, (rate, width, _) in SIGNALS.items()
    }  # fmt: skip
    return Recording(
        id=RecordingId("bench", "loader", "1", name), streams={"spikes": spikes, **signals}, subject=Subject(id="s1"),
        domain_s=(0.0, float(SECONDS)), provenance=Provenance(files=(), reader="bench"),
        licence=Licence(spdx="CC0-1.0"),
    )  # fmt: skip


@contextlib.contextmanager
def _peers(folder: Path) -> Iterator[Callable[[list], Any]]:
    """A process of the peers' environment that answers commands (`bench/peers.py`)."""
    child = subprocess.Popen(
        [str(PEERS), str(Path(__file__).with_name("peers.py")), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    into, out = child.stdin, child.stdout

    def ask(command: list) -> Any:
        into.write(json.dumps(command) + "\n")
        into.flush()
        line = out.readline()
        if not line:
            raise RuntimeError(f"bench/peers.py ended with {child.wait()} at {command[:1]}")
        return json.loads(line)

    try:
        yield ask
    finally:
        into.close()
        child.wait()


def _same(lake: Lake, raw: list[Recording], peers: Callable[[list], Any]) -> None:
    """Raises when a peer's window sums to other numbers than the lake's slice: unequal readers are not compared."""
    windows = [(r, 17.3 + r, 18.3 + r) for r in range(3)]
    for (r, start_s, stop_s), found in zip(windows, peers(["check", [[f"r{r}", a, b] for r, a, b in windows]])):
        part = lake.recording(raw[r].id).slice(start_s, stop_s).streams
        spikes = part["spikes"]
        assert isinstance(spikes, Events)
        mine = {"times_s": np.sum(spikes.times_s - start_s), "codes": np.sum(spikes.codes)}
        for name in SIGNALS:
            signal = part[name]
            assert isinstance(signal, Samples)
            mine[name] = np.sum(signal.values, dtype=np.float64)
        for name, value in mine.items():
            if not np.isclose(value, found[name], rtol=1e-9):
                raise RuntimeError(f"{name} of r{r} at {start_s} s: the lake has {value}, a peer {found[name]}")
