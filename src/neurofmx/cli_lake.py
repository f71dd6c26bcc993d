"""The commands of the lake: SQL over its catalog, digests, snapshots."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from neurofmx.cli_common import JsonOption, LakeOption, lines, table
from neurofmx.errors import ConfigError
from neurofmx.lake import Lake


def sql(
    query: str,
    form: Annotated[str, typer.Option("--format", help="table, json or csv")] = "table",
    out: Annotated[Path | None, typer.Option(help="Write the answer as Parquet.")] = None,
    lake: LakeOption = None,
) -> None:
    """Ask the catalog, also while a run is writing.

    Example: neurofmx sql "select task, predictor, value from scores order by 1, 3"
    """
    from neurofmx import catalog

    if form not in ("table", "json", "csv"):
        raise ConfigError("format", got=form, expected="table, json or csv")
    answer = catalog.query(Lake.open(lake), query)
    if out is not None:
        import pyarrow.parquet as pq

        pq.write_table(answer, out)
        print(f"{answer.num_rows} rows: {out}")
    elif form == "json":
        lines(answer.to_pylist())
    elif form == "csv":
        import pyarrow.csv as pc

        pc.write_csv(answer, sys.stdout.buffer)
    else:
        table(f"{answer.num_rows} rows", answer.column_names, (row.values() for row in answer.to_pylist()))


def catalog_(lake: LakeOption = None) -> None:
    """Summary of the lake and the data dictionary.

    Example: neurofmx catalog
    """
    from neurofmx import catalog

    opened = Lake.open(lake)
    table(
        f"catalog of {opened.root}",
        ["table", "rows", "columns"],
        (
            [t, catalog.query(opened, f'select count(*) as n from "{t}"').to_pylist()[0]["n"], ", ".join(columns)]
            for t, columns in catalog.TABLES.items()
        ),
    )


def verify(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Read every published group and raw file again and compare digests.

    Example: neurofmx lake verify
    """
    checks = Lake.open(lake).verify()
    bad = [c for c in checks if not c.passed]
    lines(checks if as_json else [])
    for check in bad:
        print(f"DAMAGED {check.name}: {check.evidence}", file=sys.stderr)
    print(f"{len(checks) - len(bad)} of {len(checks)} digests hold", file=sys.stderr)
    raise SystemExit(1 if bad else 0)


def snapshot(lake: LakeOption = None) -> None:
    """Freeze what the catalog points at now; print the manifest's digest.

    Example: neurofmx lake snapshot
    """
    print(Lake.open(lake).snapshot())
