"""The three assets of one dataset, raw -> recording -> tokens, partitioned by recording; made for any source."""

# annotations stay objects here: Dagster reads the type of `context` and of resources from them
import functools
import warnings
from collections.abc import Iterable, Iterator

import dagster as dg

from neurofmx import catalog
from neurofmx.assets import readable
from neurofmx.assets.failures import as_dagster_failures
from neurofmx.assets.partitions import group_of, layer_key, partitions_of, pool_of
from neurofmx.assets.resources import LakeResource
from neurofmx.errors import Mismatch, NotThere
from neurofmx.ingest.formats.table import READERS, reader_version
from neurofmx.ingest.ingest import IngestReport, fetch_step, find_session, ingest_session, raw_files, record_step
from neurofmx.ingest.sessions import Source
from neurofmx.lake import Lake
from neurofmx.pipeline import tokens_of
from neurofmx.provenance import digest_of
from neurofmx.tokenize.catalog import SPECS, specs_for
from neurofmx.types import RawFile

FETCH_VERSION = "1"  # bump when a fetch would bring other bytes
Result = dg.AssetCheckResult | dg.MaterializeResult


@functools.cache
def code_versions() -> dict[str, str]:
    """The code version of each layer: made of the readers' and the token specs' own hand-bumped versions.

    A spec or reader that a recording does not use costs it nothing when it is run again.
    """
    readers = digest_of({name: reader_version(name) for name in READERS})
    specs = digest_of({name: spec.digest() for name, spec in SPECS.items()})
    return {"raw": FETCH_VERSION, "recording": readers[:12], "tokens": specs[:12]}


def dataset_assets(source: Source) -> list[dg.AssetsDefinition]:
    """The assets of one dataset.

    Args:
        source: the dataset; its group, partitions and keys carry its name.

    Returns:
        raw, recording and tokens. Each holds a blocking check on what it hands on, and a recording that is
        refused is not materialized, so nothing below it runs; other recordings are other runs.
    """
    partitions, group = partitions_of(source), group_of(source)
    raw_key, recording_key, tokens_key = (layer_key(source, layer) for layer in ("raw", "recording", "tokens"))
    versions = code_versions()
    # no backfill policy: the default is the wanted one, a run a partition
    shared = {"partitions_def": partitions, "group_name": group, "output_required": False}

    @dg.asset(
        key=raw_key, code_version=versions["raw"], pool=pool_of(source), kinds={"file"},
        check_specs=[_check("digests", raw_key, partitions, "Bytes are those that the archive published.")],
        description=f"Files of one recording of {source.text}, as the archive gave them, each under its sha256.",
        **shared,
    )  # fmt: skip
    def raw(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Result]:
        with as_dagster_failures():
            yield from _raw(lake.open(), context.partition_key)

    @dg.asset(
        key=recording_key, deps=[raw_key], code_version=versions["recording"], kinds={"zarr"},
        check_specs=[_check("accepted", recording_key, partitions, "Schema, units, clock, gaps and licence hold.")],
        description=f"One recording of {source.text} on one clock, or its reasons for quarantine.",
        **shared,
    )  # fmt: skip
    def recording(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Result]:
        with as_dagster_failures():
            yield from _recording(lake.open(), context.partition_key)

    @dg.asset(
        key=tokens_key, deps=[recording_key], code_version=versions["tokens"], kinds={"zarr"},
        check_specs=[_check("real_bins", tokens_key, partitions, "Every token grid has bins that hold data.")],
        description=f"Token grids of one recording of {source.text}, ready to train on.",
        **shared,
    )  # fmt: skip
    def tokens(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Result]:
        with as_dagster_failures():
            yield from _tokens(lake.open(), context.partition_key)

    return [raw, recording, tokens]


def _check(name: str, asset: dg.AssetKey, partitions: dg.PartitionsDefinition, description: str) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        # partitioned checks are a preview in this Dagster; without them the last recording hides the others' verdicts
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(name, asset=asset, blocking=True, partitions_def=partitions, description=description)


def _raw(lake: Lake, key: str) -> Iterator[Result]:
    session = find_session(lake, key)
    try:
        files = fetch_step(session, lake)
    except Mismatch:
        # one more clean fetch, then quarantine
        report = ingest_session(session, lake)
        files = report.raw
        if report.status == "quarantined":
            yield _verdict(report, "digests")
            return
    yield dg.AssetCheckResult(passed=True, check_name="digests", metadata={"files": len(files)})
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(raw_digest(files)),
        metadata={
            "files": _file_table(files),
            "bytes": sum(f.size for f in files),
            "licence": session.licence.spdx if session.licence else "not stated",
            "citation": session.citation or "not stated",
        },
    )


def _recording(lake: Lake, key: str) -> Iterator[Result]:
    session = find_session(lake, key)
    files = raw_files(lake, key)
    with lake.lock():
        report = record_step(session, lake, files)
    yield _verdict(report, "accepted")
    if report.status == "quarantined":
        return
    row = catalog.rows(lake, "recordings", key)[0]
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(report.digest),
        metadata={
            "preview": _preview(lake, key),
            "streams": _stream_table(lake, key),
            "checks": readable.judgements(report.checks),
            "duration_s": row["duration_s"],
            "subject": f"{row['subject_id']} ({row['species'] or 'species not stated'})",
            "licence": row["licence"] or "not stated",
            "reader": row["reader"],
            "notes": readable.table(("note",), ((note,) for note in row["notes"] or ["none"])),
            "status": report.status,
            "seconds": report.seconds,
        },
    )


def _tokens(lake: Lake, key: str) -> Iterator[Result]:
    with lake.lock():
        made = tokens_of(lake, key)
    rows, empty = [], []
    for spec in specs_for(lake.recording(key)):
        if not spec.stored:
            continue
        grid = lake.tokens(key, spec)
        share = float(grid.mask.mean()) if grid.mask.size else 0.0
        if share == 0.0:
            empty.append(spec.name)
        rows.append((spec.name, f"{len(grid.mask)} x {len(grid.channels)} x {len(grid.fields)}", grid.dt_s, share))
    yield dg.AssetCheckResult(
        passed=not empty,
        check_name="real_bins",
        metadata={"evidence": f"no real bin in {', '.join(empty)}" if empty else f"{len(rows)} grids hold data"},
    )
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(token_digest(lake, key)),
        metadata={
            "grids": readable.table(("spec", "bins x channels x fields", "bin (s)", "real share"), rows),
            "made_now": made,
        },
    )


def raw_digest(files: Iterable[RawFile]) -> str:
    """One digest over the bytes of a recording's raw files, in the order that their reader wants."""
    return digest_of([file.sha256 for file in files])


def token_digest(lake: Lake, key: str) -> str:
    """One digest over all current token grids of a recording.

    Raises:
        NotThere: a spec that fits the recording has no tokens yet.
    """
    found = {}
    for spec in specs_for(lake.recording(key)):
        if not spec.stored:
            found[spec.name] = [spec.digest(), lake.recording_digest(key)]
            continue
        if not lake.has_tokens(key, spec):
            raise NotThere(f"tokens {spec.name} of {key}", fix="Make them: neurofmx tokens")
        rows = catalog.rows(lake, "tokens", f"{key}|{spec.name}|{spec.digest()}|")
        found[spec.name] = [spec.digest(), rows[0]["digest"]]
    return digest_of(found)


def _verdict(report: IngestReport, name: str) -> dg.AssetCheckResult:
    reasons = [c for c in report.checks if not c.passed and c.severity == "block"]
    return dg.AssetCheckResult(
        passed=report.status != "quarantined",
        check_name=name,
        description="; ".join(f"{c.name}: {c.evidence}" for c in reasons) or f"{len(report.checks)} checks",
        metadata={"recording": str(report.id), "checks": readable.judgements(report.checks)},
    )


def _file_table(files: tuple[RawFile, ...]) -> dg.MarkdownMetadataValue:
    return readable.table(
        ("file", "size", "sha256", "from"),
        ((f.path, readable.bytes_text(f.size), f.sha256[:16], f.url[:120]) for f in files),
    )


def _stream_table(lake: Lake, key: str) -> dg.MarkdownMetadataValue:
    columns = ("stream", "kind", "modality", "unit", "rate_hz", "n", "n_channels", "valid_s")
    rows = sorted(catalog.rows(lake, "streams", key), key=lambda row: row["stream"])
    return readable.table(columns, ([row[c] if row[c] is not None else "-" for c in columns] for row in rows))


def _preview(lake: Lake, key: str) -> dg.MarkdownMetadataValue:
    from neurofmx.ingest.preview import preview_png

    return readable.picture(preview_png(lake.recording(key)), f"preview of {key}")
