"""How a rule of the judge answers: passed or not, how grave, and the sentence that says what was seen."""

from __future__ import annotations

from typing import Literal, TypeAlias

from neurofmx.types import Check

Verdict: TypeAlias = tuple[bool, Literal["block", "warn"], str]


def named(name: str, verdict: Verdict) -> Check:
    """A verdict under the name of its rule."""
    passed, severity, evidence = verdict
    return Check(name=name, passed=passed, severity=severity, evidence=evidence)


def some(items: list[str], most: int = 6) -> str:
    """The first few of a list, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
