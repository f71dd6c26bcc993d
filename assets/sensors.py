"""What is dropped into the lake's inbox folder becomes a partition and a run."""

# annotations stay objects here: Dagster reads the type of `context` and of resources from them
import time
from pathlib import Path

import dagster as dg

from neurofmx.assets.jobs import ingest_job_name
from neurofmx.assets.partitions import inbox_source, partitions_of
from neurofmx.assets.resources import LakeResource
from neurofmx.errors import NeurofmxError
from neurofmx.ingest.sessions import Session
from neurofmx.ingest.sources import list_source
from neurofmx.ingest.web import local_path
from neurofmx.lake import Lake

EVERY_S = 30
SETTLED_S = 5.0  # a file that changed more recently may still be being copied


def inbox_sensor(lake: Lake) -> dg.SensorDefinition:
    """The sensor on ``<lake>/inbox``; a file that is replaced is taken again, one that is not is never taken twice."""
    source = inbox_source(lake)

    @dg.sensor(
        name="inbox",
        job_name=ingest_job_name(source),
        minimum_interval_seconds=EVERY_S,
        description="Watches the lake's inbox folder for recordings of one's own.",
    )
    def inbox(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult | dg.SkipReason:
        opened = lake.open()
        folder = Path(source.address)
        folder.mkdir(exist_ok=True)
        if not any(folder.iterdir()):
            return dg.SkipReason(f"{folder} is empty.")
        try:
            sessions = list_source(opened, source)
        except NeurofmxError as error:
            return dg.SkipReason(str(error))
        settled = [(session, _changed_s(session)) for session in sessions]
        settled = [(session, at) for session, at in settled if time.time() - at >= SETTLED_S]
        requests = [
            dg.RunRequest(run_key=f"{session.id}|{at:.3f}", partition_key=str(session.id)) for session, at in settled
        ]
        known = set(context.instance.get_dynamic_partitions(source.text))
        new = [str(session.id) for session, _ in settled if str(session.id) not in known]
        added = [partitions_of(source).build_add_request(new)] if new else []
        return dg.SensorResult(run_requests=requests, dynamic_partitions_requests=added)

    return inbox


def _changed_s(session: Session) -> float:
    """When any file of a session last changed, in seconds since the epoch."""
    return max(local_path(file.url).stat().st_mtime for file in session.files)
