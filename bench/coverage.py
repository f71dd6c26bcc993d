"""Adds the share of covered lines of each stage to the recorded results of the whole suite; run by `make cover`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tests" / "results" / "all.json"


def stages(measured: dict) -> dict[str, float]:
    """Stage -> percentage of its lines that tests ran, and ``all`` over every stage.

    Args:
        measured: what `coverage json` writes.
    """
    lines, covered = Counter(), Counter()
    for name, file in measured["files"].items():
        parts = Path(name).parts
        stage = "kernel" if parts[0] == "src" else parts[0]
        for key in (stage, "all"):
            lines[key] += file["summary"]["num_statements"]
            covered[key] += file["summary"]["covered_lines"]
    return {stage: 100 * covered[stage] / lines[stage] for stage in sorted(lines) if lines[stage]}


if __name__ == "__main__":
    result = json.loads(RESULTS.read_text())
    result["coverage"] = stages(json.loads((ROOT / ".coverage.json").read_text()))
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
