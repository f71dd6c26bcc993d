"""A second copy of the lake on S3, itself a lake: ``s3://bucket/prefix`` opens it."""

# annotations stay objects here: Dagster reads the type of `context` and of resources from them
import dagster as dg
from dagster_aws.s3 import S3Resource

from neurofmx.assets.failures import as_dagster_failures
from neurofmx.assets.resources import LakeResource
from neurofmx.copying import Copied, copy
from neurofmx.errors import ConfigError, NotThere
from neurofmx.lake import Lake
from neurofmx.remote import open_remote
from neurofmx.remote_head import HEAD


class S3LakeStore(dg.ConfigurableResource):
    """A bucket that holds a lake.

    Args:
        bucket: its name; it must exist.
        prefix: folder inside the bucket.
        s3: endpoint, region and credentials; another endpoint serves any S3-compatible store.
    """

    bucket: str = ""
    prefix: str = "lake"
    s3: S3Resource

    def open(self) -> Lake:
        """Opens, or makes, the lake in the bucket.

        Raises:
            ConfigError: no bucket was named.
            NotThere, Denied, Transient: what S3 said.
        """
        if not self.bucket:
            raise ConfigError("S3 lake store", got="no bucket", expected="a name", fix="Set the resource's bucket.")
        given = {
            "region": self.s3.region_name,
            "access_key_id": self.s3.aws_access_key_id,
            "secret_access_key": self.s3.aws_secret_access_key,
            "session_token": self.s3.aws_session_token,
        }
        return Lake.open(
            open_remote(
                f"s3://{self.bucket}/{self.prefix}", endpoint=self.s3.endpoint_url or "",
                credentials={name: value for name, value in given.items() if value},
            )
        )  # fmt: skip

    def push(self, lake: Lake) -> Copied:
        """Sends what the bucket lacks; see `copying.copy`."""
        return copy(lake, self.open())

    def pull(self, lake: Lake) -> Copied:
        """Fetches what the lake lacks; see `copying.copy`.

        Raises:
            NotThere: there is no lake in the bucket; or see `copying.copy`.
        """
        far = self.open()
        if far.remote is not None and far.remote.size_of(HEAD) is None:
            raise NotThere(f"lake {far.remote.url}", expected="one that was pushed")
        return copy(far, lake)


@dg.op(description="Sends the lake to its bucket.")
def push_lake_to_s3(context: dg.OpExecutionContext, lake: LakeResource, store: S3LakeStore) -> None:
    with as_dagster_failures():
        moved = store.push(lake.open())
    context.add_output_metadata({"files": moved.files, "bytes": moved.bytes, "unchanged": moved.unchanged})


@dg.op(description="Fetches the lake from its bucket.")
def pull_lake_from_s3(context: dg.OpExecutionContext, lake: LakeResource, store: S3LakeStore) -> None:
    with as_dagster_failures():
        moved = store.pull(lake.open())
    context.add_output_metadata({"files": moved.files, "bytes": moved.bytes, "unchanged": moved.unchanged})


@dg.job(description="Keeps a copy of the lake on S3: only what the bucket lacks is sent.")
def push_lake() -> None:
    push_lake_to_s3()


@dg.job(description="Fills a lake from its copy on S3, every digest checked.")
def pull_lake() -> None:
    pull_lake_from_s3()
