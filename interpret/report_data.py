"""What the report shows, read from the catalog by pyarrow alone: plain values for the templates, sorted, no clock."""

from __future__ import annotations

import json
import platform
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any

from neurofmx import catalog, parts
from neurofmx.interpret import figures
from neurofmx.interpret.figures import known, number
from neurofmx.interpret.report_findings import finding_families, pairs
from neurofmx.interpret.report_scores import SIMULATED, interval, is_simulated, score_blocks, tally, task_text
from neurofmx.lake import Lake
from neurofmx.provenance import code_version

Row = Mapping[str, Any]
PACKAGES = ("jinja2", "lightning-fabric", "matplotlib", "numpy", "pyarrow", "scikit-learn", "scipy", "torch", "zarr")
SHOWN_NOTES = 3
PICTURE_PX = 640


def report_view(lake: Lake) -> dict[str, Any]:
    """Everything that ``report.html.j2`` shows of a lake."""
    tables = {name: catalog.rows(lake, name) for name in catalog.TABLES if name not in ("channels", "intervals")}
    blocks = score_blocks(tables["scores"], task_texts())
    return {
        "totals": _totals(tables),
        "tally": tally(blocks),
        "datasets": _datasets(tables["datasets"], tables["recordings"]),
        "pictures": _pictures(lake, tables["recordings"], tables["streams"]),
        "refused": sorted(tables["quarantine"], key=lambda r: r["recording_id"]),
        "checks": _failed_checks(tables["checks"]),
        "blocks": blocks,
        "curves": _curves(tables["runs"]),
        "matrices": _matrices(tables["transfer"]),
        "findings": finding_families(tables["findings"]),
        "provenance": _provenance(lake, tables),
        "tables": [(name, parts.count(lake, name), len(table.columns)) for name, table in catalog.TABLES.items()],
    }


def task_texts() -> dict[str, dict[str, Any]]:
    """What a reader must know of each declared task."""
    from neurofmx.evaluate.tasks import TASKS

    return {name: task_text(task) for name, task in TASKS.items()}


def _totals(tables: Mapping[str, Sequence[Row]]) -> list[tuple[str, str]]:
    recordings = tables["recordings"]
    made = sum(r["archive"] == SIMULATED for r in recordings)
    subjects = {(r["archive"], r["dataset"], r["subject_id"]) for r in recordings}
    minutes = sum(r["duration_s"] for r in recordings) / 60
    kept = [r for r in tables["quarantine"] if not r["released"]]
    # only what was corrected for multiplicity is counted: an exploratory p is one of many
    corrected = [r for r in tables["findings"] if known(r["q"])]
    significant = sum(r["status"] == "significant" for r in corrected)
    return [
        (number(len(recordings), 0), f"recordings, {made} of them simulated" if made else "recordings"),
        (number(minutes / 60, 1), "hours") if minutes >= 60 else (number(minutes, 1), "minutes"),
        (number(len(subjects), 0), "subjects"),
        (number(len({r["species"] for r in recordings if r["species"]}), 0), "species"),
        (number(len({m for r in recordings for m in r["modalities"] or ()}), 0), "modalities"),
        (number(len(kept), 0), "refused"),
        (number(len(tables["scores"]), 0), "scores"),
        (f"{significant} / {len(corrected)}", "confirmatory findings significant"),
    ]


def _datasets(listed: Sequence[Row], recordings: Sequence[Row]) -> list[dict[str, Any]]:
    held: dict[str, list[Row]] = defaultdict(list)
    for row in recordings:
        held[f"{row['archive']}:{row['dataset']}@{row['version']}"].append(row)
    known_to_list = {row["dataset_id"]: row for row in listed}
    return [
        {
            "id": name, "simulated": name.startswith(f"{SIMULATED}:"), "n": len(rows),
            "n_listed": about.get("n_listed"), "subjects": len({r["subject_id"] for r in rows}),
            "species": _distinct(r["species"] for r in rows),
            "minutes": number(sum(r["duration_s"] for r in rows) / 60, 1),
            "modalities": _distinct(m for r in rows for m in r["modalities"] or ()),
            "licence": _distinct(r["licence"] for r in rows) or [about.get("licence") or "not stated"],
            "citation": _distinct(r["citation"] for r in rows) or [about.get("citation") or ""],
            "archive": name.partition(":")[0], "notes": _notes(rows),
        }
        for name in sorted({*held, *known_to_list}, key=lambda n: (n.startswith(f"{SIMULATED}:"), n))
        for rows, about in [(held.get(name, []), known_to_list.get(name, {}))]
    ]  # fmt: skip


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({v for v in values if v})


def _notes(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """What readers had to decide, most frequent first."""
    counts = Counter(note for r in rows for note in r["notes"] or () if note != SIMULATED)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_NOTES]


def _pictures(lake: Lake, recordings: Sequence[Row], streams: Sequence[Row]) -> list[dict[str, Any]]:
    """One picture a modality: of its streams alone, in the first recording by name, a real one where there is one."""
    from neurofmx.ingest.preview import preview_png

    present = {r["recording_id"] for r in recordings}
    holders: dict[str, list[str]] = defaultdict(list)
    for row in streams:
        if row["recording_id"] in present and row["n"]:
            holders[row["modality"]].append(row["recording_id"])
    shown = []
    for modality, ids in sorted(holders.items()):
        chosen = min(ids, key=lambda i: (is_simulated(i), i))
        recording = lake.recording(chosen)
        only = {name: s for name, s in recording.streams.items() if s.modality == modality}
        png = preview_png(replace(recording, streams=only), width_px=PICTURE_PX)
        alt = f"Preview of the {modality} of {chosen}"
        shown.append(
            {"modality": modality, "recording": chosen, "simulated": is_simulated(chosen), "n": len(set(ids)),
             "image": figures.picture(png, alt)}
        )  # fmt: skip
    return shown


def _failed_checks(checks: Sequence[Row]) -> list[dict[str, Any]]:
    """Checks that did not hold, by name: how often, how grave, and one example."""
    failed: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in checks:
        if not row["passed"]:
            failed[row["severity"], row["check_name"]].append(row)
    ran = Counter(row["check_name"] for row in checks)
    return [
        {"severity": severity, "name": name, "n": len(rows), "of": ran[name],
         "example": min(rows, key=lambda r: r["recording_id"])}
        for (severity, name), rows in sorted(failed.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][1]))
    ]  # fmt: skip


def _curves(runs: Sequence[Row]) -> list[dict[str, Any]]:
    """Loss curves, the folds of one training in one figure."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in runs:
        key = (
            row["recipe"],
            row["recipe_digest"],
            row["seed"],
            row["snapshot"],
            *(row["tasks"] or ()),
            *row["recordings"],
        )
        groups[key].append(row)
    return [
        {
            "recipe": rows[0]["recipe"], "tasks": rows[0]["tasks"] or [], "parameters": rows[0]["parameters"],
            "recordings": len(rows[0]["recordings"]), "best": sorted(r["best_valid"] for r in rows), "folds": len(rows),
            "figure": figures.loss_curves([(f"fold {r['fold']}, run {r['run_id']}", json.loads(r["history"] or "[]"))
                                           for r in rows]),
        }
        for _, held in sorted(groups.items(), key=lambda item: tuple(map(str, item[0])))
        for rows in [sorted(held, key=lambda r: (r["fold"] is None, r["fold"] or 0, r["run_id"]))]
    ]  # fmt: skip


def _matrices(cells: Sequence[Row]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for cell in cells:
        groups[cell["matrix"], cell["metric"] or ""].append(cell)
    matrices = []
    for (name, metric), rows in sorted(groups.items()):
        held = sorted(rows, key=lambda c: (c["source"], c["target"], c["cell_id"]))
        sure = [c for c in held if known(c["gain_low"]) and known(c["gain_high"])]
        helps, hurts = sum(c["gain_low"] > 0 for c in sure), sum(c["gain_high"] < 0 for c in sure)
        said = f"Of {len(held)} cells, {helps} help and {hurts} hurt with an interval that excludes 0"
        matrices.append(
            {
                "name": name, "metric": metric, "says": said, "simulated": all(c["simulated"] for c in held),
                "differs": _distinct(c["differs"] for c in held),
                "figure": figures.heat_map(held, about=f"Transfer, {name}. {said}"),
                "cells": [_cell(c) for c in held],
            }
        )  # fmt: skip
    return matrices


def _cell(cell: Row) -> dict[str, Any]:
    ci = interval(cell["gain_low"], cell["gain_high"], sign=True)
    return {**cell, "ci": ci, "details": pairs(cell["details"])}


def _provenance(lake: Lake, tables: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    used: dict[str, Counter[str]] = defaultdict(Counter)
    codes: dict[str, Counter[str]] = defaultdict(Counter)
    for table in ("runs", "scores", "transfer"):
        for row in tables[table]:
            used[row["snapshot"] or "none stated"][table] += 1
    for table in ("recordings", "runs", "scores"):
        for row in tables[table]:
            codes[row["code_version"] or "not stated"][table] += 1
    recipes = {row["recipe_digest"]: row for row in sorted(tables["runs"], key=lambda r: r["run_id"])}
    stored = lake.root / "manifests" / "snapshots"
    return {
        "snapshots": [(name, _counted(n), (stored / f"{name}.json").exists()) for name, n in sorted(used.items())],
        "codes": [(name, _counted(n)) for name, n in sorted(codes.items())],
        "recipes": [(r["recipe"], digest, _indented(r["recipe_json"])) for digest, r in sorted(recipes.items())],
        "runs": sorted(tables["runs"], key=lambda r: (r["recipe"], r["tasks"] or [], r["fold"] or 0, r["run_id"])),
        "splits": _splits(tables["splits"]),
        "raw": [
            (r["recording_id"], r["digest"], r["reader"], list(zip(r["raw_sha256"] or (), r["source_url"] or ())))
            for r in sorted(tables["recordings"], key=lambda r: r["recording_id"])
        ],
        "example": min((r["score_id"] for r in tables["scores"]), default="SCORE_ID"),
        "written_by": code_version(),
        "python": platform.python_version(),
        "packages": [(name, metadata.version(name)) for name in PACKAGES],
    }


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {table if n != 1 else table.removesuffix('s')}" for table, n in sorted(counts.items()))


def _indented(text: str | None) -> str:
    return json.dumps(json.loads(text or "{}"), indent=1, sort_keys=True, ensure_ascii=False)


def _splits(rows: Sequence[Row]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["task"] or "", row["split_id"]].append(row)
    return [
        {"task": task, "id": split, "rows": len(held), "recordings": len({r["recording_id"] for r in held}),
         "folds": len({r["fold"] for r in held if r["fold"] is not None and r["fold"] >= 0}),
         "units": len({r["unit"] for r in held})}
        for (task, split), held in sorted(groups.items())
    ]  # fmt: skip
