"""Metadata that a person can read in the UI: tables, pictures and verdicts as markdown."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from neurofmx.types import Check


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> dg.MarkdownMetadataValue:
    """A markdown table; floats get four digits, and what would break a cell is escaped."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG carried inside the metadata, so that the UI shows it with nothing else to serve it."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def judgements(checks: Iterable[Check]) -> dg.MarkdownMetadataValue:
    """Checks as a table, failed ones first."""
    ordered = sorted(checks, key=lambda c: (c.passed, c.severity != "block", c.name))
    return table(
        ("verdict", "check", "severity", "evidence"),
        (("passed" if c.passed else "**failed**", c.name, c.severity, c.evidence) for c in ordered),
    )


def bytes_text(n: int) -> str:
    """A size as a person says it: ``11.8 MB``."""
    size = float(n)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
