"""The citable snapshot by DVC: made once, nothing run the second time, metrics and plots that answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SOURCES = """[[source]]
archive = "simulated"
dataset = "multimodal"
version = "1"
"""


def _dvc(where: Path, *arguments: str) -> str:
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        [str(BIN / "dvc"), *arguments], cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_second_repro_runs_nothing(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, project / name)
    (project / "params.yaml").write_text("lake: lake\nrecipe: tiny\n")
    (project / "lake").mkdir()
    (project / "lake" / "sources.toml").write_text(SOURCES)
    _dvc(project, "config", "core.no_scm", "true")
    first = _dvc(project, "repro")
    assert first.count("Running stage") == 5
    second = _dvc(project, "repro")
    assert "Running stage" not in second
    assert second.count("didn't change, skipping") == 5
    metrics = json.loads(_dvc(project, "metrics", "show", "--json"))
    scores = metrics[""]["data"]["snapshot/scores.json"]["data"]
    assert set(scores["sim-multimodal-behaviour"]) >= {"chance", "ridge", "neurofmx"}
    _dvc(project, "plots", "show")
    assert (project / "dvc_plots" / "index.html").exists()
    manifest = json.loads((project / "snapshot" / "ingest.json").read_text())
    assert len(manifest["recordings"]) == 2
