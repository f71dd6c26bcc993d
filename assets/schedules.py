"""Each night every dataset is listed again, at a minute of its own, and what is new becomes partitions and runs."""

# annotations stay objects here: Dagster reads the type of `context` and of resources from them
import hashlib

import dagster as dg

from neurofmx.assets.jobs import ingest_job_name
from neurofmx.assets.partitions import add_partitions, group_of
from neurofmx.assets.resources import LakeResource
from neurofmx.errors import Transient
from neurofmx.ingest.sessions import Source
from neurofmx.ingest.sources import list_source

NEW_A_NIGHT = 200  # more wait for the next night: an archive's new release is not an emergency


def nightly(source: Source) -> dg.ScheduleDefinition:
    """The schedule of one dataset.

    Args:
        source: what is listed. Its minute between 02:00 and 05:00 UTC is hashed from its name, so that the
            datasets of one archive are not all asked at once and a new dataset moves no other.
    """
    minute = int.from_bytes(hashlib.sha256(source.text.encode()).digest()[:4], "big") % 180

    @dg.schedule(
        name=f"nightly__{group_of(source)}",
        job_name=ingest_job_name(source),
        cron_schedule=f"{minute % 60} {2 + minute // 60} * * *",
        execution_timezone="UTC",
        description=f"Lists {source.text} and ingests what is new, at most {NEW_A_NIGHT} recordings a night.",
    )
    def listing(context: dg.ScheduleEvaluationContext, lake: LakeResource):  # noqa: ANN202
        try:
            sessions = list_source(lake.open(), source)
        except Transient as error:
            return dg.SkipReason(f"{error} The next night asks again.")
        keys = [str(session.id) for session in sessions]
        known = set(context.instance.get_dynamic_partitions(source.text))
        new = add_partitions(context.instance, source, [k for k in keys if k not in known][:NEW_A_NIGHT])
        if not new:
            return dg.SkipReason(f"{source.text} lists {len(keys)} recordings, none of them new.")
        return [dg.RunRequest(run_key=key, partition_key=key) for key in new]

    return listing
