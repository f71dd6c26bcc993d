"""Windows through the packed index against plain pread; writing against h5py; opening ten thousand recordings."""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.figure import Figure, at_least, at_most
from neurofmx import parts, shards
from neurofmx.index import Index
from neurofmx.lake import Lake
from neurofmx.lazy import TimeIndex
from neurofmx.shards import ShardedArray
from neurofmx.types import Channels, Events, Licence, Provenance, Recording, RecordingId, Samples, Subject

SECONDS, RECORDINGS, WINDOWS, REPEATS = 480, 4, 100, 7
# what a recording holds: name -> (rate, channels, type), beside 300 units with about 2,000 spikes a second
SIGNALS = {"counts": (50, 300, "u1"), "lfp": (1000, 64, "i2"), "behaviour": (100, 4, "f4"), "mask": (100, 4, "u1"),
           "fmri": (1, 100, "f4")}  # fmt: skip


def recording_of(name: str, seed: int) -> Recording:
    """One synthetic recording of about 90 MB: seven arrays, of which a second is about 170 kB."""
    rng = np.random.Generator(np.random.PCG64(seed))
    valid = np.array([[0.0, SECONDS]])
    times = np.sort(rng.uniform(0, SECONDS, 2000 * SECONDS))
    streams: dict = {
        "spikes": Events(
            times_s=times,
            codes=rng.integers(0, 300, len(times)).astype(np.int32),
            channels=Channels(ids=tuple(f"u{i}" for i in range(300))),
            modality="spikes",
            valid=valid,
        )
    }
    for signal, (rate, channels, dtype) in SIGNALS.items():
        values = rng.normal(scale=30, size=(rate * SECONDS, channels))
        streams[signal] = Samples(
            values=(values if dtype == "f4" else np.abs(values)).astype(dtype),
            unit="a.u.",
            channels=Channels(ids=tuple(f"c{i}" for i in range(channels))),
            modality=signal,
            valid=valid,
            rate_hz=float(rate),
        )
    return Recording(
        id=RecordingId("bench", "read", "1", name),
        streams=streams,
        subject=Subject(id="s"),
        domain_s=(0.0, float(SECONDS)),
        provenance=Provenance(files=(), reader="bench@1"),
        licence=Licence(spdx="CC0-1.0"),
    )


@dataclass(frozen=True)
class _Opened:
    """One recording as a loader holds it: arrays of signals with their rates, and the stored events."""

    signals: list[tuple[ShardedArray, float, float]]
    times: ShardedArray
    codes: ShardedArray
    index: TimeIndex

    @classmethod
    def of(cls, index: Index, recording: str) -> _Opened:
        rows = [(index.array(recording, f"{s}/values"), index.row(recording, f"{s}/values")) for s in SIGNALS]
        found = index.times(recording, "spikes")
        assert found is not None
        return cls(
            [(array, row["rate_hz"], row["t0_s"]) for array, row in rows],
            index.array(recording, "spikes/times_s"),
            index.array(recording, "spikes/codes"),
            found,
        )

    def read(
        self, start_s: float, stop_s: float, events: list[memoryview], buffers: list[tuple[memoryview, int]]
    ) -> None:
        """All seven arrays between two times: events into the begin of theirs, signals into buffers of these rows."""
        lo, hi = self.index.rows(start_s, stop_s)
        self.times.read_into(lo, hi, events[0][: 8 * (hi - lo)])
        self.codes.read_into(lo, hi, events[1][: 4 * (hi - lo)])
        for (array, rate, t0), (buffer, n) in zip(self.signals, buffers):
            lo = round((start_s - t0) * rate)
            array.read_into(lo, lo + n, buffer)


def cpu_in_turn(a: Callable[[], object], b: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float, float]:
    """As `figure.in_turn`, in seconds of processor time of this process."""

    def cost(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    a()
    b()
    pairs = [(cost(a), cost(b)) for _ in range(repeats)]
    return (
        statistics.median(p[0] for p in pairs),
        statistics.median(p[1] for p in pairs),
        statistics.median(p[0] / p[1] for p in pairs),
    )


def figures() -> list[Figure]:
    """Windows of 1 s and 10 s over seven arrays, warm; writing; opening."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        return [*_windows(root), *_writing(root), *_opening(root)]


def _windows(root: Path) -> list[Figure]:
    lake = Lake.open(root / "windows")
    for i in range(RECORDINGS):
        lake.publish_recording(recording_of(f"r{i}", i))
    index = Index.open(lake)
    opened = [_Opened.of(index, rid) for rid in index.recordings]
    found = []
    for length in (1, 10):
        starts = np.random.Generator(np.random.PCG64(0)).integers(0, SECONDS - length, (WINDOWS, 2))
        # whole seconds, so that both sides read the same rows of signals; of events, pread is told the exact ones
        wanted = [(opened[int(i) % RECORDINGS], float(s)) for i, s in starts]
        out = [np.empty((4000 * length,), "f8"), np.empty((4000 * length,), "i4")]
        out += [np.empty((rate * length, channels), dtype) for rate, channels, dtype in SIGNALS.values()]
        plain = [_raw(one, s, length, out) for one, s in wanted]
        events = [buffer.data.cast("B") for buffer in out[:2]]
        views = [(buffer.reshape(-1).data.cast("B"), len(buffer)) for buffer in out[2:]]

        def by_index(wanted=wanted, length=length, events=events, views=views) -> None:
            for one, start_s in wanted:
                one.read(start_s, start_s + length, events, views)

        def by_pread(plain=plain) -> None:
            for reads in plain:
                for handle, buffers, offset in reads:
                    os.preadv(handle, buffers, offset)

        ours, raw, ratio = cpu_in_turn(by_index, by_pread)
        ms, kb = 1000 / WINDOWS, sum(len(b[0]) for reads in plain for _, b, _ in reads) / WINDOWS / 1000
        name = f"{length}-s window of seven arrays ({kb:.0f} kB), index and read_into over pread, CPU, warm"
        found.append(at_most(name, ratio, "x", 1.3, index_ms=ours * ms, pread_ms=raw * ms))
        for handle in {handle for reads in plain for handle, _, _ in reads}:
            os.close(handle)
    index.close()
    return found


def _raw(one: _Opened, start_s: float, length: int, out: list[np.ndarray]) -> list[tuple[int, list[memoryview], int]]:
    """The descriptors, buffers and offsets that a perfect reader would know beforehand."""
    lo, hi = np.searchsorted(np.asarray(one.times), [start_s, start_s + length]).tolist()
    arrays = [(one.times, lo, hi), (one.codes, lo, hi)]
    arrays += [(array, round(start_s * rate), round((start_s + length) * rate)) for array, rate, _ in one.signals]
    reads = []
    for (array, lo, hi), buffer in zip(arrays, out):
        shard, last = lo // array.shard_rows, (hi - 1) // array.shard_rows
        hi = hi if last == shard else (shard + 1) * array.shard_rows
        handle = _HANDLES.setdefault(array.shard_files[shard], -1)
        if handle < 0 or not os.path.exists(f"/proc/self/fd/{handle}"):
            handle = _HANDLES[array.shard_files[shard]] = os.open(array.shard_files[shard], os.O_RDONLY)
        view = buffer.reshape(-1).view(np.uint8)[: (hi - lo) * array.row_bytes].data
        reads.append((handle, [view], (lo - shard * array.shard_rows) * array.row_bytes))
    return reads


_HANDLES: dict[str, int] = {}


def _writing(root: Path) -> list[Figure]:
    """The same arrays as one group, and as one HDF5 file of contiguous datasets, which is how temporaldata writes."""
    import h5py

    from neurofmx.groups import pack_recording

    arrays, _ = pack_recording(recording_of("w", 99))
    total = sum(a.nbytes for a in arrays.values()) / 1e6

    def hdf5(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
        with path.open("rb") as file:
            os.fsync(file)

    def hdf5_and_digest(path: Path) -> None:
        hdf5(path)
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    ways: dict[str, Callable[[Path], object]] = {
        "ours": lambda path: shards.write_group(path, arrays, {}),
        "ours_lz4": lambda path: shards.write_group(path, arrays, {}, "lz4"),
        "h5py": hdf5,
        "h5py_and_digest": hdf5_and_digest,
    }
    cost: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(REPEATS):
        for name, write in ways.items():
            start = time.process_time()
            write(root / f"{name}{turn}")
            cost[name].append(time.process_time() - start)
            # memory for pages is handed out anew else, which costs more than the copy
            shutil.rmtree(root / f"{name}{turn}", ignore_errors=True)
            (root / f"{name}{turn}").unlink(missing_ok=True)
    rate = {f"{name}_mb_s": total / statistics.median(times) for name, times in cost.items()}
    ratio = {n: statistics.median(h / o for h, o in zip(cost[n], cost["ours"])) for n in ("h5py", "h5py_and_digest")}
    what = f"writing a recording ({total:.0f} MB), synced, with file and logical digests, per CPU second"
    return [
        at_least(f"{what}: over h5py contiguous without any digest", ratio["h5py"], "x", 1.0, **rate),
        at_least(
            f"{what}: over h5py contiguous and the sha256 of its file", ratio["h5py_and_digest"], "x", 0.8, **rate
        ),
    ]


def _opening(root: Path) -> list[Figure]:
    import pyarrow as pa

    lake = Lake.open(root / "opening")
    ids = [f"bench:open@1/r{i:05d}" for i in range(10_000)]
    every = [(rid, f"s{k}") for rid in ids for k in range(7)]
    n = len(every)
    parts.put_table(lake, "arrays", [rid for rid, _ in every], pa.table({
        "recording_id": [rid for rid, _ in every], "kind": ["recording"] * n, "stream": [s for _, s in every],
        "array": [f"{s}/values" for _, s in every], "group": [f"recordings/{rid[-6:]}.zarr" for rid, _ in every],
        "dtype": ["float32"] * n, "shape": [[600_000, 64]] * n, "chunk_rows": [1024] * n, "shard_rows": [262_144] * n,
        "codec": ["none"] * n, "rate_hz": [1000.0] * n, "t0_s": [0.0] * n,
        "files": [[f"{s}/values/c/{i}/0" for i in range(3)] for _, s in every],
        "file_sha256": [[os.urandom(32).hex() for _ in range(3)] for _ in every],
    }))  # fmt: skip
    paths = [f"recordings/{rid[-6:]}.zarr" for rid in ids]
    parts.put_table(lake, "recordings", ids, pa.table({"recording_id": ids, "path": paths}))
    code = f"""
import time
from neurofmx.lake import Lake
from neurofmx.index import Index
import pyarrow.parquet
def held():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
lake = Lake.open({str(lake.root)!r})
before, start = held(), time.perf_counter()
index = Index.open(lake)
first, start, more = time.perf_counter() - start, time.perf_counter(), held() - before
index = Index.open(lake)
print(first, time.perf_counter() - start, more, held())
"""
    runs = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        runs.append([float(word) for word in done.stdout.split()])
    first, again, more, whole = (statistics.median(column) for column in zip(*runs))
    return [
        at_most("opening the index of 10,000 recordings of 7 arrays in a new process, Arrow's imports in it", first,
                "s", 0.5, once_imported_s=again),
        at_most("memory for the same", more, "MB", 200.0, whole_process_mb=whole),
    ]  # fmt: skip
