"""The catalog: strict columns, atomic parts, queries that work while a run writes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from neurofmx import catalog, parts
from neurofmx.errors import ConfigError, NotThere
from neurofmx.lake import Lake


def test_every_table_answers_when_empty(lake: Lake) -> None:
    for table in catalog.TABLES:
        assert catalog.query(lake, f'select * from "{table}"').num_rows == 0


def test_a_part_replaces_the_part_of_its_key(lake: Lake) -> None:
    catalog.put(lake, "datasets", "k/1", [{"dataset_id": "a"}, {"dataset_id": "b"}])
    catalog.put(lake, "datasets", "k/2", [{"dataset_id": "c"}])
    catalog.put(lake, "datasets", "k/1", [{"dataset_id": "d"}])
    assert {r["dataset_id"] for r in catalog.rows(lake, "datasets")} == {"c", "d"}
    assert catalog.query(lake, "select count(*) as n from datasets").to_pylist() == [{"n": 2}]
    catalog.drop(lake, "datasets", "k/2")
    assert [r["dataset_id"] for r in catalog.rows(lake, "datasets")] == ["d"]


def test_keys_that_differ_only_in_odd_characters_do_not_collide(lake: Lake) -> None:
    assert catalog.part_path(lake, "runs", "a/b") != catalog.part_path(lake, "runs", "a:b")


def test_unknown_columns_tables_and_bad_sql_are_named(lake: Lake) -> None:
    with pytest.raises(ConfigError, match="licence"):
        catalog.put(lake, "datasets", "k", [{"license": "MIT"}])
    with pytest.raises(ConfigError, match="recordings"):
        catalog.put(lake, "recording", "k", [])
    with pytest.raises(ConfigError, match="nope"):
        catalog.query(lake, "select nope from recordings")


def test_readers_never_see_half_a_part_while_a_writer_works(lake: Lake) -> None:
    code = (
        "import sys\nfrom neurofmx import catalog\nfrom neurofmx.lake import Lake\n"
        "lake = Lake(__import__('pathlib').Path(sys.argv[1]))\n"
        "for i in range(200):\n"
        "    catalog.put(lake, 'datasets', f'k{i % 7}', [{'dataset_id': str(i)}] * 50)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(lake.root)])
    seen = set()
    while writer.poll() is None:
        seen.add(catalog.query(lake, "select count(*) as n from datasets").to_pylist()[0]["n"])
    assert writer.returncode == 0
    assert {n % 50 for n in seen} == {0}
    assert catalog.query(lake, "select count(*) as n from datasets").to_pylist()[0]["n"] == 350


def test_every_table_and_column_is_described() -> None:
    for name, table in catalog.TABLES.items():
        assert table.about.endswith("."), name
        assert len(set(table.names)) == len(table.names)
        assert all(column.about for column in table.columns), name
        assert catalog.schema(name).names == table.names


def test_a_query_makes_views_of_the_tables_that_it_names() -> None:
    assert catalog.tables_in('select * from Channels join "recordings" using (recording_id)') == [
        "recordings",
        "channels",
    ]
    assert catalog.tables_in("show tables") == list(catalog.TABLES)


def test_a_kept_reader_sees_what_was_put_since(lake: Lake) -> None:
    with catalog.Reader(lake) as reader:
        for i in range(3):
            catalog.put(lake, "datasets", f"k{i % 2}", [{"dataset_id": str(i)}])
            if i == 1:
                parts.compact(lake, "datasets")
            told = reader.query("select dataset_id from datasets order by 1").to_pylist()
            assert [row["dataset_id"] for row in told] == [["0"], ["0", "1"], ["1", "2"]][i]


def test_a_query_of_a_snapshot_reads_the_catalog_of_then(lake: Lake) -> None:
    catalog.put(lake, "datasets", "k", [{"dataset_id": "then"}])
    lake.snapshot("first")
    catalog.put(lake, "datasets", "k", [{"dataset_id": "now"}])
    ask = "select dataset_id from datasets"
    assert catalog.query(lake, ask, snapshot="first").to_pylist() == [{"dataset_id": "then"}]
    assert catalog.query(lake, ask).to_pylist() == [{"dataset_id": "now"}]
    assert catalog.query(lake, "select * from runs", snapshot="first").num_rows == 0
    with pytest.raises(NotThere, match="second"):
        catalog.query(lake, ask, snapshot="second")


def test_summary_counts_what_is_held_refused_and_listed(lake: Lake) -> None:
    def recording(name: str, **columns: object) -> None:
        rid = f"a:b@1/{name}"
        row = {"recording_id": rid, "archive": "a", "dataset": "b", "version": "1", "duration_s": 1800.0, "bytes": 10}
        catalog.put(lake, "recordings", rid, [row | columns])

    recording("r1", subject_id="s1", modalities=["lfp", "spikes"], licence="CC0-1.0")
    recording("r2", subject_id="s1", modalities=["lfp"], licence="CC-BY-4.0")
    for name, released in (("bad", False), ("let-in", True)):
        catalog.put(lake, "quarantine", name, [{"recording_id": f"c:d@2/{name}", "released": released}])
    catalog.put(lake, "datasets", "a:b@1", [{"archive": "a", "dataset": "b", "version": "1", "n_listed": 7}])
    found = catalog.summary(lake)
    none = {"subjects": 0, "hours": 0.0, "bytes": 0, "modalities": [], "licences": []}
    assert list(found.datasets) == [
        {"archive": "a", "dataset": "b", "version": "1", "listed": 7, "recordings": 2, "subjects": 1, "hours": 1.0,
         "bytes": 20, "modalities": ["lfp", "spikes"], "licences": ["CC-BY-4.0", "CC0-1.0"], "refused": 0},
        {"archive": "c", "dataset": "d", "version": "2", "listed": None, "recordings": 0, "refused": 1} | none,
    ]  # fmt: skip
    assert (found.tables["recordings"], found.tables["quarantine"], found.snapshot) == (2, 2, None)
    digest = lake.snapshot("named")
    latest = catalog.summary(lake).snapshot
    assert latest is not None
    assert (latest["snapshot"], latest["name"], latest["n_recordings"]) == (digest, "named", 2)
