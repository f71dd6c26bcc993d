"""The commands of the archives: list, fetch, judge, bring in, serve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from neurofmx.cli_common import JsonOption, LakeOption, lines, table
from neurofmx.errors import ConfigError, NeurofmxError
from neurofmx.lake import Lake


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
        lines(found)
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
        table(f"{len(found)} recordings", columns, rows)
    _left_out(unlisted)


def _left_out(unlisted: dict[str, NeurofmxError]) -> None:
    """Names the sources that could not be listed; ends with 1 where there is one."""
    for source, error in unlisted.items():
        print(f"{source} was left out: {error}", file=sys.stderr)
    if unlisted:
        raise SystemExit(1)


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
            lines([{"recording": name, "accepted": not blocked, "checks": checks}])
            continue
        print(f"{'REFUSED' if blocked else 'ok':8}{name}: {len(checks) - len(bad)} of {len(checks)} checks passed")
        for check in bad:
            print(f"  {'block' if check.severity == 'block' else 'warn ':6}{check.name}: {check.evidence}")
    raise SystemExit(1 if refused else 0)


def fetch(recording: str, lake: LakeOption = None) -> None:
    """Fetch one recording's raw files into the lake, every byte's digest checked.

    Example: neurofmx fetch sample:openhdemg@0.1.2/otb_testfile
    """
    from neurofmx.ingest.ingest import fetch_step, find_session

    opened = Lake.open(lake)
    for file in fetch_step(find_session(opened, recording), opened):
        print(f"{file.sha256}  {file.size:>12,}  {file.path}")


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
            lines([report])
            continue
        print(f"{report.status:12}{report.id}")
        if report.status in ("failed", "quarantined"):
            for check in (c for c in report.checks if not c.passed and c.severity == "block"):
                print(f"  {check.name}: {check.evidence}")
    if out is not None:
        write_ingest_manifest(opened, out)
    _left_out(unlisted)
    raise SystemExit(1 if failed else 0)


def tokens(lake: LakeOption = None, out: Annotated[Path | None, typer.Option(help="Manifest.")] = None) -> None:
    """Make every stored token grid that is missing or stale.

    Example: neurofmx tokens
    """
    from neurofmx.pipeline import tokens_all, write_token_manifest

    opened = Lake.open(lake)
    print(f"{tokens_all(opened)} token grids made")
    if out is not None:
        write_token_manifest(opened, out)


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
        lines(rows)
    else:
        table(
            "quarantine",
            ["recording", "reasons", "released"],
            ([r["recording_id"], "\n".join(r["reasons"]), r["released"]] for r in rows),
        )


def serve_mirror(folder: Path, port: int = 8765) -> None:
    """Serve a folder laid out as the archives on 127.0.0.1.

    Example: neurofmx mirror serve ../mirror --port 8765
    """
    from neurofmx.ingest.mirror_server import serve

    serve(folder, port)
