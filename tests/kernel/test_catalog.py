"""The catalog: strict columns, atomic parts, queries that work while a run writes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from neurofmx import catalog
from neurofmx.errors import ConfigError
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
