"""The whole: the demo on a fresh lake, what orchestration adds to the plain functions, how light a start is."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.figure import Figure, at_most, in_turn, seconds

ROOT = Path(__file__).resolve().parents[1]
MIRROR = Path(os.environ.get("NEUROFMX_MIRROR", ROOT.parent / "shared" / "mirror"))
N_RECORDINGS = 10


def figures() -> list[Figure]:
    """Size and start-up, orchestration of ten short recordings, the demo; with the mirror where there is one."""
    found = [_size(), *_start(), *_orchestration(), *_demo("sample + simulated", 300.0)]
    if (MIRROR / "MIRROR.md").exists():
        found += _demo("sample + simulated + mirror", 1200.0, "--mirror", str(MIRROR))
    return found


def _size() -> Figure:
    files = (path for path in Path(sys.prefix).rglob("*") if path.is_file() and not path.is_symlink())
    return Figure(figure="the installed environment", value=sum(f.stat().st_size for f in files) / 1e9, unit="GB")


def _start() -> list[Figure]:
    cli = str(Path(sys.executable).with_name("neurofmx"))

    def of(*command: str) -> float:
        subprocess.run(command, check=True, capture_output=True)
        return statistics.median(
            seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(5)
        )

    bare = of(sys.executable, "-c", "pass")
    return [
        at_most(
            "import neurofmx, in a new process", of(sys.executable, "-c", "import neurofmx"), "s", 0.5, python=bare
        ),
        at_most("neurofmx --help", of(cli, "--help"), "s", 0.7, python=bare),
    ]


def _orchestration() -> list[Figure]:
    """The same short recordings by the plain functions, through Dagster in this process, and in one process each."""
    import dagster as dg

    from neurofmx.assets.definitions import definitions
    from neurofmx.assets.materialize import materialize_recordings
    from neurofmx.ingest import simulate
    from neurofmx.ingest.ingest import ingest_session
    from neurofmx.ingest.preview import preview_png
    from neurofmx.ingest.sessions import Source
    from neurofmx.ingest.simulate import SimSpec
    from neurofmx.ingest.sources import list_source, write_sources
    from neurofmx.lake import Lake
    from neurofmx.pipeline import tokens_of

    source = Source(archive="simulated", dataset="short", version="1")
    rows = tuple(SimSpec(seed=i, duration_s=12.0, n_units=6, subject=f"s{i:03d}") for i in range(N_RECORDINGS))
    simulate.SIMULATED = {**simulate.SIMULATED, "short": rows}
    with tempfile.TemporaryDirectory() as folder:
        homes = iter(range(1000))

        def fresh() -> Lake:
            lake = Lake.open(Path(folder) / f"lake{next(homes)}")
            write_sources(lake, [source])
            return lake

        def plainly() -> None:
            lake = fresh()
            for session in list_source(lake, source):
                ingest_session(session, lake)
                preview_png(lake.recording(session.id))  # the recording asset draws it too
                tokens_of(lake, session.id)

        def orchestrated() -> None:
            lake = fresh()
            home = lake.root / "dagster"
            home.mkdir()
            with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance:
                keys = [str(session.id) for session in list_source(lake, source)]
                materialize_recordings(definitions(lake), instance, lake, keys)

        through, plain, _ = in_turn(orchestrated, plainly, repeats=3)
        added = (through - plain) / N_RECORDINGS
        return [
            at_most("orchestration in this process, added to a recording", added, "s", 0.6,
                    dagster_s=through / N_RECORDINGS, plain_s=plain / N_RECORDINGS, process_a_run_s=_process_a_run()),
        ]  # fmt: skip


def _process_a_run() -> float:
    """Seconds that one run in a process of its own costs before it does anything: loading the code and Dagster."""
    code = "import neurofmx.assets.definitions as d, dagster; d.definitions(d.Lake.open()).get_repository_def()"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code]
        environment = os.environ | {"NEUROFMX_LAKE": folder}
        return seconds(lambda: subprocess.run(command, check=True, capture_output=True, env=environment))


def _demo(what: str, limit_s: float, *options: str) -> list[Figure]:
    """The demo on a fresh lake in a process of its own: wall seconds and peak memory of the largest process."""
    code = (
        "import resource, subprocess, sys, time; began = time.perf_counter(); "
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
        "print(done.returncode, time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    cli = str(Path(sys.executable).with_name("neurofmx"))
    with tempfile.TemporaryDirectory() as folder:
        lake = str(Path(folder) / "lake")
        environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
        command = [sys.executable, "-c", code, cli, "demo", "--lake", lake, *options]
        printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    status, wall_s, peak_kb = printed.split()
    if status != "0":
        raise SystemExit(f"the demo ({what}) ended with {status}: run `neurofmx demo` to see why")
    return [
        at_most(f"neurofmx demo, {what}, fresh lake", float(wall_s), "s", limit_s),
        at_most(f"peak memory of it, {what}", float(peak_kb) / 1e6, "GB", 4.0),
    ]
