"""The catalog at 100,000 recordings and a million units: lookups and joins while a writer commits."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.figure import Figure, at_most, seconds
from neurofmx import catalog, parts
from neurofmx.lake import Lake
from neurofmx.provenance import digest_of

RECORDINGS, UNITS = 100_000, 10
REGIONS = ("CA1", "VISp", "MOs", "TH", "")
# as merges leave a lake that grew by one recording at a time: each base a few times the next
SHARES = (0.0, 0.76, 0.95, 0.99, 1.0)
LOOKUPS, JOINS = 100, 15
JOIN = (
    "select r.species, c.region, count(*) as units, sum(r.duration_s) as seconds "
    "from channels c join recordings r using (recording_id) group by all"
)
WRITER = """
import sys, time
from pathlib import Path
from neurofmx import catalog
from neurofmx.lake import Lake
lake, turn = Lake(Path(sys.argv[1])), 0
print("ready", flush=True)
while True:
    turn += 1
    number = turn % 5_000 if turn % 4 == 0 else 1_000_000 + turn
    rid = f"bench:set{number % 200:03d}@1/rec{number:07d}"
    units = [{"recording_id": rid, "stream": "spikes", "row": i, "channel": str(i), "region": "CA1"} for i in range(10)]
    catalog.put(lake, "channels", rid, units)
    catalog.put(lake, "recordings", rid, [{"recording_id": rid, "species": "Mus musculus", "duration_s": 60.0}])
    print(turn, flush=True)
    time.sleep(0.01)
"""


def figures() -> list[Figure]:
    """Wall time of questions asked of a synthetic catalog; the writer commits a recording every few milliseconds."""
    rng = np.random.Generator(np.random.PCG64(0))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(Path(folder) / "lake")
        build_s = seconds(lambda: fill(lake, RECORDINGS, UNITS))
        asked = [name_of(int(i)) for i in rng.integers(0, RECORDINGS, LOOKUPS)]
        with catalog.Reader(lake) as reader:
            still = timed(lambda: ask(reader, asked[0]), 20), timed(lambda: reader.query(JOIN), 5)
            with committing(lake, Path(folder) / "log") as commits:
                kept = [seconds(lambda rid=rid: ask(reader, rid)) for rid in asked]
                joins = timed(lambda: reader.query(JOIN), JOINS)
                by_arrow = [seconds(lambda rid=rid: catalog.rows(lake, "channels", rid)) for rid in asked]
                fresh = [seconds(lambda rid=rid: catalog.query(lake, point(rid))) for rid in asked[:30]]
                listing = timed(lambda: parts.read(lake, "recordings", ["recording_id"]), 5)
                summary_s = seconds(lambda: catalog.summary(lake))
            n, wall = commits()
        size = sum(f.stat().st_size for f in (lake.root / "catalog").rglob("*.parquet"))
    where = f"{RECORDINGS:,} recordings and {RECORDINGS * UNITS:,} units while a writer commits"
    ms = 1000.0
    return [
        at_most(f"point lookup in SQL, {where}, connection kept", statistics.median(kept) * ms, "ms", 30.0,
                p95_ms=quantile(kept) * ms, without_writer_ms=statistics.median(still[0]) * ms),
        Figure(figure="the same, connection opened for each", value=statistics.median(fresh) * ms, unit="ms",
               peers={"p95_ms": quantile(fresh) * ms}),
        at_most("point lookup by pyarrow alone", statistics.median(by_arrow) * ms, "ms", 30.0,
                p95_ms=quantile(by_arrow) * ms),
        at_most("join of units with their recordings, all grouped", statistics.median(joins) * ms, "ms", 200.0,
                p95_ms=quantile(joins) * ms, without_writer_ms=statistics.median(still[1]) * ms),
        Figure(figure="listing all recordings", value=statistics.median(listing) * ms, unit="ms"),
        Figure(figure="summary of that lake", value=summary_s, unit="s"),
        Figure(figure="commits of two tables beside the readers", value=n / wall, unit="1/s"),
        Figure(figure="writing the catalog of all at once", value=build_s, unit="s", peers={"bytes": float(size)}),
    ]  # fmt: skip


def fill(lake: Lake, recordings: int, units: int) -> None:
    """Writes the rows of a synthetic catalog as the bases that many small commits would have left."""
    for lo, hi in zip(SHARES, SHARES[1:]):
        numbers = range(int(lo * recordings), int(hi * recordings))
        ids, n = [name_of(i) for i in numbers], len(numbers)
        catalog.put_table(lake, "recordings", ids, pa.table({
            "recording_id": ids, "archive": ["bench"] * n, "dataset": [f"set{i % 200:03d}" for i in numbers],
            "version": ["1"] * n, "name": [f"rec{i:07d}" for i in numbers],
            "subject_id": [f"s{i % 5000}" for i in numbers],
            "species": ["Mus musculus" if i % 3 else "Homo sapiens" for i in numbers],
            "start_s": [0.0] * n, "stop_s": [60.0 + i for i in numbers], "duration_s": [60.0 + i for i in numbers],
            "modalities": [["lfp", "spikes"]] * n, "n_streams": [2] * n, "n_channels": [units] * n,
            "licence": ["CC-BY-4.0"] * n, "redistribute": [True] * n, "digest": [digest_of(i) for i in numbers],
            "raw_sha256": [[digest_of([i])] for i in numbers], "source_url": [[f"https://a/{i}"] for i in numbers],
            "path": [f"recordings/bench/{i}.zarr" for i in numbers], "bytes": [1000 * i for i in numbers],
        }))  # fmt: skip
        each, row = np.repeat(np.array(numbers), units), np.tile(np.arange(units), n)
        owner = [rid for rid in ids for _ in range(units)]
        catalog.put_table(lake, "channels", owner, pa.table({
            "recording_id": owner, "stream": ["spikes"] * len(owner), "row": row,
            "channel": [f"u{i}" for i in row], "region": [REGIONS[i] for i in (each + row) % len(REGIONS)],
            "x_um": row * 20.0, "y_um": each % 3000 * 1.0, "z_um": row * 1.0,
        }))  # fmt: skip


def name_of(number: int) -> str:
    """The id of a synthetic recording."""
    return f"bench:set{number % 200:03d}@1/rec{number:07d}"


def point(rid: str) -> str:
    """The units of one recording, in SQL."""
    return f"select channel, region, x_um from channels where recording_id = '{rid}'"


def ask(reader: catalog.Reader, rid: str) -> pa.Table:
    """One lookup over a kept connection; a recording that lost its units would show."""
    found = reader.query(point(rid))
    assert found.num_rows == UNITS, (rid, found.num_rows)
    return found


def timed(work: Callable[[], Any], times: int) -> list[float]:
    """Seconds of each of so many calls, after one that is not counted."""
    work()
    return [seconds(work) for _ in range(times)]


def quantile(values: list[float]) -> float:
    """The 95th percentile."""
    return float(np.quantile(values, 0.95))


@contextlib.contextmanager
def committing(lake: Lake, log: Path) -> Iterator[Callable[[], tuple[int, float]]]:
    """A process that commits until the block ends; then tells how many commits there were, and in how many seconds."""
    with log.open("wb") as out:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(lake.root)], stdout=out)
    began = ended = time.monotonic()
    try:
        while not log.stat().st_size and writer.poll() is None:
            time.sleep(0.02)
        began = time.monotonic()
        yield lambda: (len(log.read_text().split()) - 1, ended - began)
        if writer.poll() is not None:
            raise RuntimeError("the writer ended before the readers did")
    finally:
        ended = time.monotonic()
        writer.kill()
        writer.wait()
