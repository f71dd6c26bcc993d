"""A dataset of sessions that are made in milliseconds, for tests that need many runs rather than much data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from neurofmx.ingest import simulate
from neurofmx.ingest.sessions import Source
from neurofmx.ingest.simulate import SimSpec
from neurofmx.ingest.sources import write_sources
from neurofmx.lake import Lake

TINY = Source(archive="simulated", dataset="tiny", version="1")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A persistent instance of this test alone."""
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as opened:
        yield opened


@pytest.fixture
def tiny(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Source]:
    """Adds a simulated dataset of n short sessions to the lake's sources; call it again for a longer one."""

    def with_sessions(n: int) -> Source:
        rows = tuple(SimSpec(seed=i, duration_s=12.0, n_units=6, subject=f"s{i:03d}") for i in range(n))
        monkeypatch.setattr(simulate, "SIMULATED", {**simulate.SIMULATED, "tiny": rows})
        write_sources(lake, [TINY])
        return TINY

    return with_sessions
