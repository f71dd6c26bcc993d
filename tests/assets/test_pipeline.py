"""Recordings through the graph: raw -> recording -> tokens, refusals, and only what is new is run."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from neurofmx import catalog
from neurofmx.assets.definitions import definitions
from neurofmx.assets.materialize import Outcome, materialize_recordings
from neurofmx.assets.partitions import layer_key
from neurofmx.ingest.sessions import Source
from neurofmx.ingest.sources import list_source
from neurofmx.lake import Lake

Tiny = Callable[[int], Source]


def _keys(lake: Lake, source: Source) -> list[str]:
    return [str(session.id) for session in list_source(lake, source)]


def _runs(instance: dg.DagsterInstance) -> int:
    return instance.get_runs_count()


def test_two_recordings_end_to_end(lake: Lake, instance: dg.DagsterInstance, tiny: Tiny) -> None:
    source = tiny(2)
    keys = _keys(lake, source)
    told: list[Outcome] = []
    outcomes = materialize_recordings(definitions(lake), instance, lake, keys, told.append)
    assert [o.status for o in outcomes] == ["materialized", "materialized"]
    assert told == outcomes
    assert lake.recording_ids() == sorted(keys)
    assert instance.get_dynamic_partitions(source.text) == keys
    record = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=layer_key(source, "recording"), asset_partitions=[keys[0]]), limit=1
    ).records[0]
    made = record.asset_materialization
    assert made is not None
    assert made.tags is not None
    assert made.tags["dagster/data_version"] == lake.recording_digest(keys[0])
    assert "data:image/png;base64," in str(made.metadata["preview"].value)
    assert "| spikes |" in str(made.metadata["streams"].value)
    assert made.metadata["licence"].value == "CC0-1.0"
    assert {row["recording_id"] for row in catalog.rows(lake, "tokens")} == set(keys)


def _new_session_runs_once(lake: Lake, instance: dg.DagsterInstance, tiny: Tiny, n: int) -> None:
    source = tiny(n - 1)
    first = materialize_recordings(definitions(lake), instance, lake, _keys(lake, source))
    assert [o.status for o in first] == ["materialized"] * (n - 1)
    assert _runs(instance) == n - 1
    source = tiny(n)
    keys = _keys(lake, source)
    second = materialize_recordings(definitions(lake), instance, lake, keys)
    assert [o.status for o in second] == ["current"] * (n - 1) + ["materialized"]
    assert _runs(instance) == n
    third = materialize_recordings(definitions(lake), instance, lake, keys)
    assert {o.status for o in third} == {"current"}
    assert _runs(instance) == n


def test_one_new_session_runs_one_session(lake: Lake, instance: dg.DagsterInstance, tiny: Tiny) -> None:
    _new_session_runs_once(lake, instance, tiny, 5)


@pytest.mark.slow
def test_one_new_session_of_200_runs_one_session(lake: Lake, instance: dg.DagsterInstance, tiny: Tiny) -> None:
    _new_session_runs_once(lake, instance, tiny, 200)
