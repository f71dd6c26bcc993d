"""Runs the DAG from Python: one run a recording, in this process, leaving out what is current."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg

from neurofmx import catalog
from neurofmx.assets.datasets import code_versions, raw_digest, token_digest
from neurofmx.assets.jobs import CODE_TAG, LEARN, code_tag, ingest_job_name
from neurofmx.assets.partitions import LAYERS, add_partitions, layer_key
from neurofmx.errors import NotThere
from neurofmx.ingest.ingest import raw_files
from neurofmx.ingest.sessions import Source
from neurofmx.lake import Lake
from neurofmx.types import RecordingId

# reports say what went wrong; the whole log of a run is in the instance
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one recording, or of everything that is learned.

    Args:
        key: recording id, or the job's name.
        status: ``materialized``, ``current`` (nothing was run), ``quarantined`` or ``failed``.
        reasons: why it was refused or failed.
        run_id: the Dagster run, ``""`` when none was started.
        seconds: what it took.
    """

    key: str
    status: Literal["materialized", "current", "quarantined", "failed"]
    reasons: tuple[str, ...] = ()
    run_id: str = ""
    seconds: float = 0.0


def materialize_recordings(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    lake: Lake,
    keys: Iterable[str],
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Materializes raw, recording and tokens of each recording that is not current.

    Args:
        defs: of `assets.definitions.definitions` over the same lake.
        instance: where runs and partitions are kept.
        lake: says whether what the instance recorded is still there.
        keys: recording ids; partitions that do not exist yet are added.
        on_outcome: told of each recording when it is done.

    Returns:
        One outcome a key, in order. A recording that is refused or fails stops no other.
    """
    jobs: dict[str, dg.JobDefinition] = {}
    outcomes = []
    for key in keys:
        rid = RecordingId.parse(key)
        source = Source.parse(rid.source)
        add_partitions(instance, source, [key])
        outcome = settled(instance, lake, source, key)
        if outcome is None:
            if rid.source not in jobs:
                jobs[rid.source] = defs.resolve_job_def(ingest_job_name(source))
            outcome = _run(jobs[rid.source], instance, key, partition_key=key)
        outcomes.append(outcome)
        on_outcome(outcome)
    return outcomes


def materialize_learned(defs: dg.Definitions, instance: dg.DagsterInstance) -> Outcome:
    """Materializes catalog, splits, checkpoint, scores, transfer matrix, findings and report in one run."""
    return _run(defs.resolve_job_def(LEARN), instance, LEARN)


def settled(instance: dg.DagsterInstance, lake: Lake, source: Source, key: str) -> Outcome | None:
    """What is already known of a recording, or None where it has to be run.

    It is current when each layer was made by the present code and the lake still holds what was made then; it is
    still refused when the present code refused the very bytes that the lake holds.
    """
    versions = code_versions()
    recorded = {layer: _latest(instance, layer_key(source, layer), key) for layer in LAYERS}
    by_this_code = {layer for layer in LAYERS if recorded[layer].get("dagster/code_version") == versions[layer]}
    held = _held(lake, key)
    same = {layer for layer in LAYERS if held.get(layer) and held[layer] == recorded[layer].get("dagster/data_version")}
    if by_this_code == same == set(LAYERS):
        return Outcome(key=key, status="current")
    refused = [row for row in catalog.rows(lake, "quarantine", key) if not row["released"]]
    if refused and "raw" in by_this_code & same and _ran(instance, key):
        return Outcome(key=key, status="quarantined", reasons=tuple(refused[0]["reasons"]))
    return None


def _latest(instance: dg.DagsterInstance, asset: dg.AssetKey, key: str) -> dict[str, str]:
    wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[key])
    records = instance.fetch_materializations(wanted, limit=1).records
    found = records[0].asset_materialization if records else None
    return dict(found.tags or {}) if found else {}


def _held(lake: Lake, key: str) -> dict[str, str]:
    """The data version of each layer as the lake has it now; a layer that was never made, or is gone, is left out."""
    held: dict[str, str] = {}
    with contextlib.suppress(NotThere):
        files = raw_files(lake, key)
        if not all(lake.raw_path(file.sha256).exists() for file in files):
            return held
        held["raw"] = raw_digest(files)
        rows = catalog.rows(lake, "recordings", key)
        if rows and rows[0]["raw_sha256"] == [file.sha256 for file in files]:
            held["recording"] = rows[0]["digest"]
            held["tokens"] = token_digest(lake, key)
    return held


def _ran(instance: dg.DagsterInstance, key: str) -> bool:
    """Whether a run of the present code has judged this recording."""
    tags = {"dagster/partition": key, CODE_TAG: code_tag()}
    return bool(instance.get_runs(dg.RunsFilter(tags=tags), limit=1))


def _run(job: dg.JobDefinition, instance: dg.DagsterInstance, key: str, **how: Any) -> Outcome:
    started = time.perf_counter()
    result = job.execute_in_process(instance=instance, raise_on_error=False, run_config=QUIET, **how)
    took = time.perf_counter() - started
    if result.success:
        return Outcome(key=key, status="materialized", run_id=result.run_id, seconds=took)
    refused = [e.description or e.check_name for e in result.get_asset_check_evaluations() if not e.passed]
    status = "quarantined" if refused and how else "failed"
    reasons = tuple(refused) or tuple(_failures(result))
    return Outcome(key=key, status=status, reasons=reasons, run_id=result.run_id, seconds=took)


def _failures(result: dg.ExecuteInProcessResult) -> list[str]:
    found = []
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        data = event.step_failure_data
        told = data.user_failure_data.description if data.user_failure_data else None
        error = data.error
        found.append(f"{event.step_key}: {told or (error.message.strip() if error else 'no reason recorded')}")
    return found
