"""One measured figure, and how a stage's figures are timed side by side, kept and printed."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of a bench.

    Args:
        figure: what was measured, in words.
        value: the number.
        unit: its unit; ``x`` for a ratio of two things timed in turn.
        goal: the goal in words, such as ``<= 0.5``; empty when there is none.
        holds: whether the goal was met, None without a goal.
        peers: the same measurement of others, or of the other side of a ratio, in the same run.
    """

    figure: str
    value: float
    unit: str
    goal: str = ""
    holds: bool | None = None
    peers: dict[str, float] = field(default_factory=dict)


def at_most(figure: str, value: float, unit: str, limit: float, **peers: float) -> Figure:
    """A figure that holds when it is no more than ``limit``."""
    return Figure(figure=figure, value=value, unit=unit, goal=f"<= {limit:g}", holds=value <= limit, peers=peers)


def at_least(figure: str, value: float, unit: str, limit: float, **peers: float) -> Figure:
    """A figure that holds when it is no less than ``limit``."""
    return Figure(figure=figure, value=value, unit=unit, goal=f">= {limit:g}", holds=value >= limit, peers=peers)


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(a: Callable[[], Any], b: Callable[[], Any], *, repeats: int = 5) -> tuple[float, float, float]:
    """Median seconds of ``a``, of ``b``, and the median of the pairwise ratios a/b, run alternately after a warm-up."""
    a(), b()
    pairs = [(seconds(a), seconds(b)) for _ in range(repeats)]
    return (
        statistics.median(p[0] for p in pairs),
        statistics.median(p[1] for p in pairs),
        statistics.median(p[0] / p[1] for p in pairs),
    )


def machine() -> str:
    """Processor count, architecture and Python, without the machine's name."""
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def keep(stage: str, figures: list[Figure]) -> Path:
    """Writes a stage's figures to ``bench/results/<stage>.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{stage}.json"
    rows = [asdict(f) | {"machine": machine()} for f in figures]
    path.write_text(json.dumps(rows, indent=1) + "\n")
    return path
