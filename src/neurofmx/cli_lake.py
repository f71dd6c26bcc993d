"""The commands of the lake: SQL over its catalog, digests, snapshots, what changed, what nothing names."""

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
    snapshot: Annotated[str, typer.Option(help="Name or digest of a snapshot: the catalog as it was then.")] = "",
    lake: LakeOption = None,
) -> None:
    """Ask the catalog, also while a run is writing, or as it was in a snapshot.

    Example: neurofmx sql "select task, predictor, value from scores order by 1, 3"
    """
    from neurofmx import catalog

    if form not in ("table", "json", "csv"):
        raise ConfigError("format", got=form, expected="table, json or csv")
    answer = catalog.query(Lake.open(lake), query, snapshot)
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


def catalog_(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Summary of the lake and the data dictionary.

    Example: neurofmx catalog
    """
    from neurofmx import catalog

    opened = Lake.open(lake)
    found = catalog.summary(opened)
    if as_json:
        lines([found])
        return
    table(
        f"datasets of {opened.root}",
        ["dataset", "listed", "recordings", "subjects", "hours", "MB", "modalities", "licences", "refused"],
        (
            [
                f"{d['archive']}:{d['dataset']}@{d['version']}", "" if d["listed"] is None else d["listed"],
                d["recordings"], d["subjects"], f"{d['hours']:.2f}", f"{d['bytes'] / 1e6:.1f}",
                ", ".join(d["modalities"]), ", ".join(d["licences"]), d["refused"],
            ]
            for d in found.datasets
        ),
    )  # fmt: skip
    last = found.snapshot
    print(f"latest snapshot: {last['name'] or last['snapshot'][:16]}, taken {last['taken_at']}, "
          f"{last['n_recordings']} recordings" if last else "no snapshot was taken")  # fmt: skip
    table(
        "tables",
        ["table", "rows", "a row is", "columns"],
        (
            [name, n, catalog.TABLES[name].about, ", ".join(catalog.TABLES[name].names)]
            for name, n in found.tables.items()
        ),
    )


def verify(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Read every group, raw file, catalog file and snapshot again and compare digests; damaged files are named.

    Example: neurofmx lake verify
    """
    from rich.console import Console
    from rich.progress import Progress

    from neurofmx.verify import verify as verified

    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("reading", total=None)
        checks = verified(Lake.open(lake), lambda done, total: shown.update(task, completed=done, total=total))
    bad = [c for c in checks if not c.passed]
    lines(checks if as_json else [])
    for check in bad:
        print(f"DAMAGED {check.name}: {check.evidence}", file=sys.stderr)
    print(f"{len(checks) - len(bad)} of {len(checks)} hold", file=sys.stderr)
    raise SystemExit(1 if bad else 0)


def snapshot(
    name: Annotated[str, typer.Argument(help="A name for it; by its digest alone if left out.")] = "",
    move: Annotated[bool, typer.Option("--move", help="Let a name leave the snapshot that it stands for.")] = False,
    icechunk: Annotated[bool, typer.Option(help="Publish it as an Icechunk version too, for zarr and xarray.")] = True,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Freeze what the catalog points at now, and the catalog; print the digest of what is named.

    Example: neurofmx lake snapshot paper-v1
    """
    from neurofmx import snapshots, versions

    opened = Lake.open(lake)
    digest = snapshots.take(opened, name, move=move)
    commit = versions.publish(opened, digest) if icechunk else ""
    if as_json:
        found = snapshots.find(opened, name or digest)
        lines([{"snapshot": digest, "name": name, "taken_at": found.taken_at, "recordings": len(found.recordings),
                "tokens": len(found.tokens), "icechunk": commit}])  # fmt: skip
    else:
        print(digest)


def snapshots_(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """List the snapshots that were taken.

    Example: neurofmx lake snapshots
    """
    from neurofmx import catalog

    rows = sorted(catalog.rows(Lake.open(lake), "snapshots"), key=lambda row: (row["taken_at"], row["name"]))
    if as_json:
        lines(rows)
        return
    table(
        f"{len(rows)} snapshots",
        ["name", "snapshot", "taken", "recordings", "tokens", "MB"],
        (
            [row["name"], row["snapshot"][:16], row["taken_at"], row["n_recordings"], row["n_tokens"],
             f"{row['bytes'] / 1e6:.1f}"]
            for row in rows
        ),
    )  # fmt: skip


def diff(a: str, b: str, lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Show what changed from one snapshot to another: recordings, tokens, scores.

    Example: neurofmx lake diff paper-v1 paper-v2
    """
    from neurofmx import differ, snapshots

    opened = Lake.open(lake)
    found = differ.diff(opened, a, b)
    if not differ.compares_scores(snapshots.find(opened, a), snapshots.find(opened, b)):
        print("scores are not compared: one of these snapshots keeps no catalog", file=sys.stderr)
    if as_json:
        lines(found)
        return

    def short(value: object) -> str:
        return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)[:16]

    table(
        f"{len(found)} changes from {a} to {b}",
        ["what", "name", "change", "before", "after"],
        ([one.kind, one.name, one.change, short(one.before), short(one.after)] for one in found),
    )


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    grace_s: Annotated[float, typer.Option(help="Seconds that a thing must have gone unnamed.", min=0)] = 3600.0,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove groups, raw files, catalog files and leftovers that neither the catalog nor a snapshot names.

    Example: neurofmx lake gc --dry-run
    """
    from neurofmx import collect

    found = collect.gc(Lake.open(lake), dry_run=dry_run, grace_s=grace_s)
    if as_json:
        lines(found)
    elif found:
        table(
            f"{len(found)} things that nothing names",
            ["kind", "path", "MB", "removed"],
            (
                [one.kind, one.path, f"{one.bytes / 1e6:.2f}", "" if not one.waits_s else f"in {one.waits_s:.0f} s"]
                if dry_run or one.waits_s
                else [one.kind, one.path, f"{one.bytes / 1e6:.2f}", "yes"]
                for one in found
            ),
        )
    may = [one for one in found if not one.waits_s]
    verb = "would be freed" if dry_run else "freed"
    later = sum(one.bytes for one in found if one.waits_s)
    print(f"{sum(one.bytes for one in may):,} bytes {verb}, {later:,} bytes are too young", file=sys.stderr)
