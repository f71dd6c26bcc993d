"""Aligning and writing a session against copying its bytes with one pass of arithmetic, and the memory it takes."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.figure import Figure, at_most, in_turn, seconds
from neurofmx.align import on_session_clock
from neurofmx.clock_match import sync_clock
from neurofmx.lake import Lake
from neurofmx.scaled import Scaled
from neurofmx.types import (
    Channels,
    Events,
    Licence,
    Provenance,
    Recording,
    RecordingId,
    Samples,
    Subject,
)

MINUTES = float(os.environ.get("NEUROFMX_BENCH_MINUTES", "6"))  # of the session; 60 asks for 30 GB of disk
CHANNELS, RATE_HZ, UNITS, UNIT_HZ = 384, 2500.0, 500, 5.0
PPM, OFFSET_S, UV_A_STEP = 37.0, 3.0, 0.195
PIECE = 8 << 20
ROOT = Path(__file__).resolve().parents[1]


def figures() -> list[Figure]:
    """LFP of 384 channels at 2.5 kHz in int16 and 500 units, on a clock that drifts, from files to the lake."""
    what = f"{MINUTES:g} min of LFP ({CHANNELS} x {RATE_HZ:g} Hz, int16) and {UNITS} units"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lfp, spikes = _write_raw(folder)
        size = lfp.stat().st_size + spikes.stat().st_size
        lakes = itertools.count()

        def ours() -> None:
            align(folder, folder / "lake")
            shutil.rmtree(folder / "lake")

        aligned, copied, ratio = in_turn(ours, lambda: _copy(folder, next(lakes)), repeats=3)
        peak = subprocess.run(
            [sys.executable, "-m", "bench.lake_align", name], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout
        pulses_s = seconds(lambda: sync_clock(*_pulses()))
    return [
        at_most(f"aligning and writing {what}, over copying its bytes and one pass of arithmetic", ratio, "x", 1.5,
                ours_s=aligned, copy_s=copied, ours_mb_per_s=size / aligned / 1e6),
        at_most(f"peak memory of aligning and writing {what}", float(peak) / 1e3, "GB", 1.0, session_gb=size / 1e9),
        Figure(figure=f"matching and fitting the pulses of {MINUTES:g} min, two a second", value=pulses_s, unit="s"),
    ]  # fmt: skip


class Rows:
    """The int16 samples of a raw file, read where they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path, self.dtype, self.ndim = path, np.dtype(np.int16), 2
        self.shape = (path.stat().st_size // (2 * CHANNELS), CHANNELS)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        lo, hi, _ = rows.indices(len(self))
        flat = np.fromfile(self.path, np.int16, (hi - lo) * CHANNELS, offset=2 * CHANNELS * lo)
        return flat.reshape(hi - lo, CHANNELS)


def align(folder: Path, lake: Path) -> None:
    """Matches pulses, maps both streams onto the session clock and publishes the recording."""
    clock = sync_clock(*_pulses())
    lfp, spikes = folder / "lfp.bin", folder / "spikes.npz"
    law = np.full(CHANNELS, UV_A_STEP)
    values = Scaled(Rows(lfp), law, np.zeros(CHANNELS))
    with np.load(spikes) as stored:
        times, units = stored["times_s"], stored["units"]
    span = np.array([[0.0, len(values) / RATE_HZ]])
    streams = {
        "lfp": Samples(
            values=values, unit="uV", channels=_named("ch", CHANNELS), modality="lfp", valid=span, rate_hz=RATE_HZ
        ),
        "spikes": Events(times_s=times, codes=units, channels=_named("u", UNITS), modality="spikes", valid=span),
    }
    recording = Recording(
        id=RecordingId("folder", "bench", "1", "session"),
        streams={name: on_session_clock(stream, clock) for name, stream in streams.items()},
        subject=Subject(id="s1"),
        domain_s=(OFFSET_S, OFFSET_S + float(span[0, 1])),
        provenance=Provenance(files=(), reader="bench@1"),
        licence=Licence(spdx="CC0-1.0"),
        clocks=dict.fromkeys(streams, clock),
    )
    Lake.open(lake).publish_recording(recording)


def _pulses() -> tuple[np.ndarray, np.ndarray]:
    own = np.random.default_rng(1)
    session = OFFSET_S + np.cumsum(own.uniform(0.25, 0.75, round(MINUTES * 120)))
    device = (session - OFFSET_S) * (1 + PPM * 1e-6) + own.normal(0, 1e-5, len(session))
    return np.delete(device, slice(5, None, 40)), np.delete(session, slice(9, None, 50))


def _named(prefix: str, count: int) -> Channels:
    return Channels(ids=tuple(f"{prefix}{i}" for i in range(count)))


def _write_raw(folder: Path) -> tuple[Path, Path]:
    own = np.random.default_rng(0)
    block = (200 * own.standard_normal((round(10 * RATE_HZ), CHANNELS))).astype(np.int16)
    with (folder / "lfp.bin").open("wb") as out:
        for _ in range(round(MINUTES * 6)):
            out.write(np.roll(block, int(own.integers(len(block))), axis=0).data)
    n = round(MINUTES * 60 * UNITS * UNIT_HZ)
    times = np.sort(own.uniform(0, MINUTES * 60, n))
    np.savez(folder / "spikes.npz", times_s=times, units=own.integers(0, UNITS, n).astype(np.int32))
    return folder / "lfp.bin", folder / "spikes.npz"


def _copy(folder: Path, number: int) -> None:
    """The least that writing it can cost: every byte read, used once in arithmetic, written, and on the disk."""
    for name in ("lfp.bin", "spikes.npz"):
        target = folder / f"copy{number}-{name}"
        with (folder / name).open("rb") as source, target.open("wb") as out:
            while piece := source.read(PIECE):
                np.multiply(np.frombuffer(piece[: len(piece) // 2 * 2], np.int16), np.float32(UV_A_STEP))
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        target.unlink()


if __name__ == "__main__":
    where = Path(sys.argv[1])
    align(where, where / "lake-alone")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
