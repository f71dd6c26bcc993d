"""A number's chain down to raw digests, and the same number again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from neurofmx import catalog
from neurofmx.errors import Mismatch, NotThere
from neurofmx.evaluate.decode import decode
from neurofmx.evaluate.explain import explain, render, rerun
from neurofmx.lake import Lake
from neurofmx.provenance import digest_of
from neurofmx.train import folds, recipes
from neurofmx.types import Recording

RAW = digest_of(["planted", "one", 0])  # as the fixture names its raw file

Planted = Callable[..., Recording]


@pytest.fixture(scope="module")
def made(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a lake with the scores of one recording, by tiny networks."""
    lake = Lake.open(tmp_path_factory.mktemp("scored") / "lake")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "decode", lambda: replace(recipes.tiny(), name="decode"))
        patch.setattr(folds, "fit_networks", partial(folds.fit_networks, workers=1))
        decode(planted(duration_s=60.0), target="behaviour", lake=lake)
    return lake.root


@pytest.fixture
def scored(made: Path, tmp_path: Path) -> Lake:
    """A copy of that lake, which a test may change."""
    return Lake.open(shutil.copytree(made, tmp_path / "copy"))


def rows(lake: Lake) -> dict[str, dict]:
    return {r["predictor"]: r for r in catalog.rows(lake, "scores")}


def test_the_chain_reaches_raw_digests(scored: Lake) -> None:
    row = rows(scored)["neurofmx"]
    tree = explain(scored, row["score_id"][:8])
    assert tree == json.loads(json.dumps(tree))
    assert tree["score"]["value"] == row["value"]
    assert tree["task"]["target"]["stream"] == "behaviour"
    (recording,) = tree["recordings"]
    assert recording["digest"] == scored.recording_digest("test:planted@1/one")
    assert recording["files"] == [{"path": "one.bin", "url": "test:one", "sha256": RAW, "size": 1}]
    assert recording["licence"] == "CC0-1.0"
    assert [r["fold"] for r in tree["runs"]] == [0, 1, 2, 3, 4]
    assert set(tree["split"]["seconds"]) == set("01234")
    assert (scored.root / "manifests" / "snapshots" / f"{tree['snapshot']}.json").exists()
    text = "\n".join(str(node.label) for node in _nodes(render(tree)))
    for part in (RAW, row["score_id"], "CC0-1.0", recording["digest"], tree["runs"][0]["run_id"]):
        assert part in text


def _nodes(tree):
    yield tree
    for child in tree.children:
        yield from _nodes(child)


def test_every_number_is_derived_again(scored: Lake) -> None:
    found = rows(scored)
    assert {"chance", "ridge", "wiener", "kalman", "neurofmx", "neurofmx untrained"} == set(found)
    for row in found.values():
        again = rerun(scored, row["score_id"])
        assert again.equal
        assert again.stored == row["value"]


def test_a_number_that_was_edited_is_found(scored: Lake) -> None:
    held = catalog.rows(scored, "scores")
    task = held[0]["task"]
    for row in held:
        row["value"] += 1e-6 * (row["predictor"] == "ridge")
    catalog.put(scored, "scores", task, held)
    assert not rerun(scored, rows(scored)["ridge"]["score_id"]).equal
    assert rerun(scored, rows(scored)["wiener"]["score_id"]).equal


def test_a_changed_recording_is_no_ground_for_the_old_number(scored: Lake, planted: Planted) -> None:
    row = rows(scored)["ridge"]
    scored.publish_recording(planted(duration_s=60.0, seed=1))
    with pytest.raises(Mismatch, match="test:planted@1/one"):
        rerun(scored, row["score_id"])
    assert not explain(scored, row["score_id"])["recordings"][0]["unchanged"]


def test_unknown_ids_name_near_ones(scored: Lake) -> None:
    known = rows(scored)["ridge"]["score_id"]
    with pytest.raises(NotThere, match=known):
        explain(scored, known[:7] + "zzz")
    with pytest.raises(NotThere, match="at least 6"):
        explain(scored, known[:5])
