"""The catalog: DuckDB views over Parquet parts, and what a summary of a lake says.

Writing and reading without DuckDB are in `parts`; the tables themselves are rows of `tables`. A query makes
views of the tables that it names, so its cost is theirs alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neurofmx import parts
from neurofmx.errors import ConfigError, LakeCorrupt
from neurofmx.parts import drop, part_path, put, put_table, rows
from neurofmx.tables import TABLES, schema

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from neurofmx.lake import Lake

__all__ = [
    "TABLES", "Reader", "Summary", "connect", "drop", "part_path", "put", "put_table", "query", "rows", "schema",
    "summary", "tables_in",
]  # fmt: skip


def tables_in(sql: str) -> list[str]:
    """The tables whose names occur in a query, as words; all tables where none does (``show tables``)."""
    words = {word.lower() for word in re.findall(r"\w+", sql)}
    return [table for table in TABLES if table in words] or list(TABLES)


class Reader:
    """One DuckDB connection kept over many queries; a view is made again only when its table has changed.

    For one thread at a time; it holds no lock on the lake.

    Args:
        lake: the lake.
        snapshot: name or digest of a snapshot whose catalog is read; the present one when empty.
    """

    def __init__(self, lake: Lake, snapshot: str = "") -> None:
        import duckdb

        self._lake, self._frozen = lake, _frozen(lake, snapshot)
        self._con = duckdb.connect(":memory:")
        self._con.execute("set parquet_metadata_cache = true")
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._views: dict[str, str] = {}
        self._caches: dict[str, parts.Cache] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._con.close()

    def refresh(self, tables: Iterable[str]) -> duckdb.DuckDBPyConnection:
        """Brings the views of these tables up to date; returns the connection that has them."""
        for table in tables:
            frozen = None if self._frozen is None else self._frozen.get(table, ())
            now = parts.state(self._lake, table, frozen, self._caches.setdefault(table, {}))
            if self._seen.get(table) != now.stamp:
                body = _view(self._con, table, now)
                if self._views.get(table) != body:
                    self._con.execute(f'create or replace view "{table}" as {body}')
                self._seen[table], self._views[table] = now.stamp, body
        return self._con

    def query(self, sql: str) -> pa.Table:
        """Runs SQL over the views of the tables that it names.

        Raises:
            ConfigError: DuckDB refuses the query; its own message is kept.
            LakeCorrupt: a file of the catalog is gone or damaged.
        """
        import duckdb

        gone = ""
        for _ in range(parts.ATTEMPTS):
            con = self.refresh(tables_in(sql))
            try:
                return _answer(con, sql)
            except duckdb.IOException as error:  # a merge, or a collection, took a base away meanwhile
                gone = str(error).strip()
                self._seen.clear()
        raise LakeCorrupt("catalog", got=gone, expected="the files that it names", fix="Run: neurofmx lake verify")


def connect(lake: Lake, tables: Iterable[str] = tuple(TABLES), snapshot: str = "") -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with one view for each of these tables; it holds no lock on the lake."""
    return Reader(lake, snapshot).refresh(tables)


def query(lake: Lake, sql: str, snapshot: str = "") -> pa.Table:
    """Runs SQL over the catalog's views.

    Args:
        lake: the lake.
        sql: a select, over the tables of `TABLES`.
        snapshot: name or digest of a snapshot: the catalog as it was then.

    Raises:
        ConfigError: DuckDB refuses the query; its own message is kept.
        NotThere: there is no such snapshot.
    """
    with Reader(lake, snapshot) as reader:
        return reader.query(sql)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a lake holds.

    Args:
        datasets: a mapping for each version of a dataset: archive, dataset, version, listed, recordings, subjects,
            hours, bytes, modalities, licences, refused.
        snapshot: the row of the latest snapshot, None where none was taken.
        tables: table -> number of rows.
    """

    datasets: tuple[dict[str, Any], ...]
    snapshot: dict[str, Any] | None
    tables: dict[str, int]


def summary(lake: Lake) -> Summary:
    """What a lake holds: its datasets, its latest snapshot, the rows of its tables."""
    with Reader(lake) as reader:
        latest = reader.query("select * from snapshots order by taken_at desc, snapshot limit 1").to_pylist()
        return Summary(
            datasets=tuple(reader.query(_DATASETS).to_pylist()),
            snapshot=latest[0] if latest else None,
            tables={table: parts.count(lake, table) for table in TABLES},
        )


_DATASETS = r"""
with held as (
    select archive, dataset, version, count(*) as recordings, count(distinct subject_id) as subjects,
        sum(duration_s) / 3600 as hours, sum(bytes)::bigint as bytes,
        list_sort(list_distinct(flatten(list(modalities)))) as modalities,
        list_sort(list(distinct licence) filter (where licence <> '')) as licences
    from recordings group by all
), parted as (
    select regexp_extract(recording_id, '^([^:]*):([^@]*)@([^/]*)/', ['archive', 'dataset', 'version']) as id
    from quarantine where not released
), outside as (
    select id.archive as archive, id.dataset as dataset, id.version as version, count(*) as refused
    from parted group by all
), listed as (
    select archive, dataset, version, max(n_listed) as listed from datasets group by all
)
select archive, dataset, version, listed, coalesce(recordings, 0) as recordings, coalesce(subjects, 0) as subjects,
    coalesce(hours, 0) as hours, coalesce(bytes, 0) as bytes, coalesce(modalities, []) as modalities,
    coalesce(licences, []) as licences, coalesce(refused, 0) as refused
from held full join outside using (archive, dataset, version) full join listed using (archive, dataset, version)
order by archive, dataset, version
"""


def _answer(con: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    import duckdb

    try:
        kinds = {statement.type for statement in con.extract_statements(sql)}
        if not kinds <= {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI}:
            raise ConfigError("SQL query", got=sql, expected="a select: the catalog is read only here")
        answer = con.sql(sql)
        if answer is None:
            raise ConfigError("SQL query", got=sql, expected="a select")
        return answer.to_arrow_table()
    except duckdb.IOException:
        raise
    except duckdb.Error as error:
        raise ConfigError("SQL query", got=str(error).strip(), fix=f"Tables: {', '.join(TABLES)}.") from error


def _view(con: duckdb.DuckDBPyConnection, table: str, now: parts.State) -> str:
    """The view of a table: bases where they lie, less the rows that are hidden, and loose parts from memory.

    The oldest base comes first: DuckDB plans a join by the statistics of a union's first member.
    """
    import pyarrow as pa

    sources = []
    for number, (base, hidden) in enumerate(now.bases):
        wanted = ", ".join(
            f'"{c.name}"' if c.name in base.columns else f'null::{_TYPES[c.type]} as "{c.name}"'
            for c in TABLES[table].columns
        )
        path, without = str(base.path).replace("'", "''"), base.rows_of(hidden)
        if len(without):
            con.register(f"_{table}_{number}", pa.table({"row": without}))
            sources.append(
                f"select {wanted} from read_parquet('{path}', file_row_number = true) "
                f'where file_row_number not in (select row from "_{table}_{number}")'
            )
        else:
            sources.append(f"select {wanted} from read_parquet('{path}')")
    con.register(f"_{table}", now.loose)
    sources.append(f'select * from "_{table}"')
    return " union all ".join(sources)


_TYPES = {
    "string": "varchar", "int64": "bigint", "double": "double", "bool": "boolean", "list<string>": "varchar[]",
    "list<int64>": "bigint[]", "list<double>": "double[]",
}  # fmt: skip


def _frozen(lake: Lake, snapshot: str) -> Mapping[str, Sequence[str]] | None:
    """Table -> base names of a snapshot, None for the present."""
    if not snapshot:
        return None
    from neurofmx import snapshots

    return snapshots.find(lake, snapshot).catalog
