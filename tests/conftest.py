"""Fixtures that every stage's tests share."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from neurofmx.lake import Lake

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder of real recordings laid out as the archives; tests skip, saying so, where there is none."""
    folder = Path(os.environ.get("NEUROFMX_MIRROR", ROOT.parent / "shared" / "mirror"))
    if not (folder / "MIRROR.md").exists():
        pytest.skip("no mirror of real recordings here: set NEUROFMX_MIRROR to a folder that holds MIRROR.md")
    return folder


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake of this test alone."""
    return Lake.open(tmp_path / "lake")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that run a seeded share of the slow suite."""
    parser.addoption("--slow-share", type=float, default=1.0, help="share of the selected tests to run")
    parser.addoption("--slow-seed", type=int, default=0, help="seed that chooses the share")
    parser.addoption("--record", default=None, help="write the results as JSON to this file")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the seeded share: each test by a hash of its name, so that workers agree."""
    share = float(config.getoption("--slow-share") or 0.0)
    if share >= 1.0:
        return

    def kept(item: pytest.Item) -> bool:
        if item.get_closest_marker("long") is not None:
            return False
        text = f"{config.getoption('--slow-seed')}|{item.nodeid}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") < share * 2**32

    config.hook.pytest_deselected(items=[i for i in items if not kept(i)])
    items[:] = [i for i in items if kept(i)]


def _record(config: pytest.Config) -> Path | None:
    """Where to write the results; only the process that owns the report writes."""
    path = config.getoption("--record")
    return None if path is None or hasattr(config, "workerinput") else Path(path)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Writes what passed, failed and was skipped (with reasons) to the file that ``--record`` names."""
    path = _record(config)
    if path is None:
        return
    stats = terminalreporter.stats
    by_file = Counter(r.nodeid.split("::")[0] for r in stats.get("passed", []) if r.when == "call")
    skips = sorted({(r.nodeid.split("::")[0], str(r.longrepr[2])) for r in stats.get("skipped", [])})
    result = {
        "passed": sum(by_file.values()),
        "failed": len(stats.get("failed", [])) + len(stats.get("error", [])),
        "skipped": [{"where": where, "reason": reason} for where, reason in skips],
        "files": dict(sorted(by_file.items())),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
