"""One's own recording: which target, which inputs, refusals that name the choices, and a whole run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from neurofmx import catalog
from neurofmx.errors import ConfigError, NotThere
from neurofmx.evaluate.decode import decode, example_session
from neurofmx.evaluate.decode_task import choices, classes_of, decode_task
from neurofmx.ingest.ingest import ingest_session
from neurofmx.lake import Lake
from neurofmx.train import folds, recipes
from neurofmx.types import Events, Intervals, Recording

Planted = Callable[..., Recording]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks in the place of those that a person waits for."""
    monkeypatch.setattr(recipes, "decode", lambda: replace(recipes.tiny(), name="decode"))
    monkeypatch.setattr(folds, "fit_networks", partial(folds.fit_networks, workers=1))


def test_the_target_and_inputs_of_a_recording(planted: Planted) -> None:
    made = planted()
    assert list(choices(made)) == ["behaviour", "trials.side", "calcium", "spikes"]
    spec = decode_task(made, None)
    assert spec.target.stream == "behaviour"
    assert spec.inputs == {"calcium": "calcium", "spikes": "spikes"}
    assert (spec.bin_s, spec.metric, spec.where.recordings) == (0.1, "r2", (str(made.id),))
    side = decode_task(made, "trials.side")
    assert (side.target.column, side.target.classes, side.metric) == ("side", ("left", "right"), "auroc")
    assert side.target.duration_s == pytest.approx(0.5)
    rate = decode_task(made, "spikes")
    assert (rate.metric, list(rate.inputs)) == ("pearson", ["calcium"])


def test_two_streams_of_one_modality_are_both_read(planted: Planted) -> None:
    made = planted()
    twice = replace(made, streams=dict(made.streams) | {"calcium_b": made.streams["calcium"]})
    assert set(decode_task(twice, "behaviour").inputs) == {"calcium", "calcium_b", "spikes"}


def test_refusals_name_the_choices(planted: Planted) -> None:
    made = planted()
    for target in ("speed", "trials.colour", "trials", "trials.hint"):
        with pytest.raises(ConfigError, match=r"behaviour|trials\.side"):
            decode_task(made, target)
    alone = replace(made, streams={"behaviour": made.streams["behaviour"]})
    with pytest.raises(ConfigError, match="spikes"):
        decode_task(alone, "behaviour")
    with pytest.raises(ConfigError, match="trials with a column"):
        decode_task(replace(made, streams={"spikes": made.streams["spikes"]}), None)


def test_columns_that_are_no_classes() -> None:
    n = 40
    held = Intervals(
        start_s=np.arange(n) * 1.0,
        stop_s=np.arange(n) + 0.5,
        columns={
            "number": np.arange(n),
            "one": np.zeros(n),
            "kind": np.where(np.arange(n) < 2, 2.0, np.arange(n) % 2.0),
            "nan": np.where(np.arange(n) % 3 == 0, np.nan, np.arange(n) % 2.0),
        },
        modality="trials",
        valid=np.array([[0.0, n]]),
    )
    found = {c: classes_of(held, c) for c in held.columns}
    assert found == {"number": (), "one": (), "kind": ("0", "1"), "nan": ("0", "1")}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("target", ["behaviour", pytest.param("trials.side", marks=pytest.mark.slow)])
def test_a_recording_to_a_table(lake: Lake, planted: Planted, target: str) -> None:
    said: list[str] = []
    result = decode(planted(noise=0.5), target=target, lake=lake, progress=said.append)
    scores = {s.predictor: s for s in result.scores}
    assert scores["neurofmx"].value > 0.7
    assert len(result.times_s) == len(result.truth) == len(result.predicted) == scores["neurofmx"].n
    assert np.all(np.diff(result.times_s) >= 0)
    assert np.isfinite(result.predicted).all()
    assert (said[0], said[-1]) == ("reading", "done")
    assert lake.recording_ids() == [str(result.recording.id)]
    assert {r["score_id"] for r in catalog.rows(lake, "scores")} == {s.score_id for s in result.scores}
    assert {r["run_id"] for r in catalog.rows(lake, "runs")} == set(scores["neurofmx"].checkpoint.split(","))
    assert result.preview.row_count == 4
    assert result.table().row_count == 1 + len(result.scores)  # the task above its predictors


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_without_a_lake_nothing_is_kept_and_the_values_are_the_same(lake: Lake, planted: Planted) -> None:
    made = planted(duration_s=60.0)
    kept, loose = decode(made, target="behaviour", lake=lake), decode(made, target="behaviour")
    assert loose.lake is None
    assert [s.value for s in kept.scores] == pytest.approx([s.value for s in loose.scores], abs=1e-9)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotThere):
        decode(tmp_path / "session.nwb")


def test_the_example_is_ten_minutes_of_fifty_units(lake: Lake) -> None:
    session = example_session()
    assert ingest_session(session, lake).status == "ingested"
    made = lake.recording(session.id)
    spikes = made.streams["spikes"]
    assert made.domain_s == (0.0, 600.0)
    assert isinstance(spikes, Events)
    assert len(spikes.channels) == 50
    assert all(check.passed for check in lake.verify())
    with pytest.raises(ConfigError, match="a lake"):
        decode(session)


@pytest.mark.slow
def test_a_real_file_to_a_table(mirror: Path, lake: Lake) -> None:
    (path,) = (mirror / "dandi" / "900001").rglob("*lineartrack*.nwb")
    result = decode(path, target="position", lake=lake)
    assert {s.predictor for s in result.scores} >= {"chance", "ridge", "wiener", "kalman", "neurofmx"}
    assert result.recording.id.archive == "folder"
