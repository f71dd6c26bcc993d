"""Loopback archives for the tests of ingest."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(name: str) -> ModuleType:
    """A module of tests/servers, which is no package."""
    path = Path(__file__).resolve().parents[1] / "servers" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"servers_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def faults() -> ModuleType:
    """The module of the misbehaving server."""
    return _load("faults")


@pytest.fixture
def files_server(tmp_path: Path, faults: ModuleType) -> Iterator[Any]:
    """A server of an empty folder of this test."""
    (tmp_path / "served").mkdir()
    with faults.serving(tmp_path / "served") as server:
        yield server


@pytest.fixture
def mirror_server(mirror: Path, faults: ModuleType) -> Iterator[Any]:
    """A server of the mirror of real recordings."""
    with faults.serving(mirror) as server:
        yield server
