"""A lake kept on S3: pushed and pulled by digest, catalog last, so that a reader never sees half of a version."""

# annotations stay objects here: Dagster reads the type of `context` and of resources from them
import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_aws.s3 import S3Resource

from neurofmx.assets.failures import as_dagster_failures
from neurofmx.assets.resources import LakeResource
from neurofmx.errors import ConfigError, Denied, Mismatch, NotThere, Transient
from neurofmx.lake import Lake
from neurofmx.provenance import digest_file

# in the order in which they are sent: what points at others comes after them
IMMUTABLE = ("raw", "recordings", "tokens")
LAYERS = (*IMMUTABLE, "runs", "manifests", "catalog")
INDEX = "index.json"


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What a push or a pull did.

    Args:
        files: how many were sent or fetched.
        bytes: how much that was.
        unchanged: how many were there already.
    """

    files: int
    bytes: int
    unchanged: int


class S3LakeStore(dg.ConfigurableResource):
    """A bucket that holds a lake's folder.

    Args:
        bucket: its name; it must exist.
        prefix: folder inside the bucket.
        s3: endpoint, region and credentials; another endpoint serves any S3-compatible store.
    """

    bucket: str = ""
    prefix: str = "lake"
    s3: S3Resource

    def push(self, lake: Lake) -> Moved:
        """Sends what the bucket lacks. Files whose names hold their digest are not read again.

        Args:
            lake: writers wait until it is sent.

        Raises:
            ConfigError: no bucket was named.
            NotThere, Denied, Transient: what S3 said.
        """
        with lake.lock(), self._client() as client:
            index, moved = self._index(client), Moved(files=0, bytes=0, unchanged=0)
            for layer in (*LAYERS, "sources.toml"):
                before = moved.files
                for path in _files(lake.root / layer):
                    name, size = path.relative_to(lake.root).as_posix(), path.stat().st_size
                    known = index.get(name)
                    if known and known["size"] == size and (layer in IMMUTABLE or known["sha256"] == digest_file(path)):
                        moved = Moved(files=moved.files, bytes=moved.bytes, unchanged=moved.unchanged + 1)
                        continue
                    sha256 = digest_file(path)
                    client.upload_file(str(path), self.bucket, f"{self.prefix}/{name}")
                    index[name] = {"sha256": sha256, "size": size}
                    moved = Moved(files=moved.files + 1, bytes=moved.bytes + size, unchanged=moved.unchanged)
                if moved.files > before:  # a push that is cut off goes on from the last whole layer
                    body = json.dumps(index, sort_keys=True).encode()
                    client.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{INDEX}", Body=body)
            return moved

    def pull(self, lake: Lake) -> Moved:
        """Fetches what the lake lacks, checking every digest; deletes nothing.

        Args:
            lake: an empty one becomes a copy.

        Raises:
            ConfigError: no bucket was named.
            Mismatch: an object's bytes are not those that were pushed; the lake keeps what it had.
            NotThere, Denied, Transient: what S3 said.
        """
        with lake.lock(), self._client() as client:
            index, files, size, unchanged = self._index(client), 0, 0, 0
            if not index:
                raise NotThere(f"lake s3://{self.bucket}/{self.prefix}", expected="one that was pushed")
            order = {layer: i for i, layer in enumerate(LAYERS)}
            for name in sorted(index, key=lambda n: (order.get(n.split("/")[0], len(order)), n)):
                wanted, target = index[name], lake.root / name
                if _same(target, wanted, immutable=name.split("/")[0] in IMMUTABLE):
                    unchanged += 1
                    continue
                self._fetch(client, name, wanted, target, lake)
                files, size = files + 1, size + wanted["size"]
            return Moved(files=files, bytes=size, unchanged=unchanged)

    def _fetch(self, client: Any, name: str, wanted: dict[str, Any], target: Path, lake: Lake) -> None:
        partial = lake.root / "tmp" / f"pull-{uuid.uuid4().hex}"
        try:
            client.download_file(self.bucket, f"{self.prefix}/{name}", str(partial))
            found = digest_file(partial)
            if found != wanted["sha256"]:
                raise Mismatch(
                    f"object s3://{self.bucket}/{self.prefix}/{name}", got=found, expected=wanted["sha256"],
                    fix="Push it again from a lake that is whole.",
                )  # fmt: skip
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def _index(self, client: Any) -> dict[str, dict[str, Any]]:
        """Name -> size and sha256 of all that the bucket holds; empty before the first push."""
        listed = client.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.prefix}/{INDEX}", MaxKeys=1)
        if not listed.get("KeyCount"):
            return {}
        return json.loads(client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{INDEX}")["Body"].read())

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        if not self.bucket:
            raise ConfigError("S3 lake store", got="no bucket", expected="a name", fix="Set the resource's bucket.")
        where = f"s3://{self.bucket}/{self.prefix}"
        try:
            yield self.s3.get_client()
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            kind = {404: NotThere, 401: Denied, 403: Denied}.get(status, Transient)
            raise kind(where, got=str(error), expected="a bucket that these credentials may use") from error
        except (BotoCoreError, S3UploadFailedError) as error:
            raise Transient(where, got=str(error), expected="an answer", fix="Try again.") from error


def _files(root: Path) -> list[Path]:
    """Finished files below a folder (or the file itself); hidden and temporary ones are still being written."""
    found = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    return [p for p in found if not p.name.startswith(".") and p.suffix != ".tmp"]


def _same(path: Path, wanted: dict[str, Any], *, immutable: bool) -> bool:
    if not path.is_file() or path.stat().st_size != wanted["size"]:
        return False
    return immutable or digest_file(path) == wanted["sha256"]


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
