"""What is run: a job a dataset (one partition a run), and one over everything that is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from neurofmx.assets.datasets import code_versions
from neurofmx.assets.learned import ASSETS
from neurofmx.assets.partitions import group_of, partitions_of
from neurofmx.assets.tables import CATALOG, SPLITS
from neurofmx.ingest.sessions import Source

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

LEARN = "learn"
CODE_TAG = "neurofmx/code"


def ingest_job_name(source: Source) -> str:
    """The name of the job that takes one recording of a dataset from its archive to tokens."""
    return f"ingest__{group_of(source)}"


def code_tag() -> str:
    """The code versions of the three layers, as every run that uses them carries them."""
    return "-".join(code_versions().values())


def ingest_job(source: Source) -> UnresolvedAssetJobDefinition:
    """raw -> recording -> tokens of one recording."""
    return dg.define_asset_job(
        ingest_job_name(source),
        selection=dg.AssetSelection.groups(group_of(source)),
        partitions_def=partitions_of(source),
        executor_def=dg.in_process_executor,
        tags={CODE_TAG: code_tag()},
        description=f"One recording of {source.text}, from archive to tokens.",
    )


def learn_job() -> UnresolvedAssetJobDefinition:
    """catalog -> splits -> checkpoint -> scores, transfer matrix, findings -> report."""
    keys = [CATALOG, SPLITS, *(asset.key for asset in ASSETS)]
    return dg.define_asset_job(
        LEARN,
        selection=dg.AssetSelection.assets(*keys),
        executor_def=dg.in_process_executor,
        description="Everything that is learned from the recordings that the lake holds now.",
    )
