"""Faults: writers killed anywhere, two writers of one recording, disks that are full or may not be written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofmx import catalog, collect, parts, snapshots, versions
from neurofmx.errors import Conflict, Denied, NoSpace
from neurofmx.lake import Lake
from neurofmx.types import Samples

from . import nursery
from .lakes import recording, spec, tokens

KILLS, MANY_KILLS, KILLS_A_LAKE = 30, 1000, 50
SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: what a kill leaves does not depend on the disk."""
    if not os.access(SHARED_MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as name:
        yield Path(name)


@contextmanager
def killable() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, nursery.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def kill_one(process: subprocess.Popen[str], lake: Lake, round_: int, rng: random.Random) -> list[str]:
    """Runs a writer for some steps and a moment more, kills it, and returns the snapshots that it took."""
    assert process.stdin is not None
    assert process.stdout is not None
    report = lake.root.parent / "report"
    report.write_text("")
    process.stdin.write(f"{lake.root}\t{round_}\t{report}\n")
    process.stdin.flush()
    pid = int(process.stdout.readline())
    steps, moment_s = rng.randrange(2 * nursery.STEPS), rng.uniform(0, 0.1)
    given_up_at = time.monotonic() + 120
    while len(report.read_text().splitlines()) < steps:
        time.sleep(0.002)
        assert time.monotonic() < given_up_at, "the writer died by itself, or hangs"
    time.sleep(moment_s)
    os.kill(pid, signal.SIGKILL)
    return [line for line in report.read_text().splitlines() if len(line) == 64]


def reads(lake: Lake, digest: str) -> None:
    manifest = snapshots.find(lake, digest)
    frozen = parts.read(lake, "recordings", ["recording_id"], frozen=manifest.catalog["recordings"])
    assert sorted(frozen["recording_id"].to_pylist()) == sorted(manifest.recordings)


def whole(lake: Lake) -> None:
    assert [check for check in lake.verify() if not check.passed] == []


def nothing_is_left_over(lake: Lake) -> None:
    assert [path for path in (lake.root / "tmp").iterdir() if path.name != "pins"] == []
    named = collect.named(lake)
    groups = {str(path.relative_to(lake.root)) for layer in ("recordings", "tokens")
              for path in (lake.root / layer).rglob("*.zarr")}  # fmt: skip
    raw = {path.name for path in (lake.root / "raw").glob("*/*")}
    assert (groups - named.groups, raw - named.raw) == (set(), set())
    rows = catalog.rows(lake, "recordings")
    indexed = {row["recording_id"]: row["group"] for row in catalog.rows(lake, "arrays") if row["kind"] == "recording"}
    assert indexed == {row["recording_id"]: row["path"] for row in rows}
    made_from = {row["child"]: row["parent"] for row in catalog.rows(lake, "lineage")}
    assert made_from == {row["recording_id"]: row["raw_sha256"][0] for row in rows if row["raw_sha256"]}


def kill_many(folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    expected = {r: nursery.work(Lake.open(folder / f"clean{r}"), r) for r in range(nursery.CONTENTS)}
    last, lake = "", Lake.open(folder / "lake")
    with killable() as process:
        for kill in range(kills):
            if kill % KILLS_A_LAKE == 0:  # a lake that keeps every snapshot grows
                last, lake = "", Lake.open(folder / f"lake{kill}")
            round_ = rng.randrange(nursery.CONTENTS)
            taken = kill_one(process, lake, round_, rng)
            last = taken[-1] if taken else last
            whole(lake)
            if last:
                reads(lake, last)
            packed = folder / f"{lake.root.name}-packed"
            if packed.exists():
                whole(Lake.open(packed))
            collect.gc(lake, grace_s=0)
            nothing_is_left_over(lake)
            assert nursery.work(lake, round_) == expected[round_], f"kill {kill} of seed {seed}"
            whole(lake)
        if last:
            found = versions.open(lake, last)
            for row in snapshots.find(lake, last).recordings.values():
                assert found[row["path"].rpartition("-")[0]].attrs["digest"] == row["digest"]


@pytest.mark.slow
def test_a_writer_killed_anywhere_leaves_the_lake_whole(quick: Path) -> None:
    kill_many(quick, KILLS, seed=0)


@pytest.mark.slow
@pytest.mark.long
def test_a_thousand_kills(quick: Path) -> None:
    kill_many(quick, MANY_KILLS, seed=1)


def test_two_writers_of_one_recording(lake: Lake) -> None:
    lake.publish_recording(recording("r", 0))
    at_once, said, done = threading.Barrier(2), [], []

    class Together:
        """Values that are read when both writers have begun."""

        def __init__(self, values: np.ndarray) -> None:
            self.values, self.dtype, self.shape, self.ndim = values, values.dtype, values.shape, values.ndim
            self.met = False

        def __len__(self) -> int:
            return len(self.values)

        def __getitem__(self, rows: slice) -> np.ndarray:
            if not self.met:
                self.met = True
                at_once.wait(30)
            return self.values[rows]

    def write(seed: int) -> None:
        made = recording("r", seed)
        lfp = made.streams["lfp"]
        assert isinstance(lfp, Samples)
        made = replace(made, streams={**made.streams, "lfp": replace(lfp, values=Together(np.asarray(lfp.values)))})
        try:
            done.append(lake.publish_recording(made))
        except Conflict as error:
            said.append(str(error))

    writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [lake.recording_digest("a:b@1/r")] == done
    (text,) = said
    assert "publishing a:b@1/r" in text
    assert f"{done[0][:16]}, published meanwhile" in text
    whole(lake)


def test_two_writers_of_the_same_version_agree(lake: Lake) -> None:
    found: list[str] = []
    writers = [threading.Thread(target=lambda: found.append(lake.publish_recording(recording("r")))) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(found) == 4
    assert set(found) == {lake.recording_digest("a:b@1/r")}
    collect.gc(lake, grace_s=0)
    nothing_is_left_over(lake)
    whole(lake)


def test_collection_breaks_no_pinned_reader_and_no_writer(lake: Lake) -> None:
    lake.publish_recording(recording("r", 0))
    failed: list[BaseException] = []
    stop = threading.Event()

    def keep_trying(step: Callable[[int], object]) -> None:
        i = 0
        while not stop.is_set():
            try:
                step(i := i + 1)
            except BaseException as error:  # noqa: BLE001  (shown below)
                failed.append(error)
                stop.set()

    def read(_: int) -> None:
        with lake.reading():
            opened = lake.recording("a:b@1/r").streams["lfp"]
            time.sleep(0.005)  # time for a collection
            assert isinstance(opened, Samples)
            assert np.asarray(opened.values).shape == (200, 4)

    steps = (
        lambda i: lake.publish_recording(recording("r", i % 3)),
        lambda _: collect.gc(lake, grace_s=0),
        lambda i: snapshots.take(lake) if i % 5 == 0 else time.sleep(0.01),
        read,
        read,
    )
    threads = [threading.Thread(target=keep_trying, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    stop.wait(3)
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    whole(lake)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A mount on a folder, as long as this may mount."""
    try:
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip(f"may not mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def everything_that_writes(lake: Lake, given: Path) -> dict[str, Callable[[], object]]:
    given.write_bytes(b"x" * 1_000_000)
    return {
        "raw": lambda: lake.add_raw(given),
        "recording": lambda: lake.publish_recording(recording("r", 9, rows=100_000)),
        "tokens": lambda: lake.publish_tokens("a:b@1/r", spec(2), tokens(5)),
        "snapshot": lambda: snapshots.take(lake, "another"),
        "pin": lambda: lake.reading().__enter__(),
    }


def test_a_full_disk_is_said_and_the_lake_stays(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        lake = Lake.open(tmp_path / "disk" / "lake")
        lake.publish_recording(recording("r"))
        before, digest = lake.recording_digest("a:b@1/r"), snapshots.take(lake)
        filler = tmp_path / "disk" / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as handle:
            while handle.write(b"x" * 4096):
                pass
        for name, write in everything_that_writes(lake, tmp_path / "given").items():
            with pytest.raises(NoSpace, match=r"disk of .*bytes free.*Free some space"):
                write()
            assert lake.recording_digest("a:b@1/r") == before, name
            whole(lake)
        stray = lake.root / "recordings" / "stray.zarr"
        filler.unlink()
        stray.mkdir()
        (stray / "data").write_bytes(b"x" * 100_000)
        collect.gc(lake, grace_s=0)
        nothing_is_left_over(lake)
        reads(lake, digest)
        assert lake.publish_recording(recording("r", 9)) == lake.recording_digest("a:b@1/r") != before
        whole(lake)


def test_a_full_disk_in_the_middle_of_pointing_is_made_good_later(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.publish_recording(recording("r", 0))
    put, left = catalog.put, [3]

    def full(*args: Any) -> Any:
        if args[1] != "snapshots" and not left[0]:
            raise NoSpace("disk", got="0 bytes free")
        left[0] -= 1
        return put(*args)

    monkeypatch.setattr(catalog, "put", full)
    with pytest.raises(NoSpace):
        lake.publish_recording(recording("r", 1))
    collect.gc(lake, grace_s=0)  # makes room although the note cannot be put yet
    whole(lake)
    monkeypatch.undo()
    snapshots.take(lake)  # puts what was noted
    collect.gc(lake, grace_s=0)
    nothing_is_left_over(lake)
    clean = Lake.open(lake.root.parent / "clean")
    assert lake.recording_digest("a:b@1/r") == clean.publish_recording(recording("r", 1))
    whole(lake)


def test_a_read_only_disk_is_said_and_still_reads(tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    lake.publish_recording(recording("r"))
    digest = snapshots.take(lake)
    writes = everything_that_writes(lake, tmp_path / "given")
    with mounted(lake.root, "--bind", str(lake.root)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(lake.root)], check=True)
        again = Lake.open(lake.root)
        for write in writes.values():
            with pytest.raises(Denied, match=r"read-only disk.*Check the mount"):
                write()
        assert np.asarray(again.recording("a:b@1/r").streams["lfp"].values).shape == (200, 4)  # type: ignore[union-attr]
        assert catalog.query(again, "select count(*) as n from recordings", digest)["n"].to_pylist() == [1]
        whole(again)


def test_a_refused_permission_is_said(lake: Lake) -> None:
    if os.geteuid() == 0:
        pytest.skip("permission bits do not bind root")
    lake.publish_recording(recording("r"))
    os.chmod(lake.root / "tmp", 0o500)
    try:
        with pytest.raises(Denied, match="permission denied"):
            lake.publish_recording(recording("r", 1))
    finally:
        os.chmod(lake.root / "tmp", 0o700)
