"""Two assets over the whole lake: the catalog under its contracts, and the splits under the leakage check."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from neurofmx import catalog as tables
from neurofmx import pipeline
from neurofmx.assets import readable
from neurofmx.assets.failures import as_dagster_failures
from neurofmx.assets.resources import LakeResource
from neurofmx.evaluate.leaks import judge_lake
from neurofmx.ingest.contracts import RULES, validate_tables
from neurofmx.ingest.ingest import quarantined
from neurofmx.lake import Lake
from neurofmx.provenance import digest_of
from neurofmx.splits import GUARD
from neurofmx.types import Check

GROUP = "lake"
CATALOG, SPLITS = dg.AssetKey("catalog"), dg.AssetKey("splits")
CATALOG_VERSION = SPLITS_VERSION = "1"
Result = dg.AssetCheckResult | dg.MaterializeResult


def contract_specs(table: str, asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """One asset check for each Great Expectations rule of a table."""
    return [
        dg.AssetCheckSpec(f"{table}_{rule.name}", asset=asset, blocking=True, description=rule.says)
        for rule in RULES[table]
    ]


def contract_results(table: str, found: Iterable[Check]) -> Iterator[dg.AssetCheckResult]:
    """The verdict of every rule of a table; a table without rows breaks none of them."""
    by_name = {check.name: check for check in found}
    for rule in RULES[table]:
        check = by_name.get(f"{table}.{rule.name}")
        yield dg.AssetCheckResult(
            passed=check is None or check.passed,
            check_name=f"{table}_{rule.name}",
            description=check.evidence if check else f"{table} has no rows yet",
        )


def catalog_asset(recordings: Iterable[dg.AssetKey]) -> dg.AssetsDefinition:
    """What the lake holds, under its contracts.

    Args:
        recordings: keys of the tokens assets of all datasets; each materialized partition adds rows.
    """

    @dg.asset(
        key=CATALOG, deps=list(recordings), group_name=GROUP, code_version=CATALOG_VERSION, kinds={"parquet"},
        check_specs=contract_specs("recordings", CATALOG),
        description="Tables over all recordings: Parquet parts, read through DuckDB.",
    )  # fmt: skip
    def catalog(lake: LakeResource) -> Iterator[Result]:
        with as_dagster_failures():
            yield from _catalog(lake.open())

    return catalog


def splits_asset() -> dg.AssetsDefinition:
    """Who is tested in which fold; rows are only ever added."""
    checks = {
        "no_leakage": "No block, group, subject, content or twin is in two folds of one split.",
        "append_only": "No row that was there before has moved to another fold.",
    }

    @dg.asset(
        key=SPLITS, deps=[CATALOG], group_name=GROUP, code_version=SPLITS_VERSION, kinds={"parquet"},
        check_specs=[dg.AssetCheckSpec(n, asset=SPLITS, blocking=True, description=d) for n, d in checks.items()],
        description="Folds of blocks, sessions and subjects, by hash under a stored salt.",
    )  # fmt: skip
    def splits(lake: LakeResource) -> Iterator[Result]:
        with as_dagster_failures():
            yield from _splits(lake.open())

    return splits


def _catalog(lake: Lake) -> Iterator[Result]:
    docs = lake.root / "contracts"
    found = validate_tables(lake, docs)
    yield from contract_results("recordings", found)
    recordings, refused = tables.rows(lake, "recordings"), quarantined(lake)
    counts: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0])
    for row in tables.rows(lake, "streams"):
        held = counts[row["modality"]]
        held[0], held[1], held[2] = held[0] + 1, held[1] + row["valid_s"] / 60, held[2] + (row["n_channels"] or 0)
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(lake.snapshot()),
        metadata={
            "recordings": len(recordings),
            "quarantined": len(refused),
            "modalities": readable.table(
                ("modality", "streams", "valid minutes", "channels"), ((m, *v) for m, v in sorted(counts.items()))
            ),
            "refused": readable.table(
                ("recording", "reasons"), ((r["recording_id"], "; ".join(r["reasons"])) for r in refused)
            ),
            "data_docs": dg.MetadataValue.url((docs / "index.html").as_uri()),
        },
    )


def _splits(lake: Lake) -> Iterator[Result]:
    before = fold_of_rows(tables.rows(lake, "splits"))
    pipeline.splits_all(lake)
    rows = tables.rows(lake, "splits")
    after = fold_of_rows(rows)
    moved = sorted(key for key, fold in before.items() if key in after and after[key] != fold)
    judged = judge_lake(lake)
    leaks = [f"{check.name}: {check.evidence}" for check in judged if not check.passed]
    yield dg.AssetCheckResult(
        passed=not leaks, check_name="no_leakage", description="; ".join(leaks) or "; ".join(c.evidence for c in judged)
    )
    yield dg.AssetCheckResult(
        passed=not moved,
        check_name="append_only",
        description="; ".join(map(str, moved[:5])) or f"{len(before)} rows as they were, {len(after)} now",
    )
    shares: dict[tuple[str, str], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        shares[row["task"], row["unit"]][row["fold"]] += row["stop_s"] - row["start_s"]
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(digest_of(sorted([*map(str, key), fold] for key, fold in after.items()))),
        metadata={
            "folds": readable.table(
                ("task", "unit", "seconds in each fold"),
                (
                    (task, unit, ", ".join(f"{k}: {s:.0f}" for k, s in sorted(folds.items()) if k != GUARD))
                    for (task, unit), folds in sorted(shares.items())
                ),
            )
        },
    )


def fold_of_rows(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str, float, float], int]:
    """The fold of every stretch of a split: what may be added to and never changed."""
    return {(r["task"], r["split_id"], r["recording_id"], r["start_s"], r["stop_s"]): r["fold"] for r in rows}
