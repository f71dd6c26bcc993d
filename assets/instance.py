"""The Dagster instance that the command line uses: that of ``DAGSTER_HOME``, else one beside the lake."""

from __future__ import annotations

import os

import dagster as dg

from neurofmx.lake import Lake


def instance_of(lake: Lake) -> dg.DagsterInstance:
    """Opens the instance; use it as a context manager.

    Args:
        lake: where ``DAGSTER_HOME`` is not set, runs are kept in its folder ``dagster``.
    """
    if os.environ.get("DAGSTER_HOME"):
        return dg.DagsterInstance.get()
    home = lake.root / "dagster"
    home.mkdir(exist_ok=True)
    return dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}})
