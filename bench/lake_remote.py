"""A lake on S3: random windows against obstore's own range reads of the same bytes, over one server on loopback.

The server is SeaweedFS from its wheel where that is installed, else moto, which reads a whole object for every range;
its name is in the figures. Everything is read from an empty cache, so no shard is on this machine; server and reader
share the cores.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import obstore

from bench.figure import Figure, at_least, in_turn, seconds
from neurofmx.index import Index
from neurofmx.lake import Lake
from neurofmx.remote_client import client
from neurofmx.tokenize.loader import Loader
from neurofmx.tokenize.mixture import Mixture, Source
from neurofmx.types import Channels, Licence, Provenance, Recording, RecordingId, Samples, Subject

RECORDINGS, SECONDS, RATE_HZ, CHANNELS = 4, 200, 1000, 64
WINDOWS, THREADS, BATCH, AHEAD = 960, 16, 32, 3


def figures() -> list[Figure]:
    """One-second windows of 64 channels at 1 kHz, int16, 128 kB each, from four recordings of 200 s."""
    with tempfile.TemporaryDirectory() as name, _server(Path(name)) as server:
        lake = Lake.open("s3://lakes/bench")
        recordings = [_made(number) for number in range(RECORDINGS)]
        publish_s = seconds(lambda: [lake.publish_recording(one) for one in recordings])
        os.environ["NEUROFMX_CACHE"] = f"{name}/other"
        lake = Lake.open("s3://lakes/bench")
        open_s = seconds(lambda: [lake.recording(one.id) for one in recordings])
        index = Index.open(lake)
        arrays = [index.array(rid, "lfp/values") for rid in index.recordings]
        rng = np.random.Generator(np.random.PCG64(0))
        of = rng.integers(0, RECORDINGS, WINDOWS).tolist()
        at = rng.integers(0, (SECONDS - 1) * RATE_HZ, WINDOWS).tolist()
        size = RATE_HZ * arrays[0].row_bytes
        assert lake.remote is not None
        store = client(lake.remote.url, lake.remote.endpoint)
        objects = [lake.remote.name(array.shard_files[0]) for array in arrays]
        windows = np.empty((THREADS, RATE_HZ, CHANNELS), np.int16)
        mixture = Mixture(
            sources=(Source(recordings=index.recordings),), streams=("lfp",), window_s=1.0, batch=BATCH, values="stored"
        )

        with ThreadPoolExecutor(THREADS) as pool:

            def each(work: Callable[[int, int], None]) -> None:
                list(pool.map(lambda part: [work(part, i) for i in range(part, WINDOWS, THREADS)], range(THREADS)))

            def plain(part: int, i: int) -> None:
                got = obstore.get_range(store, objects[of[i]], start=at[i] * arrays[0].row_bytes, length=size)
                windows[part].reshape(-1).view(np.uint8)[:] = memoryview(got)

            def direct(part: int, i: int) -> None:
                arrays[of[i]].read_into(at[i], at[i] + RATE_HZ, windows[part])

            def ranged(number: int) -> None:
                own = [i for i in range(WINDOWS) if of[i] == number]
                for few in (own[k : k + BATCH] for k in range(0, len(own), BATCH)):
                    starts = [at[i] * arrays[0].row_bytes for i in few]
                    for got in obstore.get_ranges(
                        store, objects[number], starts=starts, lengths=[size] * len(few), coalesce=0
                    ):
                        windows[number].reshape(-1).view(np.uint8)[:] = memoryview(got)

            def delivered() -> None:  # a new one each time, so that nothing was read ahead before the clock ran
                with Loader(lake, mixture, threads=AHEAD, prefetch=AHEAD) as loader:
                    for _ in range(WINDOWS // BATCH):
                        next(loader)

            plain_s, direct_s, ratio = in_turn(lambda: each(plain), lambda: each(direct))
            ranged_s, direct2_s, over_ranged = in_turn(
                lambda: list(pool.map(ranged, range(RECORDINGS))), lambda: each(direct)
            )
            plain2_s, loader_s, loaded = in_turn(lambda: each(plain), delivered)
            ranged2_s, loader2_s, loaded_ranged = in_turn(lambda: list(pool.map(ranged, range(RECORDINGS))), delivered)
    rate = WINDOWS * size / 1e6
    said = f"{server.name} on loopback, {THREADS} threads"
    return [
        at_least(f"random windows by the direct reader over obstore's get_range; {said}", ratio, "x", 0.7,
                 direct_MB_s=rate / direct_s, obstore_MB_s=rate / plain_s),
        # a single read cannot gain from its neighbours, as the loader's do: no goal
        Figure(figure=f"the same over obstore's get_ranges, {BATCH} a call; {said}", value=over_ranged, unit="x",
               peers={"direct_MB_s": rate / direct2_s, "obstore_MB_s": rate / ranged_s}),
        at_least(f"random windows by the loader, {AHEAD} batches ahead, over obstore's get_range; {said}", loaded,
                 "x", 0.7, loader_MB_s=rate / loader_s, obstore_MB_s=rate / plain2_s),
        at_least(f"random windows by the loader over obstore's get_ranges, {BATCH} a call; {said}", loaded_ranged,
                 "x", 0.7, loader_MB_s=rate / loader2_s, obstore_MB_s=rate / ranged2_s),
        Figure(figure=f"publishing four recordings of 26 MB; {said}", value=RECORDINGS * 25.6 / publish_s, unit="MB/s"),
        Figure(figure=f"opening a recording from an empty cache; {said}", value=open_s / RECORDINGS, unit="s"),
    ]  # fmt: skip


def _made(number: int) -> Recording:
    rng = np.random.Generator(np.random.PCG64(number))
    values = rng.integers(-2000, 2000, (SECONDS * RATE_HZ, CHANNELS)).astype(np.int16)
    lfp = Samples(
        values=values, unit="uV", channels=Channels(ids=tuple(f"c{i}" for i in range(CHANNELS))), modality="lfp",
        valid=np.array([[0.0, float(SECONDS)]]), rate_hz=float(RATE_HZ),
    )  # fmt: skip
    return Recording(
        id=RecordingId("bench", "remote", "1", f"r{number}"), streams={"lfp": lfp}, subject=Subject(id="m"),
        domain_s=(0.0, float(SECONDS)), provenance=Provenance(files=(), reader="bench@1"),
        licence=Licence(spdx="CC0-1.0"),
    )  # fmt: skip


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[Any]:
    """A server on loopback, and the variables under which this process uses it."""
    s3 = _servers()
    before = dict(os.environ)
    with s3.weed() if s3.WEED.exists() else s3.moto() as server:
        os.environ |= server.environment(folder / "cache")
        try:
            yield server
        finally:
            os.environ.clear()
            os.environ |= before


def _servers() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "tests" / "servers" / "s3.py"
    spec = importlib.util.spec_from_file_location("servers_s3", path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found
