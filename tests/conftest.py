"""Fixtures that every stage's tests share."""

from __future__ import annotations

import os
from pathlib import Path

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
