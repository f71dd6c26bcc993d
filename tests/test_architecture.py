"""The house, held by reading the code: arrows point down, heavy things stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("ingest", "tokenize", "model", "train", "evaluate", "interpret", "assets")
# who may import whom; the kernel is everything in src/neurofmx but what wires stages together
BELOW = {
    "kernel": set(),
    "ingest": {"kernel"},
    "tokenize": {"kernel"},
    "model": {"kernel"},
    "train": {"kernel", "ingest", "tokenize", "model"},
    "evaluate": {"kernel", "ingest", "tokenize", "model", "train"},
    "interpret": {"kernel", "ingest", "tokenize", "model", "train", "evaluate"},
    "pipeline": {"kernel", "ingest", "tokenize", "model", "train", "evaluate", "interpret"},
    "assets": {"kernel", "ingest", "tokenize", "model", "train", "evaluate", "interpret", "pipeline"},
    "cli": {"kernel", "ingest", "tokenize", "model", "train", "evaluate", "interpret", "pipeline", "assets"},
}
TOP = {"cli", "pipeline"}
# package -> the only stages in which it may be imported
ONLY_IN = {
    "dagster": {"assets"},
    "dagster_aws": {"assets"},
    "dagster_pipes": {"cli"},
    "torch": {"model", "train", "evaluate", "interpret"},
    "lightning": {"train"},
    "pandas": {"ingest", "evaluate", "interpret", "assets"},
    "pynwb": {"ingest"},
    "mne": {"ingest", "evaluate"},
    "wfdb": {"ingest"},
    "dandi": {"ingest"},
    "one": {"ingest"},
    "obstore": {"ingest", "kernel"},
    "great_expectations": {"ingest"},
}


def _part_of(stem: str) -> str:
    """cli_lake is part of cli."""
    first = stem.split("_")[0]
    return first if first in TOP else "kernel"


def _files() -> list[tuple[str, Path]]:
    found = [(stage, f) for stage in STAGES for f in sorted((ROOT / stage).rglob("*.py"))]
    kernel = sorted((ROOT / "src" / "neurofmx").glob("*.py"))
    return found + [(_part_of(f.stem), f) for f in kernel]


def _imports(path: Path) -> list[tuple[str, bool]]:
    """Every imported module of a file, and whether only a type checker imports it."""
    tree = ast.parse(path.read_text())
    typed = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, id(node) in typed) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [(f"{node.module}.{alias.name}", id(node) in typed) for alias in node.names]
    return names


def _stage_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "neurofmx":
        return None
    second = parts[1] if len(parts) > 1 else ""
    if second in STAGES:
        return second
    return _part_of(second)


def test_arrows_point_down() -> None:
    wrong = []
    for stage, path in _files():
        for module, typed in _imports(path):
            target = _stage_of(module)
            lazy_entry = path.name == "__init__.py" and path.parent.name == "neurofmx"
            if target in (None, stage) or typed or lazy_entry:
                continue
            if target not in BELOW[stage]:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_heavy_packages_stay_in_their_rooms() -> None:
    wrong = []
    for stage, path in _files():
        for module, typed in _imports(path):
            allowed = ONLY_IN.get(module.split(".")[0])
            if allowed is not None and stage not in allowed and not typed:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_bare_stage_names_are_not_imported() -> None:
    bare = set(STAGES) - {"tokenize"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for _, path in _files()
        for module, _ in _imports(path)
        if module.split(".")[0] in bare
    ]
    assert wrong == []


@pytest.mark.parametrize("stage", STAGES)
def test_stage_is_a_namespace_reached_by_a_relative_link(stage: str) -> None:
    assert not list((ROOT / stage).rglob("__init__.py"))
    link = ROOT / "src" / "neurofmx" / stage
    assert link.is_symlink()
    assert not link.readlink().is_absolute()


def test_standard_library_tokenize_is_the_one_imported() -> None:
    assert hasattr(tokenize, "open")
    assert ROOT not in Path(tokenize.__file__).parents


def test_import_is_light() -> None:
    heavy = {"torch", "dagster", "pandas", "pynwb", "mne", "duckdb", "sklearn", "matplotlib", "zarr", "obstore"}
    code = "import sys, neurofmx, neurofmx.cli; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert heavy & set(out.split()) == set()


def test_files_can_be_read_in_one_sitting() -> None:
    long = {str(p.relative_to(ROOT)): n for _, p in _files() if (n := len(p.read_text().splitlines())) > 600}
    assert long == {}
