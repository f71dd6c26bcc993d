"""The lake: windows by the direct reader against plain pread and zarr-python; publishing; opening; queries."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import zarr

from bench.figure import Figure, at_least, at_most, in_turn, seconds
from neurofmx import catalog, shards
from neurofmx.lake import Lake

ROWS, CHANNELS, WINDOW = 600_000, 64, 1000


def figures() -> list[Figure]:
    """One-second windows of 64 channels at 1 kHz, float32, warm."""
    rng = np.random.Generator(np.random.PCG64(0))
    values = rng.normal(size=(ROWS, CHANNELS)).astype(np.float32)
    starts = rng.integers(0, ROWS - WINDOW, 100)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "g.zarr"
        write_s = seconds(lambda: shards.write_group(path, {"lfp": values}, {}))
        raw = Path(folder) / "raw.bin"
        values.tofile(raw)
        direct, plain = shards.open_array(path / "lfp"), zarr.open_array(str(path / "lfp"))
        handle, row = os.open(raw, os.O_RDONLY), CHANNELS * 4
        try:

            def by_pread() -> None:
                out = np.empty((WINDOW, CHANNELS), np.float32)
                for s in starts:
                    os.preadv(handle, [out.reshape(-1).view(np.uint8).data], int(s) * row)

            d, p, over_pread = in_turn(lambda: [direct[s : s + WINDOW] for s in starts], by_pread)
        finally:
            os.close(handle)
        d2, z, over_zarr = in_turn(
            lambda: [direct[s : s + WINDOW] for s in starts], lambda: [plain[s : s + WINDOW] for s in starts]
        )
        lake = Lake.open(Path(folder) / "lake")
        for i in range(200):
            catalog.put(lake, "recordings", f"r{i}", [{"recording_id": f"a:b@1/r{i}", "duration_s": float(i)}])
        query_s = seconds(lambda: catalog.query(lake, "select sum(duration_s) from recordings"))
    ms = 1000 / len(starts)
    return [
        at_most("one-second window of 64 channels, direct reader over pread", over_pread, "x", 3.0,
                direct_ms=d * ms, pread_ms=p * ms),
        at_least("zarr-python over the direct reader, same window", 1 / over_zarr, "x", 5.0,
                 direct_ms=d2 * ms, zarr_ms=z * ms),
        Figure(figure="publishing one array of 154 MB", value=values.nbytes / write_s / 1e6, unit="MB/s"),
        Figure(figure="SQL over the catalog of 200 recordings, connection included", value=query_s, unit="s"),
    ]  # fmt: skip
