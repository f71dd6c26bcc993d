"""Findings as a page tells them: families of cards, each value on its null, with its claim in words."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neurofmx.interpret import figures
from neurofmx.interpret.figures import known, number
from neurofmx.interpret.report_scores import interval

if TYPE_CHECKING:
    from neurofmx.interpret.runner import Analysis

Row = Mapping[str, Any]
# in the order in which a reader wants them
STATUSES = ("significant", "not significant", "inconclusive", "invalid", "skipped")


def finding_families(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Families of findings, each card with its claim; what found nothing or failed is kept."""
    if not rows:
        return []
    from neurofmx.interpret.catalog import ANALYSES

    families: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        families[row["family"] or "other"].append(_finding(row, ANALYSES.get(row["analysis"])))

    def order(card: Mapping[str, Any]) -> tuple[Any, ...]:
        p = card["q"] if known(card["q"]) else card["p"]
        return STATUSES.index(card["status"]), p if known(p) else 2.0, card["analysis"], card["id"]

    return [
        {"name": name, "cards": sorted(cards, key=order), "counts": [(s, n) for s in STATUSES if (n := counts[s])]}
        for name, cards in sorted(families.items())
        for counts in [Counter(c["status"] for c in cards)]
    ]


def _finding(row: Row, analysis: Analysis | None) -> dict[str, Any]:
    null = [v for v in row["null"] or () if known(v)]
    value, about = row["value"], row["headline"] or row["analysis"]
    chance = sum(null) / len(null) if null else None
    provenance, digits = json.loads(row["provenance"] or "{}"), figures.decimals([value])
    figure = None
    if known(value) and null:
        figure = figures.null_strip(value, null, row["ci_low"], row["ci_high"], about=about)
    return {
        "id": row["finding_id"], "analysis": row["analysis"], "task": row["task"] or "", "subject": row["subject"],
        "status": row["status"], "says": _claim(row, about, chance, digits), "figure": figure, "value": value,
        "chance": chance, "digits": digits, "p": row["p"], "q": row["q"],
        "ci": interval(row["ci_low"], row["ci_high"], digits), "n_null": len(null),
        "reason": row["reason"] or "", "caveats": row["caveats"] or [], "scalars": pairs(row["scalars"]),
        "provenance": sorted((k, str(v)) for k, v in provenance.items()),
        "role": str(provenance.get("role", "")), "question": analysis.question if analysis else "",
        "chance_means": analysis.null.text if analysis else "", "citation": analysis.citation if analysis else "",
        "assumptions": analysis.assumptions if analysis else (),
    }  # fmt: skip


def _claim(row: Row, about: str, chance: float | None, digits: int) -> str:
    what = f"{about[:1].upper()}{about[1:]}"
    if row["status"] == "skipped" or not known(row["value"]):
        return f"{what}: {'not run' if row['status'] == 'skipped' else 'no claim'}."
    beside = f"{what} is {number(row['value'], digits)}, where chance gives {number(chance, digits, fixed=True)}"
    caution = "" if known(row["q"]) else " (exploratory: p is not corrected for the number of tests)"
    return {
        "significant": f"{beside}: chance does not explain it{caution}.",
        "not significant": f"{beside}: chance can explain it.",
        "inconclusive": f"{beside}: too few surrogates to decide.",
        "invalid": f"{beside}, but an assumption failed: no claim.",
    }.get(row["status"], f"{beside}.")


def pairs(text: str | None) -> list[tuple[str, str]]:
    """The entries of a JSON object for reading."""
    found = json.loads(text or "{}")
    return [
        (str(k), number(v) if isinstance(v, float) else v if isinstance(v, str) else json.dumps(v, ensure_ascii=False))
        for k, v in sorted(found.items())
    ]
