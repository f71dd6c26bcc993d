"""Every contract on the catalog holds for good rows and is seen to fail on a row planted against it."""

from __future__ import annotations

import re

import pytest

from neurofmx import catalog
from neurofmx.ingest.contracts import RULES, validate_tables
from neurofmx.lake import Lake

GOOD = {
    "recordings": {
        "recording_id": "sim:a@1/good", "subject_id": "s1", "licence": "MIT", "reader": "formats.nwb@1",
        "digest": "0" * 64, "start_s": 0.0, "stop_s": 2.0, "duration_s": 2.0, "clock_error_s": 0.0, "n_streams": 1,
        "modalities": ["spikes"], "raw_sha256": ["1" * 64], "source_url": ["file:///x"],
    },
    "scores": {
        "score_id": "good", "task": "t", "split": "f", "predictor": "ridge", "metric": "r2", "verdict": "better",
        "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "delta": 0.1, "delta_low": 0.0, "delta_high": 0.2, "n": 100,
        "n_units": 10, "recordings": ["sim:a@1/good"], "checkpoint": "",
    },
}  # fmt: skip
KEYS = {"recordings": "recording_id", "scores": "score_id"}
# table -> rule -> what the planted row has instead of the good value
PLANTED = {
    "recordings": {
        "id_unique": {"twice": True},
        "id_form": {"recording_id": "recordings-without-archive"},
        "digest_form": {"digest": None},
        "subject_id_present": {"subject_id": ""},
        "licence_present": {"licence": None},
        "reader_present": {"reader": ""},
        "stop_after_start": {"start_s": 2.0, "duration_s": 0.0},
        "duration_agrees": {"duration_s": 1.5},
        "clock_error_stated": {"clock_error_s": None},
        "has_streams": {"n_streams": 0},
        "has_modalities": {"modalities": []},
        "has_raw_files": {"raw_sha256": []},
        "raw_digests": {"raw_sha256": ["short"]},
        "raw_urls": {"source_url": []},
        "stream_rows": {"n_streams": 2},
        "streams_after_start": {"start_s": 0.5, "duration_s": 1.5},
        "streams_before_stop": {"stop_s": 1.0, "duration_s": 1.0},
        "no_blocked": {"blocked": True},
    },
    "scores": {
        "id_unique": {"twice": True},
        "task_present": {"task": ""},
        "predictor_present": {"predictor": None},
        "metric_present": {"metric": ""},
        "value_known": {"value": None},
        "value_above_ci_low": {"ci_low": 0.55},
        "value_below_ci_high": {"ci_high": 0.45},
        "delta_above_low": {"delta_low": 0.15},
        "delta_below_high": {"delta_high": 0.05},
        "units_within_n": {"n": 9},
        "has_units": {"n_units": 0, "verdict": ""},
        "has_recordings": {"recordings": []},
        "recordings_known": {"recordings": ["sim:a@1/good", "sim:a@1/unheard-of"]},
        "beside_chance": {"task": "never scored by chance"},
        "checkpoint_named": {"predictor": "neurofmx"},
        "no_overclaim": {"n_units": 4},
        "verdict_known": {"verdict": "best"},
    },
}


def put(lake: Lake, table: str, name: str, **changes) -> str:
    """One row, with the stream and check rows that go with it; returns its id."""
    row = {k: v for k, v in changes.items() if k not in ("twice", "blocked")}
    ident = row.get(KEYS[table]) or (f"sim:a@1/{name}" if table == "recordings" else name)
    rows = [GOOD[table] | row | {KEYS[table]: ident}] * (2 if changes.get("twice") else 1)
    catalog.put(lake, table, name, rows)
    if table == "recordings":
        stream = {"recording_id": ident, "stream": "units", "first_s": 0.0, "last_s": 2.0}
        catalog.put(lake, "streams", name, [stream])
        check = {"recording_id": ident, "stage": "ingest", "check_name": "c", "severity": "block"}
        catalog.put(lake, "checks", name, [check | {"passed": not changes.get("blocked")}])
    return ident


def good(lake: Lake) -> None:
    put(lake, "recordings", "good")
    put(lake, "scores", "good")
    put(lake, "scores", "chance", predictor="chance", verdict="", delta=float("nan"))


def test_good_rows_hold_and_the_page_needs_no_network(lake, tmp_path):
    good(lake)
    checks = validate_tables(lake, tmp_path / "docs")
    assert [c for c in checks if not c.passed] == []
    assert len(checks) == 2 + sum(map(len, RULES.values()))
    pages = list((tmp_path / "docs").rglob("*.html"))
    assert len(pages) >= 5
    for page in pages:
        text = page.read_text()
        assert not re.search(r"<script|(?:src|<link[^>]*href)=\"https?:|url\(.?https?:", text), page
    assert "scores.no_overclaim" in (tmp_path / "docs" / "index.html").read_text()


def test_an_empty_catalog_is_said_to_be_empty(lake):
    assert [(c.name, c.passed, c.severity) for c in validate_tables(lake)] == [
        ("recordings.rows", False, "warn"),
        ("scores.rows", False, "warn"),
    ]


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> tuple[dict, dict]:
    """Checks of a catalog with one row planted against each rule, and the planted ids."""
    lake = Lake.open(tmp_path_factory.mktemp("broken"))
    good(lake)
    ids = {
        (table, rule): put(lake, table, f"breaks-{rule}", **changes)
        for table, rules in PLANTED.items()
        for rule, changes in rules.items()
    }
    return {check.name: check for check in validate_tables(lake)}, ids


@pytest.mark.parametrize(("table", "rule"), [(t, rule.name) for t, rules in RULES.items() for rule in rules])
def test_a_planted_row_breaks_its_rule(broken, table, rule):
    checks, ids = broken
    check = checks[f"{table}.{rule}"]
    assert not check.passed and check.severity == "block"
    assert ids[table, rule] in check.evidence
