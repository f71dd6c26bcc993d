"""The command line as a person meets it: exit codes, one clear sentence for each mistake, JSON that parses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from neurofmx import catalog
from neurofmx.cli import app, main
from neurofmx.ingest.ingest import find_session, ingest_session
from neurofmx.ingest.sessions import Source
from neurofmx.ingest.sources import read_sources, write_sources
from neurofmx.lake import Lake

Run = Callable[..., tuple[int, str, str]]
SIMULATED = "simulated:multimodal@1/sim-m-s1"


@pytest.fixture
def run(lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process: exit status, standard output, standard error."""
    monkeypatch.setenv("NEUROFMX_LAKE", str(lake.root))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["neurofmx", *arguments])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """A lake with one simulated recording and that dataset as its only source."""
    write_sources(lake, [Source(archive="simulated", dataset="multimodal", version="1")])
    ingest_session(find_session(lake, SIMULATED), lake)
    return lake


def _commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found += [(name, part) for part in inner] if inner else [(name,)]
    return found


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_every_command_shows_an_example(run: Run, command: tuple[str, ...]) -> None:
    status, out, _ = run(*command, "--help")
    assert status == 0
    assert f"Example: neurofmx {' '.join(command)}" in out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("sql", "selct 1"), 2, ("SQL query", "recordings")),
        (("sql", "drop view recordings"), 2, ("read only",)),
        (("sql", "select 1", "--format", "yaml"), 2, ("format", "table, json or csv")),
        (("validate", "nowhere.nwb"), 1, ("nowhere.nwb", "a file or a folder")),
        (("decode",), 2, ("a FILE, or --example",)),
        (("fetch", "not an id"), 2, ("archive:dataset@version/name",)),
        (("fetch", "simulated:multimodl@1/x"), 1, ("multimodl", "multimodal")),
        (("list", "dandi"), 2, ("archive:dataset@version",)),
        (("list", "nobody:x@1"), 2, ("archive", "dandi")),
        (("ingest",), 2, ("recording ids, or --all",)),
        (("train", "--recipe", "laptp"), 2, ("laptp", "laptop")),
        (("train", "--set", "optim.learning=1"), 2, ("optim.learning", "unknown setting")),
        (("train", "--set", "optim.lrr=1"), 2, ("optim.lr",)),
        (("train", "--set", "optim.lr=fast"), 2, ("optim.lr", "fast", "float")),
        (("train",), 1, ("no task has recordings", "neurofmx ingest --all")),
        (("explain", "0123456789abcdef"), 1, ("0123456789abcdef",)),
        (("quarantine", "--release", "dandi:x@1/y"), 1, ("dandi:x@1/y", "quarantine")),
    ],
)
def test_each_mistake_is_one_sentence(
    run: Run, arguments: tuple[str, ...], status: int, words: tuple[str, ...]
) -> None:
    found, out, err = run(*arguments)
    assert (found, out) == (status, "")
    assert err.lstrip().startswith("neurofmx: ")  # a progress display leaves a blank line
    assert "Traceback" not in err
    assert [word for word in words if word not in err] == []


def test_unknown_option_is_wrong_usage(run: Run) -> None:
    assert run("sql", "--nonsense")[0] == 2


def test_sql_in_every_format(run: Run, filled: Lake) -> None:
    query = "select recording_id, n_channels from recordings"
    want = [{"recording_id": SIMULATED, "n_channels": catalog.rows(filled, "recordings")[0]["n_channels"]}]
    status, out, _ = run("sql", query, "--format", "json")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == want
    _, out, _ = run("sql", query, "--format", "csv")
    assert out.splitlines()[0].replace('"', "") == "recording_id,n_channels"
    assert SIMULATED in run("sql", query)[1]


def test_sql_as_parquet(run: Run, filled: Lake, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    assert run("sql", "select * from streams", "--out", str(tmp_path / "streams.parquet"))[0] == 0
    assert pq.read_table(tmp_path / "streams.parquet").num_rows == len(catalog.rows(filled, "streams"))


def test_list_remembers_what_it_listed(run: Run, lake: Lake) -> None:
    write_sources(lake, [Source(archive="simulated", dataset="multimodal", version="1")])
    status, out, _ = run("list", "simulated:hard@1", "--json")
    assert status == 0
    names = [json.loads(line)["id"]["name"] for line in out.splitlines()]
    assert names == ["sim-h-s1"]
    assert [s.dataset for s in read_sources(lake)] == ["multimodal"]
    assert {row["dataset"] for row in catalog.rows(lake, "datasets")} == {"hard"}


def test_ingest_reports_refusals_and_goes_on(run: Run, lake: Lake, mirror: Path) -> None:
    write_sources(lake, [Source(archive="folder", dataset="bad", version="1", address=str(mirror / "bad"))])
    names = ["nan_spike_times", "truncated", "duplicate_session_id-sub-nelpyrat_ses-lineartrack_a"]
    assert run("list", "folder:bad@1")[0] == 0
    status, out, _ = run("ingest", *(f"folder:bad@1/{name}" for name in names))
    assert status == 0
    assert out.count("quarantined") == 2
    assert out.count("ingested") == 1
    status, out, _ = run("quarantine", "--json")
    assert {json.loads(line)["recording_id"].rpartition("/")[2] for line in out.splitlines()} == set(names[:2])


def test_a_source_that_is_down_stops_no_other(run: Run, lake: Lake, tmp_path: Path) -> None:
    gone = Source(archive="folder", dataset="gone", version="1", address=str(tmp_path / "gone"))
    write_sources(lake, [gone, Source(archive="simulated", dataset="multimodal", version="1")])
    status, out, err = run("list")
    assert status == 1
    assert SIMULATED in out
    assert "folder:gone@1 was left out" in err


def test_validate_prints_a_line_a_recording(run: Run, mirror: Path) -> None:
    status, out, _ = run("validate", str(mirror / "bad" / "nan_spike_times.nwb"), "--json")
    (line,) = [json.loads(line) for line in out.splitlines()]
    assert (status, line["accepted"]) == (1, False)
    assert any("NaN" in c["evidence"] or "finite" in c["evidence"] for c in line["checks"] if not c["passed"])
    good = mirror / "dandi" / "900005"
    status, out, _ = run("validate", str(good), "--json")
    assert (status, [json.loads(line)["accepted"] for line in out.splitlines()]) == (0, [True])


def test_lake_verify_and_catalog(run: Run, filled: Lake) -> None:
    status, out, err = run("lake", "verify", "--json")
    assert status == 0
    assert all(json.loads(line)["passed"] for line in out.splitlines())
    raw = next(p for p in (filled.root / "raw").rglob("*") if p.is_file())
    raw.write_bytes(b"x")
    status, _, err = run("lake", "verify")
    assert (status, "DAMAGED raw" in err) == (1, True)
    assert "recording_id" in run("catalog")[1]
