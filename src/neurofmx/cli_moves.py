"""The commands that carry recordings out of a lake and into one: export, import, restore."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from neurofmx.cli_common import JsonOption, LakeOption, lines
from neurofmx.errors import ConfigError, NotThere
from neurofmx.lake import Lake


def export(
    recordings: Annotated[list[str], typer.Argument(help="Recording ids.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    form: Annotated[str, typer.Option("--format", help="nwb, torch-brain or webdataset")] = "nwb",
    window_s: Annotated[float, typer.Option(help="webdataset: seconds of a window.")] = 1.0,
    shard_mb: Annotated[float, typer.Option(help="webdataset: size of a tar file.")] = 256.0,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write recordings in a format that other tools read: validated NWB, torch_brain's HDF5, WebDataset tar files.

    Example: neurofmx lake export sample:openhdemg@0.1.2/otb_testfile --format nwb --out exported
    """
    from neurofmx.ingest.exports.nwb import export_nwb
    from neurofmx.ingest.exports.torch_brain import export_torch_brain
    from neurofmx.ingest.exports.webdataset import export_webdataset
    from neurofmx.types import RecordingId, sanitise

    opened = Lake.open(lake)
    one_each = {"nwb": (export_nwb, "nwb"), "torch-brain": (export_torch_brain, "h5")}
    if form == "webdataset":
        written = [export_webdataset(opened, recordings, out, window_s, shard_mb)]
    elif form in one_each:
        write, suffix = one_each[form]
        written = [
            write(opened.recording(rid), out / f"{sanitise(RecordingId.parse(rid).name)}.{suffix}")
            for rid in recordings
        ]
    else:
        raise ConfigError("format", got=form, expected="nwb, torch-brain or webdataset")
    if as_json:
        lines({"path": path} for path in written)
    else:
        print("\n".join(str(path) for path in written))


def import_(path: Path, lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Bring one's own files into the lake: torch_brain's HDF5, NWB, EDF, WFDB, WAV, video, BIDS or ALF.

    Example: neurofmx lake import session.h5
    """
    from neurofmx.ingest.ingest import local_sessions
    from neurofmx.pipeline import ingest_many

    failed = 0
    for report in ingest_many(Lake.open(lake), local_sessions(path)):
        failed += report.status in ("failed", "quarantined")
        if as_json:
            lines([report])
        else:
            print(f"{report.status:12}{report.id}")
            for check in report.checks:
                if not check.passed and check.severity == "block":
                    print(f"  {check.name}: {check.evidence}", file=sys.stderr)
    raise SystemExit(1 if failed else 0)


def restore(
    snapshot: Annotated[str, typer.Argument(help="Name or digest in the lake of --origin, or a manifest's file.")],
    origin: Annotated[
        Path | None, typer.Option(help="A lake that has the snapshot, and perhaps the raw files; left as it is.")
    ] = None,
    address: Annotated[
        list[str] | None, typer.Option(help="archive:dataset@version=FOLDER_OR_URL that stands in for the archive.")
    ] = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rebuild what a snapshot names in an empty lake, from raw files fetched again; every digest is compared.

    Example: neurofmx lake restore paper-v1 --origin old-lake --lake new-lake
    """
    from neurofmx import snapshots
    from neurofmx.pipeline import restore_snapshot

    if origin is not None and not origin.is_dir():
        raise NotThere(f"lake {origin}", expected="the folder of a lake")
    file, source = Path(snapshot), None if origin is None else Lake.open(origin)
    if not file.is_file():
        if source is None:
            raise NotThere(f"manifest {file}", expected="a manifest's file, or a name with --origin LAKE")
        file = source.root / "manifests" / "snapshots" / f"{snapshots.find(source, snapshot).digest}.json"
    addresses = {}
    for text in address or ():
        dataset, equals, where = text.partition("=")
        if not equals:
            raise ConfigError("address", got=text, expected="archive:dataset@version=FOLDER_OR_URL")
        addresses[dataset] = where
    counts: dict[str, int] = {}
    for one in restore_snapshot(Lake.open(lake), file, origin=source, addresses=addresses):
        counts[one.status] = counts.get(one.status, 0) + 1
        if as_json:
            lines([one])
        elif one.status != "equal":
            print(f"{one.status.upper()} {one.kind} {one.name}: {one.reason}", file=sys.stderr)
    print(", ".join(f"{n} {status}" for status, n in sorted(counts.items())) or "nothing to restore", file=sys.stderr)
    raise SystemExit(0 if set(counts) <= {"equal"} else 1)
