"""The whole DAG in one process on simulated recordings: what every learned asset tells a person who looks."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg
import pytest

from neurofmx import catalog
from neurofmx.assets.definitions import definitions
from neurofmx.assets.learned import ASSETS, report_path
from neurofmx.assets.materialize import materialize_learned, materialize_recordings
from neurofmx.assets.resources import RecipeResource
from neurofmx.ingest.sessions import Source
from neurofmx.ingest.sources import list_source, write_sources
from neurofmx.lake import Lake

SOURCES = [Source(archive="simulated", dataset=name, version="1") for name in ("multimodal", "lorenz-transfer")]
PNG = re.compile(r"data:image/png;base64,\w+")


@pytest.mark.slow
def test_learned_assets_say_what_they_made(lake: Lake, instance: dg.DagsterInstance) -> None:
    write_sources(lake, SOURCES)
    told: list[tuple[str, int, int]] = []
    defs = definitions(lake, recipe=RecipeResource(name="tiny"), on=lambda *news: told.append(news))
    keys = [str(session.id) for source in SOURCES for session in list_source(lake, source)]
    assert {o.status for o in materialize_recordings(defs, instance, lake, keys)} == {"materialized"}
    learned = materialize_learned(defs, instance)
    assert (learned.status, learned.reasons) == ("materialized", ())

    made = {key.to_user_string(): _latest(instance, key) for key in (asset.key for asset in ASSETS)}
    made |= {name: _latest(instance, dg.AssetKey(name)) for name in ("catalog", "splits")}
    checkpoint, scores, transfer = made["checkpoint"], made["scores"], made["transfer_matrix"]
    assert PNG.search(str(checkpoint["loss"].value))
    assert checkpoint["tasks"].value == "sim-lorenz-behaviour, sim-multimodal-behaviour"
    rows = catalog.rows(lake, "scores")
    assert rows
    assert all(row["score_id"] in str(scores["scores"].value) for row in rows)
    heat_maps = [name for name in transfer if name.startswith("heat_map_")]
    assert len(heat_maps) == len({cell["matrix"] for cell in catalog.rows(lake, "transfer")}) > 0
    assert all(PNG.search(str(transfer[name].value)) for name in heat_maps)
    assert transfer["simulated"].value is True
    assert "| analysis |" in str(made["findings"]["findings"].value)
    assert made["catalog"]["recordings"].value == len(keys)
    assert "sim-lorenz-behaviour" in str(made["splits"]["folds"].value)
    assert Path(str(made["report"]["path"].value)) == report_path(lake)
    size = report_path(lake).stat().st_size
    assert size == made["report"]["bytes"].value
    assert size > 100_000

    checks = [
        event.asset_check_evaluation
        for record in instance.get_runs(dg.RunsFilter(job_name="learn"))
        for event in (e.dagster_event for e in instance.all_logs(record.run_id))
        if event is not None and event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    assert len(checks) > 10
    assert {done for _, done, total in told if done == total}


def _latest(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, dg.MetadataValue]:
    event = instance.get_latest_materialization_event(key)
    assert event is not None, key
    assert event.asset_materialization is not None
    return dict(event.asset_materialization.metadata)
