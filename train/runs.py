"""A finished network in the catalog: its row in ``runs`` and what it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from neurofmx import catalog
from neurofmx.lake import Lake, now
from neurofmx.provenance import canonical_json, code_version
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import load_trained
from neurofmx.train.loop import RunResult
from neurofmx.train.recipes import Recipe


def keep_run(
    lake: Lake, recipe: Recipe, data: Mapping[str, TaskData], result: RunResult, *, snapshot: str
) -> dict[str, Any]:
    """Writes a run's row and lineage; what is there already stays as it was written.

    Args:
        lake: holds the recordings, and the run's folder.
        recipe: how it was trained.
        data: task -> windows that it was trained on.
        result: the run.
        snapshot: digest of the lake's snapshot.

    Returns:
        The row of table ``runs``.
    """
    known = catalog.rows(lake, "runs", result.run_id)
    if known:
        return known[0]
    recordings = sorted({windows.recording for task in data.values() for windows in task.recordings})
    row: dict[str, Any] = {
        "run_id": result.run_id, "recipe": recipe.name, "recipe_digest": recipe.digest(),
        "recipe_json": canonical_json(recipe), "fold": result.fold, "seed": recipe.seed, "snapshot": snapshot,
        "tasks": sorted(data), "recordings": recordings, "path": str(result.path.relative_to(lake.root)),
        "steps": result.steps, "parameters": sum(p.numel() for p in load_trained(result.path).model.parameters()),
        "best_valid": result.best_valid, "seconds": result.seconds,
        "history": json.dumps([dict(h) for h in result.history]), "code_version": code_version(), "started_at": now(),
    }  # fmt: skip
    parents = [
        {"child": result.run_id, "child_kind": "run", "parent": r, "parent_kind": "recording",
         "detail": canonical_json({"digest": lake.recording_digest(r)})}
        for r in recordings
    ]  # fmt: skip
    lake.keep(result.path)
    catalog.put(lake, "runs", result.run_id, [row])
    catalog.put(lake, "lineage", result.run_id, parents)
    return row
