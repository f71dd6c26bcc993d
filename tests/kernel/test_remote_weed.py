"""SeaweedFS: who may write, and machines that write at once as processes of their own, some of them killed."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from neurofmx import catalog, parts, remote_client
from neurofmx.errors import Denied
from neurofmx.lake import Lake

pytestmark = pytest.mark.slow
MACHINES, PUTS = 3, 20


def module(name: str) -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "servers" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"servers_{name}", path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


s3 = module("s3")


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with s3.weed() as started:
        yield started


@pytest.fixture
def place(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.environment(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.bucket}/{uuid.uuid4().hex}"


def started(code: str, *arguments: object, cache: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"NEUROFMX_CACHE": str(cache)},
    )


WRITER = """
    import sys
    from neurofmx import catalog, parts
    from neurofmx.lake import Lake
    parts.LOOSE = 7
    lake, name, n = Lake.open(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    for i in range(n):
        catalog.put(lake, "channels", f"{name}-{i}", [{"recording_id": name, "row": i}])
        catalog.put(lake, "channels", "of all", [{"recording_id": "all", "row": i}])
"""


def test_machines_at_once_lose_no_row_and_no_merge(place: str, tmp_path: Path) -> None:
    writers = [started(WRITER, place, f"m{i}", PUTS, cache=tmp_path / f"m{i}") for i in range(MACHINES)]
    lake, seen = Lake.open(place), [0]
    while any(writer.poll() is None for writer in writers):
        seen.append(parts.count(lake, "channels"))
    assert [writer.returncode for writer in writers] == [0] * MACHINES
    assert seen == sorted(seen)  # no reader misses a row that was there, nor sees one twice
    rows = catalog.rows(lake, "channels")
    assert len(rows) == MACHINES * PUTS + 1
    assert {(r["recording_id"], r["row"]) for r in rows if r["recording_id"] != "all"} == {
        (f"m{i}", row) for i in range(MACHINES) for row in range(PUTS)
    }
    assert all(check.passed for check in lake.verify())


def test_killed_writers_leave_whole_rows(place: str, tmp_path: Path) -> None:
    lake, rng = Lake.open(place), random.Random(0)
    for turn in range(6):  # of one machine: each finds what the killed one before left in the working copy
        writer = started(WRITER, place, f"t{turn}", 1000, cache=tmp_path / "m")
        until = time.monotonic() + 30
        while f"t{turn}-0" not in _keys(lake) and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 0.4))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        rows = [r["row"] for r in catalog.rows(lake, "channels") if r["recording_id"] == f"t{turn}"]
        assert sorted(rows) == list(range(len(rows))) and rows
    assert all(check.passed for check in lake.verify())


def _keys(lake: Lake) -> set[str]:
    return {f"{r['recording_id']}-{r['row']}" for r in catalog.rows(lake, "channels")}


@pytest.mark.parametrize("key", ["nobody", ""])
def test_who_is_not_known_is_denied(place: str, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    Lake.open(place)
    if key:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    else:
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    remote_client._client.cache_clear()
    try:
        with pytest.raises(Denied, match="403"):
            Lake.open(place)
    finally:
        remote_client._client.cache_clear()
