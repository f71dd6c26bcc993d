"""The catalog: Parquet parts that are replaced atomically, and DuckDB views over them.

A part holds the rows of one key (one recording, one run, one task), so a new recording costs one part a
table, and any number of readers may query while a run writes.
"""

from __future__ import annotations

import difflib
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurofmx.errors import ConfigError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from neurofmx.lake import Lake

# table -> column -> Arrow type; the data dictionary that `neurofmx catalog` prints
TABLES: dict[str, dict[str, str]] = {
    "datasets": {
        "dataset_id": "string", "archive": "string", "dataset": "string", "version": "string", "address": "string",
        "licence": "string", "citation": "string", "n_listed": "int64", "listed_at": "string",
    },
    "subjects": {
        "subject_key": "string", "archive": "string", "dataset": "string", "subject_id": "string",
        "species": "string", "sex": "string", "age": "string",
    },
    "recordings": {
        "recording_id": "string", "archive": "string", "dataset": "string", "version": "string", "name": "string",
        "subject_id": "string", "species": "string", "session": "string", "task": "string", "start_s": "double",
        "stop_s": "double", "duration_s": "double", "modalities": "list<string>", "n_streams": "int64",
        "n_channels": "int64", "licence": "string", "redistribute": "bool", "citation": "string", "reader": "string",
        "notes": "list<string>", "raw_sha256": "list<string>", "source_url": "list<string>",
        "clock_error_s": "double", "digest": "string", "path": "string", "bytes": "int64", "code_version": "string",
        "ingested_at": "string",
    },
    "streams": {
        "recording_id": "string", "stream": "string", "kind": "string", "modality": "string", "unit": "string",
        "rate_hz": "double", "n": "int64", "n_channels": "int64", "first_s": "double", "last_s": "double",
        "valid_s": "double", "digest": "string",
    },
    "channels": {
        "recording_id": "string", "stream": "string", "row": "int64", "channel": "string", "region": "string",
        "x_um": "double", "y_um": "double", "z_um": "double",
    },
    "intervals": {
        "recording_id": "string", "stream": "string", "row": "int64", "start_s": "double", "stop_s": "double",
        "columns": "string",
    },
    "tokens": {
        "recording_id": "string", "spec": "string", "spec_digest": "string", "stream": "string", "modality": "string",
        "bin_s": "double", "n_bins": "int64", "n_channels": "int64", "n_fields": "int64", "digest": "string",
        "path": "string",
    },
    "checks": {
        "recording_id": "string", "stage": "string", "check_name": "string", "passed": "bool", "severity": "string",
        "evidence": "string", "checked_at": "string",
    },
    "quarantine": {
        "recording_id": "string", "reasons": "list<string>", "source_url": "list<string>",
        "raw_sha256": "list<string>", "released": "bool", "quarantined_at": "string",
    },
    "splits": {
        "split_id": "string", "task": "string", "recording_id": "string", "subject_id": "string",
        "group_name": "string", "unit": "string", "fold": "int64", "start_s": "double", "stop_s": "double",
    },
    "runs": {
        "run_id": "string", "recipe": "string", "recipe_digest": "string", "recipe_json": "string", "fold": "int64",
        "seed": "int64", "snapshot": "string", "tasks": "list<string>", "recordings": "list<string>",
        "path": "string", "steps": "int64", "parameters": "int64", "best_valid": "double", "seconds": "double",
        "history": "string", "code_version": "string", "started_at": "string",
    },
    "scores": {
        "score_id": "string", "task": "string", "predictor": "string", "metric": "string", "value": "double",
        "ci_low": "double", "ci_high": "double", "n": "int64", "n_units": "int64", "unit": "string",
        "split": "string", "recordings": "list<string>", "checkpoint": "string", "snapshot": "string",
        "seed": "int64", "baseline": "string", "delta": "double", "delta_low": "double", "delta_high": "double",
        "verdict": "string", "recipe": "string", "details": "string", "code_version": "string",
        "scored_at": "string",
    },
    "transfer": {
        "cell_id": "string", "matrix": "string", "source": "string", "target": "string", "metric": "string",
        "value": "double", "scratch": "double", "random_init": "double", "gain": "double", "gain_low": "double",
        "gain_high": "double", "n": "int64", "n_units": "int64", "simulated": "bool", "differs": "string",
        "seed": "int64", "snapshot": "string", "checkpoint": "string", "details": "string",
    },
    "findings": {
        "finding_id": "string", "task": "string", "analysis": "string", "family": "string", "subject": "string",
        "headline": "string", "value": "double", "null": "list<double>", "p": "double", "q": "double",
        "ci_low": "double", "ci_high": "double", "status": "string", "reason": "string", "scalars": "string",
        "arrays": "string", "caveats": "list<string>", "provenance": "string", "found_at": "string",
    },
    "lineage": {
        "child": "string", "child_kind": "string", "parent": "string", "parent_kind": "string", "detail": "string",
    },
}  # fmt: skip


def schema(table: str) -> pa.Schema:
    """The Arrow schema of a table.

    Raises:
        ConfigError: there is no such table.
    """
    import pyarrow as pa

    if table not in TABLES:
        raise ConfigError("catalog table", got=table, expected=f"one of {', '.join(TABLES)}")
    types = {
        "string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_(),
        "list<string>": pa.list_(pa.string()), "list<double>": pa.list_(pa.float64()),
    }  # fmt: skip
    return pa.schema([(name, types[kind]) for name, kind in TABLES[table].items()])


def put(lake: Lake, table: str, key: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes the rows of one key, replacing all that the key had; readers see the old or the new, never a part.

    Args:
        lake: the lake.
        table: a name in `TABLES`.
        key: what the rows belong to (a recording, run or task id); becomes the file's name.
        rows: mappings column -> value; a column left out is null.

    Raises:
        ConfigError: a row has a column that the table lacks.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields, listed = schema(table), list(rows)
    for row in listed:
        for name in row:
            if name not in fields.names:
                near = difflib.get_close_matches(name, fields.names, n=1)
                raise ConfigError(
                    f"column {name!r} of catalog table {table}",
                    expected=f"one of {', '.join(fields.names)}",
                    fix=f"Did you mean {near[0]!r}?" if near else "",
                )
    target = part_path(lake, table, key)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
    pq.write_table(pa.Table.from_pylist([dict(row) for row in listed], schema=fields), partial, compression="zstd")
    os.replace(partial, target)
    return target


def drop(lake: Lake, table: str, key: str) -> None:
    """Empties the part of a key (an empty part stays, so that a reader that has listed it still finds it)."""
    if part_path(lake, table, key).exists():
        put(lake, table, key, [])


def part_path(lake: Lake, table: str, key: str) -> Path:
    """The Parquet file that holds the rows of one key."""
    from neurofmx.provenance import digest_of
    from neurofmx.types import sanitise

    readable = sanitise(key)
    name = readable if readable == key else f"{readable[:120]}-{digest_of(key)[:8]}"
    return lake.root / "catalog" / table / f"{name}.parquet"


def rows(lake: Lake, table: str, key: str | None = None) -> list[dict[str, Any]]:
    """All rows of a table, or of one key, by pyarrow alone (no DuckDB needed)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = schema(table)
    folder = lake.root / "catalog" / table
    parts = sorted(folder.glob("*.parquet")) if key is None else [part_path(lake, table, key)]
    # a part written before a column was added lacks it: null is what is known about it
    read = [pq.ParquetFile(part).read() for part in parts if part.exists()]
    tables = [pa.concat_tables([t, fields.empty_table()], promote_options="default").select(fields.names) for t in read]
    return pa.concat_tables(tables).to_pylist() if tables else []


def connect(lake: Lake) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with one view per table; it holds no lock on the lake."""
    import duckdb

    con = duckdb.connect(":memory:")
    for table in TABLES:
        folder = lake.root / "catalog" / table
        fields = schema(table)
        con.register(f"_{table}_none", fields.empty_table())
        source = f"select * from _{table}_none"
        if next(folder.glob("*.parquet"), None) is not None:
            glob = str(folder / "*.parquet").replace("'", "''")
            source += f" union all by name select * from read_parquet('{glob}', union_by_name=true)"
        con.execute(f'create view "{table}" as {source}')
    return con


def query(lake: Lake, sql: str) -> pa.Table:
    """Runs SQL over the catalog's views.

    Raises:
        ConfigError: DuckDB refuses the query; its own message is kept.
    """
    import duckdb

    with connect(lake) as con:
        try:
            kinds = {statement.type for statement in con.extract_statements(sql)}
            if not kinds <= {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI}:
                raise ConfigError("SQL query", got=sql, expected="a select: the catalog is read only here")
            answer = con.sql(sql)
        except duckdb.Error as error:
            raise ConfigError("SQL query", got=str(error).strip(), fix=f"Tables: {', '.join(TABLES)}.") from error
        if answer is None:
            raise ConfigError("SQL query", got=sql, expected="a select")
        return answer.to_arrow_table()
