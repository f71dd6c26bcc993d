"""The graph as Dagster sees it: it loads, can be selected, and asks for nothing that a person did not ask for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from neurofmx.assets.definitions import definitions
from neurofmx.assets.partitions import key_prefix, known_sources, layer_key, pool_of
from neurofmx.errors import ConfigError
from neurofmx.ingest.sessions import Source
from neurofmx.ingest.sources import write_sources
from neurofmx.lake import Lake

ROOT = Path(__file__).resolve().parents[2]
# Dagster keeps a global handle to the last instance that was opened; without one of its own a test meets a closed one
pytestmark = pytest.mark.usefixtures("instance")
SESSION = Source(archive="dandi", dataset="000140", version="0.220113.0408")


def test_definitions_are_loadable(lake: Lake) -> None:
    write_sources(lake, [SESSION])
    defs = definitions(lake)
    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    learned = {"catalog", "splits", "checkpoint", "scores", "transfer_matrix", "findings", "report"}
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == learned | {
        f"{prefix}/{layer}"
        for prefix in ("dandi/000140/0_220113_0408", "folder/inbox/1")
        for layer in ("raw", "recording", "tokens")
    }
    assert graph.get(layer_key(SESSION, "tokens")).parent_keys == {layer_key(SESSION, "recording")}
    assert layer_key(SESSION, "tokens") in graph.get(dg.AssetKey("catalog")).parent_keys


def test_nothing_trains_by_itself(lake: Lake) -> None:
    graph = definitions(lake).resolve_asset_graph()
    assert all(graph.get(key).automation_condition is None for key in graph.get_all_asset_keys())
    assert graph.get(dg.AssetKey("checkpoint")).pools == {"gpu"}


def test_every_layer_hands_on_only_what_a_blocking_check_passed(lake: Lake) -> None:
    write_sources(lake, [SESSION])
    graph = definitions(lake).resolve_asset_graph()
    for layer, name in (("raw", "digests"), ("recording", "accepted"), ("tokens", "real_bins")):
        check = graph.get_check_spec(dg.AssetCheckKey(layer_key(SESSION, layer), name))
        assert check.blocking
    for name in ("no_leakage", "append_only"):
        assert graph.get_check_spec(dg.AssetCheckKey(dg.AssetKey("splits"), name)).blocking


def test_selection_strings_parse_beside_dvc(lake: Lake) -> None:
    # dvc's hydra and dagster both bring an antlr grammar; with the wrong runtime this dies with a TypeError
    import dvc.utils.hydra  # noqa: F401

    write_sources(lake, [SESSION])
    graph = definitions(lake).resolve_asset_graph()
    found = dg.AssetSelection.from_string('key:"dandi/000140/*"+ and not key:"report"').resolve(graph)
    assert layer_key(SESSION, "raw") in found
    assert dg.AssetKey("catalog") in found
    assert dg.AssetKey("report") not in found


def test_pools_are_for_hosts_and_not_for_folders() -> None:
    assert pool_of(SESSION) == "archive_dandi"
    assert pool_of(Source(archive="dandi", dataset="1", version="1", address="https://a.example:8/x")) == (
        "archive_a_example_8"
    )
    assert pool_of(Source(archive="dandi", dataset="1", version="1", address="/data")) is None
    assert pool_of(Source(archive="simulated", dataset="hard", version="1")) is None


def test_sources_that_would_share_assets_are_refused(lake: Lake) -> None:
    write_sources(
        lake, [Source(archive="dandi", dataset="a-b", version="1"), Source(archive="dandi", dataset="a.b", version="1")]
    )
    with pytest.raises(ConfigError, match="a-b@1 and dandi:a.b@1"):
        known_sources(lake)


def test_a_lake_without_sources_shows_the_demo(lake: Lake) -> None:
    archives = {source.archive for source in known_sources(lake)}
    assert archives == {"sample", "simulated", "folder"}
    assert key_prefix(Source(archive="dandi", dataset="*", version="draft")) == ["dandi", "all", "draft"]


def test_module_loads_as_the_ui_loads_it(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(ROOT / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    env = {**os.environ, "DAGSTER_HOME": str(home), "NEUROFMX_LAKE": str(lake.root)}
    command = [
        Path(sys.executable).with_name("dagster"),
        "definitions",
        "validate",
        "-m",
        "neurofmx.assets.definitions",
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    with dg.DagsterInstance.from_config(str(home)) as configured:
        assert configured.run_monitoring_enabled
        assert not configured.telemetry_enabled
        assert configured.get_concurrency_config().pool_config.default_pool_limit == 1
