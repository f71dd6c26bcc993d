"""Ingest: fetching over loopback against a plain download, judging against reading, publishing."""

from __future__ import annotations

import shutil
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any, cast

import numpy as np

from bench.figure import Figure, at_most, in_turn, seconds
from neurofmx.ingest import checks, governance
from neurofmx.ingest.fetch import fetch_file
from neurofmx.ingest.formats.table import read
from neurofmx.ingest.mirror_server import MirrorServer
from neurofmx.ingest.sessions import RemoteFile, Session
from neurofmx.lake import Lake
from neurofmx.provenance import digest_file
from neurofmx.types import Licence, RawFile, RecordingId, Subject

SIZE = 64 << 20
MINUTES, CHANNELS, RATE_HZ = 10, 32, 1000.0


def figures() -> list[Figure]:
    """A 64 MiB file over loopback; a ten-minute NWB file of 50 units and 32 channels of LFP."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_fetching(Path(folder)), *_judging(Path(folder))]


def _fetching(folder: Path) -> list[Figure]:
    served = folder / "served"
    served.mkdir()
    (served / "big.bin").write_bytes(np.random.default_rng(0).bytes(SIZE))
    sha256, lakes = digest_file(served / "big.bin"), iter(range(100))
    server = MirrorServer(served)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"{server.url}/big.bin"
        remote = RemoteFile(path="big.bin", url=url, size=SIZE, digests={"sha256": sha256})

        def plainly() -> None:
            with urllib.request.urlopen(url) as answer, (folder / "plain.bin").open("wb") as out:  # noqa: S310
                shutil.copyfileobj(answer, out, 1 << 20)

        def checked() -> None:
            fetch_file(remote, Lake.open(folder / f"lake{next(lakes)}"))

        ours, plain, ratio = in_turn(checked, plainly, repeats=3)
    finally:
        server.shutdown()
        server.server_close()
    what = "fetching 64 MiB over loopback, digest checked and synced to disk, over a bare download"
    return [at_most(what, ratio, "x", 4.0, ours_s=ours, bare_s=plain)]


def _judging(folder: Path) -> list[Figure]:
    path = folder / "session.nwb"
    _write_nwb(path)
    rid = RecordingId("folder", "bench", "1", "session")
    url = path.as_uri()
    session = Session(
        id=rid, files=(RemoteFile(path=path.name, url=url),), reader="nwb", subject=Subject(id="s1"),
        licence=Licence(spdx="CC0-1.0"),
    )  # fmt: skip
    raw = (RawFile(path=path.name, url=url, sha256=digest_file(path), size=path.stat().st_size),)
    recording = read("nwb", folder, session, raw)

    def judged() -> None:
        checks.judge_files(folder, session)
        governance.judge_files(folder, session)
        checks.judge(recording)
        governance.judge(recording)

    judging, reading, ratio = in_turn(judged, lambda: read("nwb", folder, session, raw), repeats=3)
    lake = Lake.open(folder / "published")
    publish_s = seconds(lambda: lake.publish_recording(recording))
    megabytes = path.stat().st_size / 1e6
    return [
        at_most(f"judging a recording over reading it, NWB of {megabytes:.0f} MB", ratio, "x", 3.0,
                judging_s=judging, reading_s=reading),
        Figure(figure="publishing that recording", value=megabytes / publish_s, unit="MB/s"),
    ]  # fmt: skip


def _write_nwb(path: Path) -> None:
    from datetime import UTC, datetime

    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.ecephys import LFP, ElectricalSeries
    from pynwb.file import Subject as NwbSubject

    rng = np.random.default_rng(1)
    began = datetime(2000, 1, 1, tzinfo=UTC)
    nwb = cast(Any, NWBFile(session_description="bench", identifier="bench", session_start_time=began))
    nwb.subject = NwbSubject(subject_id="s1", species="Mus musculus", age="P90D", sex="U")
    group = nwb.create_electrode_group("g", description="g", location="CA1", device=nwb.create_device("d"))
    for _ in range(CHANNELS):
        nwb.add_electrode(location="CA1", group=group)
    region = nwb.create_electrode_table_region(list(range(CHANNELS)), "all")
    n = round(MINUTES * 60 * RATE_HZ)
    values = rng.normal(scale=200.0, size=(n, CHANNELS)).astype(np.int16)
    lfp = cast(Any, ElectricalSeries)(name="lfp", data=values, electrodes=region, rate=RATE_HZ, conversion=1e-6)
    nwb.create_processing_module("ecephys", "lfp").add(cast(Any, LFP)(electrical_series=lfp))
    for _ in range(50):
        nwb.add_unit(spike_times=np.sort(rng.uniform(0, MINUTES * 60, 3000)))
    with cast(Any, NWBHDF5IO)(path, "w") as io:
        io.write(nwb)
