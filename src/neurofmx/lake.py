"""The lake: raw bytes by digest, one immutable Zarr group a recording, tokens by spec, snapshots."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurofmx import catalog, files, groups, pins, publish, remote, remote_head, shards, snapshots
from neurofmx.errors import Mismatch, NotThere
from neurofmx.provenance import digest_file
from neurofmx.provenance import now as now  # also found here
from neurofmx.remote import Remote
from neurofmx.types import Check, RawFile, Recording, RecordingId, TokenGrid, TokenSpec

FOLDERS = ("raw", "recordings", "tokens", "catalog", "manifests/snapshots", "runs", "tmp")


@dataclass(frozen=True)
class Lake:
    """A folder that holds everything the pipeline knows.

    Args:
        root: the folder; made by `Lake.open`. For a lake on S3 the working copy on this machine.
        remote: where the lake is, if not in ``root``.
    """

    root: Path
    remote: Remote | None = None

    @classmethod
    def open(cls, path: str | Path | Remote | None = None) -> Lake:
        """Opens, or makes, the lake at ``path``, else at ``$NEUROFMX_LAKE``, else at ``./lake``.

        Args:
            path: a folder, an address such as ``s3://bucket/prefix``, or what `remote.open_remote` gave.

        Raises:
            NotThere: there is no such bucket.
            Denied: these credentials may not read it.
            Transient: its server does not answer.
        """
        place = path or os.environ.get("NEUROFMX_LAKE") or "lake"
        if isinstance(place, Remote):
            root, far = place.root, place
        elif remote.is_address(place):
            far = remote.open_remote(place)
            root = far.root
        else:
            root, far = Path(place).expanduser().resolve(), None
        far = far or remote.of_folder(root)
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        lake = cls(root, far)
        with remote_head.current(lake):  # says at once where there is no such bucket
            return lake

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Serialises writers of this lake across processes; readers need none."""
        with files.locked(self.root / ".lock"):
            yield

    def pointing(self) -> contextlib.AbstractContextManager[None]:
        """Held while what the catalog or a snapshot points at changes, or is collected; see `publish.pointing`."""
        return publish.pointing(self)

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """While this is held, no collection takes away what the catalog named since; see `pins.held`."""
        return pins.held(self)

    # raw bytes

    def raw_path(self, sha256: str) -> Path:
        """Where the raw file with this digest lies, or would lie."""
        return self.root / "raw" / sha256[:2] / sha256

    def add_raw(self, path: Path, *, sha256: str | None = None) -> str:
        """Moves a finished file into the lake under its digest.

        Args:
            path: a file on any filesystem; it is consumed.
            sha256: the wanted digest, if the archive states one.

        Returns:
            The file's sha256.

        Raises:
            Mismatch: the bytes have another digest; the file is left where it is.
            NoSpace: the disk is full.
            Denied: the lake may not be written here.
        """
        found = digest_file(path)
        if sha256 is not None and found != sha256.lower():
            raise Mismatch(f"sha256 of {path.name}", got=found, expected=sha256, fix="Fetch it again.")
        target = self.raw_path(found)
        with files.clear_faults(target):
            if target.exists():
                os.utime(target)  # a collection goes by age: these bytes are wanted again
                path.unlink()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f".{found[:8]}-{uuid.uuid4().hex}")
                shutil.move(path, partial)
                os.utime(partial)
                os.replace(partial, target)
        self.keep(target)
        return found

    def keep(self, path: Path) -> None:
        """Makes a file, or folder, that was written below the root part of the lake where that is elsewhere."""
        if self.remote is not None:
            self.remote.send(path)

    def at(self, relative: str | Path) -> Path:
        """Where a file or folder of the lake is on this machine, fetched if it was not.

        Raises:
            NotThere: it is not in the lake; one on a disk is not asked.
        """
        path = self.root / relative
        if self.remote is not None and not path.exists():
            self.remote.bring(path)
        return path

    @contextlib.contextmanager
    def raw_view(self, files: Iterable[RawFile]) -> Iterator[Path]:
        """A folder in which raw files have their own names again, for readers that look at siblings."""
        with self.reading(), tempfile.TemporaryDirectory(dir=self.root / "tmp", prefix="view-") as name:
            for file in files:
                source = remote.at_hand(self.raw_path(file.sha256), file.sha256)
                link = Path(name) / file.path
                if not source.exists():
                    raise NotThere(f"raw file {file.path}", got=file.sha256, fix="Fetch the recording again.")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source)
            yield Path(name)

    # recordings

    def publish_recording(self, recording: Recording, checks: Iterable[Check] = ()) -> str:
        """Stores a recording as an immutable group and points the catalog at it; see `publish.recording`."""
        return publish.recording(self, recording, checks)

    def _row(self, rid: RecordingId | str) -> dict[str, Any]:
        found = catalog.rows(self, "recordings", str(rid))
        if not found:
            raise NotThere(
                "recording", got=str(rid), expected="one that is in the lake",
                fix='List them: neurofmx sql "select recording_id from recordings"',
            )  # fmt: skip
        return found[0]

    def has_recording(self, rid: RecordingId | str) -> bool:
        """Whether the catalog points at a recording of this id."""
        return bool(catalog.rows(self, "recordings", str(rid)))

    def recording_ids(self) -> list[str]:
        """Text ids of all recordings, sorted."""
        return sorted(row["recording_id"] for row in catalog.rows(self, "recordings"))

    def recording_digest(self, rid: RecordingId | str) -> str:
        """The logical digest of the current version of a recording."""
        return self._row(rid)["digest"]

    def recording(self, rid: RecordingId | str) -> Recording:
        """Opens a recording lazily: signals are read when they are sliced.

        Raises:
            NotThere: the lake has no such recording.
            LakeCorrupt: its group is damaged.
        """
        return groups.open_recording(self.root / self._row(rid)["path"], self.root / "raw")

    # tokens

    def publish_tokens(self, rid: RecordingId | str, spec: TokenSpec, grid: TokenGrid, *, stream: str = "") -> str:
        """Stores one recording's tokens under the spec's digest; see `publish.tokens`."""
        return publish.tokens(self, rid, spec, grid, stream=stream)

    def _token_rows(self, rid: RecordingId | str, spec: TokenSpec, stream: str) -> list[dict[str, Any]]:
        return catalog.rows(self, "tokens", f"{rid}|{spec.name}|{spec.digest()}|{stream}")

    def has_tokens(self, rid: RecordingId | str, spec: TokenSpec, *, stream: str = "") -> bool:
        """Whether current tokens of this spec exist: made from the recording's present version."""
        rows = self._token_rows(rid, spec, stream)
        return bool(rows) and (
            shards.read_attributes(self.root / rows[0]["path"])["recording"] == self.recording_digest(rid)
        )

    def tokens(self, rid: RecordingId | str, spec: TokenSpec, *, stream: str = "") -> TokenGrid:
        """Reads stored tokens.

        Raises:
            NotThere: there are none for this spec.
        """
        rows = self._token_rows(rid, spec, stream)
        if not rows:
            raise NotThere(f"tokens {spec.name} of {rid}", fix="Make them: neurofmx tokens")
        return groups.open_grid(self.root / rows[0]["path"])

    # versions

    def snapshot(self, name: str = "") -> str:
        """Freezes what the catalog points at now; returns the digest of what it names. See `snapshots.take`."""
        return snapshots.take(self, name)

    def verify(self) -> list[Check]:
        """Compares all that is stored with its digests; see `verify.verify`."""
        from neurofmx import verify

        return verify.verify(self)
