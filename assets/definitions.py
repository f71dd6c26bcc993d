"""The DAG: for each dataset raw -> recording -> tokens by recording; then what is learned from all of them."""

from __future__ import annotations

import dagster as dg
from dagster_aws.s3 import S3Resource

from neurofmx.assets.datasets import dataset_assets
from neurofmx.assets.jobs import ingest_job, learn_job
from neurofmx.assets.learned import ASSETS
from neurofmx.assets.partitions import known_sources, layer_key
from neurofmx.assets.resources import LakeResource, RecipeResource, TrainingResource
from neurofmx.assets.schedules import nightly
from neurofmx.assets.sensors import inbox_sensor
from neurofmx.assets.store import S3LakeStore, pull_lake, push_lake
from neurofmx.assets.tables import catalog_asset, splits_asset
from neurofmx.lake import Lake
from neurofmx.pipeline import OnProgress, quiet


def definitions(lake: Lake, *, recipe: RecipeResource | None = None, on: OnProgress = quiet) -> dg.Definitions:
    """The DAG over one lake.

    Args:
        lake: its sources file says which datasets there are; the demo's where it has none.
        recipe: what is trained, `laptop` if left out.
        on: told of progress inside long assets.

    Raises:
        ConfigError: the sources file is wrong.
    """
    sources = known_sources(lake)
    scheduled = [source for source in sources if source.archive not in ("simulated", "folder")]
    return dg.Definitions(
        assets=[
            *(asset for source in sources for asset in dataset_assets(source)),
            catalog_asset([layer_key(source, "tokens") for source in sources]),
            splits_asset(),
            *ASSETS,
        ],
        jobs=[*(ingest_job(source) for source in sources), learn_job(), push_lake, pull_lake],
        schedules=[nightly(source) for source in scheduled],
        sensors=[inbox_sensor(lake)],
        resources={
            "lake": LakeResource(root=str(lake.root)),
            "recipe": recipe or RecipeResource(),
            "training": TrainingResource(),
            "pipes": dg.PipesSubprocessClient(),
            "progress": on,
            "store": S3LakeStore(s3=S3Resource()),
        },
        executor=dg.in_process_executor,  # a run is a process already; training has its own
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What ``dagster dev`` loads: the DAG over the lake at ``$NEUROFMX_LAKE``, else ``./lake``."""
    return definitions(Lake.open())
