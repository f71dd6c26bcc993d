"""The commands of the lake: what they print, as a table and as JSON, and how they end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from neurofmx import catalog, cli
from neurofmx.ingest.ingest import find_session, ingest_session
from neurofmx.ingest.sessions import Source
from neurofmx.ingest.sources import write_sources
from neurofmx.lake import Lake

Run = Callable[..., tuple[int, str, str]]
ONE = "simulated:multimodal@1/sim-m-s1"


@pytest.fixture
def run(filled: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("NEUROFMX_LAKE", str(filled.root))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["neurofmx", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def filled(lake: Lake) -> Lake:
    write_sources(lake, [Source(archive="simulated", dataset="multimodal", version="1")])
    ingest_session(find_session(lake, ONE), lake)
    return lake


def rows(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def test_snapshots_are_taken_listed_compared_and_asked(run: Run, filled: Lake) -> None:
    status, out, _ = run("lake", "snapshot", "v1", "--json")
    (one,) = rows(out)
    assert (status, one["name"], one["recordings"]) == (0, "v1", 1)
    assert one["icechunk"]
    ingest_session(find_session(filled, ONE.replace("s1", "s2")), filled)
    status, out, _ = run("lake", "snapshot", "v1", "--no-icechunk")
    assert (status, out) == (2, "")
    second = run("lake", "snapshot", "v2", "--no-icechunk")[1].strip()
    assert [row["name"] for row in rows(run("lake", "snapshots", "--json")[1])] == ["v1", "v2"]
    assert second[:16] in run("lake", "snapshots")[1]
    found = rows(run("lake", "diff", "v1", second[:10], "--json")[1])
    assert [(row["kind"], row["name"], row["change"]) for row in found] == [
        ("recording", ONE.replace("s1", "s2"), "added")
    ]
    assert "added" in run("lake", "diff", "v1", "v2")[1]
    ask = ("sql", "select count(*) as n from recordings", "--format", "json")
    assert [rows(run(*ask, *more)[1])[0]["n"] for more in (("--snapshot", "v1"), ())] == [1, 2]
    status, _, err = run("lake", "diff", "v1", "v3")
    assert (status, "snapshot v3" in err) == (1, True)


def test_collection_says_what_goes(run: Run, filled: Lake) -> None:
    stray = filled.root / "recordings" / "stray.zarr"
    stray.mkdir()
    (stray / "data").write_bytes(b"x" * 1000)
    (one,) = rows(run("lake", "gc", "--dry-run", "--grace-s", "0", "--json")[1])
    assert (one["kind"], one["bytes"], one["removed"], stray.exists()) == ("group", 1000, False, True)
    assert "too young" in run("lake", "gc")[2]
    status, out, err = run("lake", "gc", "--grace-s", "0")
    assert (status, "recordings/stray.zarr" in out, "1,000 bytes freed" in err, stray.exists()) == (
        0,
        True,
        True,
        False,
    )


def test_a_recording_leaves_and_comes_back(run: Run, filled: Lake, tmp_path: Path) -> None:
    status, out, _ = run("lake", "export", ONE, "--format", "torch-brain", "--out", str(tmp_path / "out"), "--json")
    assert status == 0
    (written,) = rows(out)
    status, out, _ = run("lake", "import", str(written["path"]), "--json")
    (report,) = rows(out)
    assert report["status"] in ("ingested", "quarantined")
    assert (status == 0) == (report["status"] == "ingested")
    assert run("lake", "export", ONE, "--format", "xml", "--out", str(tmp_path))[0] == 2


def test_a_snapshot_is_restored_elsewhere(run: Run, filled: Lake, tmp_path: Path) -> None:
    digest = run("lake", "snapshot", "v1", "--no-icechunk")[1].strip()
    new = tmp_path / "new"
    status, out, err = run("lake", "restore", "v1", "--origin", str(filled.root), "--lake", str(new), "--json")
    assert (status, {row["status"] for row in rows(out)}) == (0, {"equal"}), err
    assert Lake.open(new).snapshot() == digest
    assert run("lake", "restore", "v1", "--lake", str(new))[0] == 1
    assert catalog.rows(Lake.open(new), "recordings")[0]["recording_id"] == ONE
