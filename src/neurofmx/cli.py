"""The command line: one short function a command, each calling the plain function that a notebook would.

Exit codes: 0 done, 1 refused or failed with a reason, 2 wrong usage.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from neurofmx.errors import ConfigError, NeurofmxError
from neurofmx.lake import Lake
from neurofmx.provenance import plain

app = typer.Typer(
    name="neurofmx",
    help="From raw neural recordings to numbers that can be traced, re-derived and refuted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
lake_app = typer.Typer(help="The lake itself: verify every digest, freeze a snapshot.", no_args_is_help=True)
mirror_app = typer.Typer(help="Serve a folder laid out as the archives.", no_args_is_help=True)
app.add_typer(lake_app, name="lake")
app.add_typer(mirror_app, name="mirror")

LakeOption = Annotated[Path | None, typer.Option("--lake", envvar="NEUROFMX_LAKE", help="The lake's folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a recipe's field, as optim.lr=3e-4.")]


def main() -> None:
    """Runs the command line; every refusal becomes one sentence on standard error."""
    try:
        app()
    except NeurofmxError as error:
        print(f"neurofmx: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error


def _lines(values: Iterable[Any]) -> None:
    for value in values:
        print(json.dumps(plain(value), ensure_ascii=False))


def _table(title: str, columns: list[str], rows: Iterable[Iterable[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*[str(cell) for cell in row])
    Console().print(table)


@app.command()
def decode(
    path: Annotated[Path | None, typer.Argument(help="NWB, EDF, a BIDS run or an ALF folder.")] = None,
    target: Annotated[str | None, typer.Option(help="What to decode: a stream, or stream.column of intervals.")] = None,
    example: Annotated[bool, typer.Option("--example", help="Use a simulated ten-minute session.")] = False,
    out: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path("decode.html"),
    seed: int = 0,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decode one's own recording: a table with baselines and intervals, in a minute.

    The lake keeps it, so that `neurofmx explain` works on the score ids. Example: neurofmx decode session.nwb --target
    position
    """
    from rich.console import Console
    from rich.status import Status

    from neurofmx.evaluate.decode import decode as run
    from neurofmx.evaluate.decode import example_session
    from neurofmx.evaluate.scores import print_scores
    from neurofmx.interpret.report import decode_page

    if (path is None) == (not example):
        raise ConfigError("decode", expected="a FILE, or --example", fix="Try: neurofmx decode --example")
    console = Console(stderr=True)
    with Status("reading", console=console) as status:
        source = example_session() if path is None else path
        result = run(source, target=target, seed=seed, lake=Lake.open(lake), progress=lambda text: status.update(text))
        page = decode_page(result, out)
    if as_json:
        _lines(result.scores)
        return
    Console().print(result.preview)
    print_scores(result.scores)
    print(f"page: {page}")


@app.command()
def demo(
    lake: LakeOption = None,
    recipe: Annotated[str, typer.Option(help="Recipe: tiny, laptop, ...")] = "laptop",
    mirror: Annotated[Path | None, typer.Option(help="A folder of recordings laid out as the archives.")] = None,
) -> None:
    """Materialize the whole DAG on the sample and simulated archives (and a mirror, if one is given).

    Example: neurofmx demo --lake lake --mirror ../mirror
    """
    from neurofmx.assets.demo import demo as run

    raise SystemExit(run(Lake.open(lake), recipe=recipe, mirror=mirror))


@app.command("list")
def list_(
    source: Annotated[
        str | None, typer.Argument(help="archive:dataset@version; all of the lake's if left out.")
    ] = None,
    address: Annotated[str, typer.Option(help="A folder or URL that stands in for the archive.")] = "",
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the sessions that an archive offers; what is listed can then be ingested by its id.

    Example: neurofmx list dandi:000140@0.220113.0408
    """
    from neurofmx.pipeline import all_sessions, sessions_of

    opened = Lake.open(lake)
    found, unlisted = all_sessions(opened) if source is None else (sessions_of(opened, source, address), {})
    if as_json:
        _lines(found)
    else:
        columns = ["recording", "files", "MB", "licence"]
        rows = (
            [
                session.id,
                len(session.files),
                f"{sum(file.size or 0 for file in session.files) / 1e6:.1f}",
                session.licence.spdx if session.licence else "not stated",
            ]
            for session in found
        )
        _table(f"{len(found)} recordings", columns, rows)
    _left_out(unlisted)


def _left_out(unlisted: dict[str, NeurofmxError]) -> None:
    """Names the sources that could not be listed; ends with 1 where there is one."""
    for source, error in unlisted.items():
        print(f"{source} was left out: {error}", file=sys.stderr)
    if unlisted:
        raise SystemExit(1)


@app.command()
def validate(path: Path, as_json: JsonOption = False) -> None:
    """Judge one's own files without a lake: every check, with what was seen.

    Example: neurofmx validate session.nwb --json
    """
    from neurofmx.ingest.ingest import judge_local

    refused = False
    for name, checks in judge_local(path):
        bad = [c for c in checks if not c.passed]
        blocked = any(c.severity == "block" for c in bad)
        refused |= blocked
        if as_json:
            _lines([{"recording": name, "accepted": not blocked, "checks": checks}])
            continue
        print(f"{'REFUSED' if blocked else 'ok':8}{name}: {len(checks) - len(bad)} of {len(checks)} checks passed")
        for check in bad:
            print(f"  {'block' if check.severity == 'block' else 'warn ':6}{check.name}: {check.evidence}")
    raise SystemExit(1 if refused else 0)


@app.command()
def fetch(recording: str, lake: LakeOption = None) -> None:
    """Fetch one recording's raw files into the lake, every byte's digest checked.

    Example: neurofmx fetch sample:openhdemg@0.1.2/otb_testfile
    """
    from neurofmx.ingest.fetch import fetch_session
    from neurofmx.ingest.ingest import find_session

    opened = Lake.open(lake)
    for file in fetch_session(find_session(opened, recording), opened):
        print(f"{file.sha256}  {file.size:>12,}  {file.path}")


@app.command()
def ingest(
    recordings: Annotated[list[str] | None, typer.Argument(help="Recording ids; with --all every listed one.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every session of the lake's sources.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write a manifest of what the lake holds.")] = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch, judge, align and store recordings; what is refused goes to quarantine.

    Example: neurofmx ingest --all
    """
    from neurofmx.ingest.sources import find_session
    from neurofmx.pipeline import all_sessions, ingest_many, write_ingest_manifest

    if bool(recordings) == everything:
        raise ConfigError("ingest", expected="recording ids, or --all")
    opened = Lake.open(lake)
    sessions, unlisted = ([find_session(opened, r) for r in recordings], {}) if recordings else all_sessions(opened)
    failed = 0
    for report in ingest_many(opened, sessions):
        failed += report.status == "failed"
        if as_json:
            _lines([report])
            continue
        print(f"{report.status:12}{report.id}")
        if report.status in ("failed", "quarantined"):
            for check in (c for c in report.checks if not c.passed and c.severity == "block"):
                print(f"  {check.name}: {check.evidence}")
    if out is not None:
        write_ingest_manifest(opened, out)
    _left_out(unlisted)
    raise SystemExit(1 if failed else 0)


@app.command()
def tokens(lake: LakeOption = None, out: Annotated[Path | None, typer.Option(help="Manifest.")] = None) -> None:
    """Make every stored token grid that is missing or stale.

    Example: neurofmx tokens
    """
    from neurofmx.pipeline import tokens_all, write_token_manifest

    opened = Lake.open(lake)
    print(f"{tokens_all(opened)} token grids made")
    if out is not None:
        write_token_manifest(opened, out)


@app.command()
def quarantine(
    release: Annotated[str | None, typer.Option(help="Recording to let in despite its failed checks.")] = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was refused and why; release one after a person has looked.

    Example: neurofmx quarantine --release dandi:900001@draft/sub-a_ses-b
    """
    from neurofmx.ingest.ingest import quarantined
    from neurofmx.ingest.ingest import release as let_in

    opened = Lake.open(lake)
    if release:
        let_in(opened, release)
    rows = quarantined(opened)
    if as_json:
        _lines(rows)
    else:
        _table(
            "quarantine",
            ["recording", "reasons", "released"],
            ([r["recording_id"], "\n".join(r["reasons"]), r["released"]] for r in rows),
        )


@app.command()
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
        _lines(answer.to_pylist())
    elif form == "csv":
        import pyarrow.csv as pc

        pc.write_csv(answer, sys.stdout.buffer)
    else:
        _table(f"{answer.num_rows} rows", answer.column_names, (row.values() for row in answer.to_pylist()))


@app.command("catalog")
def catalog_(lake: LakeOption = None) -> None:
    """Summary of the lake and the data dictionary.

    Example: neurofmx catalog
    """
    from neurofmx import catalog

    opened = Lake.open(lake)
    _table(
        f"catalog of {opened.root}",
        ["table", "rows", "columns"],
        (
            [t, catalog.query(opened, f'select count(*) as n from "{t}"').to_pylist()[0]["n"], ", ".join(columns)]
            for t, columns in catalog.TABLES.items()
        ),
    )


@lake_app.command("verify")
def lake_verify(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Read every published group and raw file again and compare digests.

    Example: neurofmx lake verify
    """
    checks = Lake.open(lake).verify()
    bad = [c for c in checks if not c.passed]
    _lines(checks if as_json else [])
    for check in bad:
        print(f"DAMAGED {check.name}: {check.evidence}", file=sys.stderr)
    print(f"{len(checks) - len(bad)} of {len(checks)} digests hold", file=sys.stderr)
    raise SystemExit(1 if bad else 0)


@lake_app.command("snapshot")
def lake_snapshot(lake: LakeOption = None) -> None:
    """Freeze what the catalog points at now; print the manifest's digest.

    Example: neurofmx lake snapshot
    """
    print(Lake.open(lake).snapshot())


@mirror_app.command("serve")
def mirror_serve(folder: Path, port: int = 8765) -> None:
    """Serve a folder laid out as the archives on 127.0.0.1.

    Example: neurofmx mirror serve ../mirror --port 8765
    """
    from neurofmx.ingest.mirror_server import serve

    serve(folder, port)


@app.command()
def train(
    recipe: str = "laptop",
    settings: SetOption = None,
    lake: LakeOption = None,
    out: Annotated[Path | None, typer.Option(help="Write run ids and losses as JSON.")] = None,
) -> None:
    """Train a recipe's model, one checkpoint a fold; resumes where it was killed.

    Example: neurofmx train --recipe laptop --set optim.lr=3e-4
    """
    from neurofmx.pipeline import train_all, with_progress, write_train_metrics

    opened = Lake.open(lake)
    with with_progress() as on, _told_to_dagster() as tell:

        def both(what: str, done: int, total: int) -> None:
            on(what, done, total)
            tell(what, done, total)

        runs = train_all(opened, recipe, settings or [], on=both)
    for run in runs:
        print(f"{run['run_id']}  fold {run['fold']}  {run['steps']} steps  best validation {run['best_valid']:.4f}")
    if out is not None:
        write_train_metrics(runs, out)


@contextlib.contextmanager
def _told_to_dagster() -> Iterator[Callable[[str, int, int], None]]:
    """Progress as log lines of the Dagster run that started this process through Pipes; silent without one."""
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield lambda what, done, total: None
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:

        def tell(what: str, done: int, total: int) -> None:
            if done == total or done % 50 == 0:
                pipes.log.info(f"{what}: {done} of {total}")

        yield tell


@app.command()
def evaluate(
    recipe: str = "laptop",
    settings: SetOption = None,
    lake: LakeOption = None,
    out: Annotated[Path | None, typer.Option(help="Write metrics as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score every task beside chance, tuned baselines and the untrained model; then the transfer matrix.

    Example: neurofmx evaluate --recipe laptop
    """

    from neurofmx.evaluate.scores import print_scores
    from neurofmx.pipeline import evaluate_all, transfer_all, with_progress, write_score_metrics

    opened = Lake.open(lake)
    with with_progress() as on:
        scores = evaluate_all(opened, recipe, settings or [], on=on)
        transfer_all(opened, recipe, settings or [], on=on)
    if out is not None:
        write_score_metrics(scores, out)
    if as_json:
        _lines(scores)
    else:
        print_scores(scores)


@app.command()
def explain(
    score_id: str,
    rerun: Annotated[bool, typer.Option("--rerun", help="Derive the number again from the lake.")] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where a number came from, down to the raw files' digests.

    Example: neurofmx explain 3f9c0a12
    """
    from rich.console import Console

    from neurofmx.evaluate import explain as chain

    opened = Lake.open(lake)
    tree = chain.explain(opened, score_id)
    if as_json:
        _lines([tree])
    else:
        Console().print(chain.render(tree))
    if rerun:
        again = chain.rerun(opened, score_id)
        print(f"derived again: {again.value!r}; stored: {again.stored!r}; {'equal' if again.equal else 'DIFFERENT'}")
        raise SystemExit(0 if again.equal else 1)


@app.command()
def interpret(
    recipe: str = "laptop",
    settings: SetOption = None,
    lake: LakeOption = None,
    out: Annotated[Path | None, typer.Option(help="Write findings as JSON.")] = None,
) -> None:
    """Run the declared analyses, each with its null.

    Example: neurofmx interpret --recipe laptop
    """
    from neurofmx.pipeline import interpret_all, with_progress, write_findings

    opened = Lake.open(lake)
    with with_progress() as on:
        findings = interpret_all(opened, recipe, settings or [], on=on)
    _table(
        "findings",
        ["analysis", "about", "value", "chance", "p", "status"],
        (
            [
                f.analysis,
                f.subject,
                f"{f.value:.3f}",
                f"{f.null.mean():.3f}" if len(f.null) else "-",
                f"{f.p:.3g}",
                f.status,
            ]
            for f in findings
        ),
    )
    if out is not None:
        write_findings(findings, out)


@app.command()
def report(out: Path = Path("report.html"), lake: LakeOption = None) -> None:
    """Write the one self-contained HTML page.

    Example: neurofmx report --out report.html
    """
    from neurofmx.interpret.report import write_report

    print(write_report(Lake.open(lake), out))


if __name__ == "__main__":
    main()
