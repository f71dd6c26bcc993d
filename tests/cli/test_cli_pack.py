"""`neurofmx lake pack` and `lake convert`: what they print, and what stays behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurofmx import catalog
from neurofmx.cli import main
from neurofmx.ingest.ingest import find_session, ingest_session
from neurofmx.ingest.sessions import Source
from neurofmx.ingest.sources import write_sources
from neurofmx.lake import Lake

SIMULATED = "simulated:multimodal@1/sim-m-s1"


def test_pack_and_convert(lake: Lake, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_sources(lake, [Source(archive="simulated", dataset="multimodal", version="1")])
    ingest_session(find_session(lake, SIMULATED), lake)
    monkeypatch.setenv("NEUROFMX_LAKE", str(lake.root))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["neurofmx", "lake", *arguments])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    status, _, err = run("pack", "--out", str(tmp_path / "tiny"), "--max-mb", "0.01")
    assert status == 1
    assert SIMULATED in err
    status, out, err = run("pack", "--out", str(tmp_path / "small"), "--max-mb", "500", "--json")
    assert (status, json.loads(out)["recordings"]) == (0, [SIMULATED])
    assert "1 recordings" in err
    assert Lake.open(tmp_path / "small").recording_digest(SIMULATED) == lake.recording_digest(SIMULATED)
    status, out, _ = run("convert", "--codec", "lz4", "--json")
    assert (status, len(out.splitlines())) == (0, 1)
    assert {row["codec"] for row in catalog.rows(lake, "arrays")} == {"lz4"}
    status, _, err = run("convert", "--codec", "zip")
    assert status == 2
    assert "none or lz4" in err
