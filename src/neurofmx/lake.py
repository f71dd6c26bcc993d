"""The lake: raw bytes by digest, one immutable Zarr group a recording, tokens by spec, snapshots.

Publishing writes under a temporary name, renames, then replaces the catalog part that points at the
group; a writer killed anywhere leaves the last version whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from neurofmx import catalog, groups, shards
from neurofmx.errors import LakeCorrupt, Mismatch, NoSpace, NotThere
from neurofmx.provenance import canonical_json, code_version, digest_file, digest_of
from neurofmx.types import Check, RawFile, Recording, RecordingId, TokenGrid, TokenSpec

FOLDERS = ("raw", "recordings", "tokens", "catalog", "manifests/snapshots", "runs", "tmp")


def now() -> str:
    """The present time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Lake:
    """A folder that holds everything the pipeline knows.

    Args:
        root: the folder; made by `Lake.open`.
    """

    root: Path

    @classmethod
    def open(cls, path: str | Path | None = None) -> Lake:
        """Opens, or makes, the lake at ``path``, else at ``$NEUROFMX_LAKE``, else at ``./lake``."""
        root = Path(path or os.environ.get("NEUROFMX_LAKE") or "lake").expanduser().resolve()
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        return cls(root)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Serialises writers of this lake across processes; readers need none."""
        with (self.root / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

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
        """
        found = digest_file(path)
        if sha256 is not None and found != sha256.lower():
            raise Mismatch(f"sha256 of {path.name}", got=found, expected=sha256, fix="Fetch it again.")
        target = self.raw_path(found)
        if target.exists():
            path.unlink()
            return found
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{found[:8]}-{uuid.uuid4().hex}")
        with _full_disk(target):
            shutil.move(path, partial)
            os.replace(partial, target)
        return found

    @contextlib.contextmanager
    def raw_view(self, files: Iterable[RawFile]) -> Iterator[Path]:
        """A folder in which raw files have their own names again, for readers that look at siblings."""
        with tempfile.TemporaryDirectory(dir=self.root / "tmp", prefix="view-") as name:
            for file in files:
                source, link = self.raw_path(file.sha256), Path(name) / file.path
                if not source.exists():
                    raise NotThere(f"raw file {file.path}", got=file.sha256, fix="Fetch the recording again.")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source)
            yield Path(name)

    # recordings

    def publish_recording(self, recording: Recording, checks: Iterable[Check] = ()) -> str:
        """Writes a recording as an immutable group and points the catalog at it.

        Args:
            recording: what to keep; times and values are stored exactly as they are.
            checks: judgements to keep beside it.

        Returns:
            The logical digest (of decoded values, types and metadata): identity and data version.

        Raises:
            NoSpace: the disk is full; nothing is changed.
        """
        arrays, attributes, streams = groups.pack_recording(recording)
        digest = digest_of({"attributes": attributes, "streams": streams})
        rid = recording.id
        relative = Path("recordings") / rid.archive / f"{rid.dataset}@{rid.version}" / f"{rid.name}-{digest[:16]}.zarr"
        self._publish(relative, arrays, {"neurofmx": attributes, "digest": digest})
        key, at = str(rid), now()
        catalog.put(self, "streams", key, groups.stream_rows(recording, streams))
        catalog.put(self, "channels", key, groups.channel_rows(recording))
        catalog.put(self, "intervals", key, groups.interval_rows(recording))
        catalog.put(
            self,
            "checks",
            key,
            [
                {"recording_id": key, "stage": "ingest", "check_name": c.name, "passed": c.passed,
                 "severity": c.severity, "evidence": c.evidence, "checked_at": at}
                for c in checks
            ],
        )  # fmt: skip
        catalog.put(
            self,
            "lineage",
            key,
            [
                {"child": key, "child_kind": "recording", "parent": f.sha256, "parent_kind": "raw",
                 "detail": canonical_json(f)}
                for f in recording.provenance.files
            ],
        )  # fmt: skip
        subject = groups.subject_rows(recording)
        catalog.put(self, "subjects", subject[0]["subject_key"], subject)
        row = groups.recording_row(recording)
        row |= {"digest": digest, "path": str(relative), "bytes": sum(a.nbytes for a in arrays.values()),
                "code_version": code_version(), "ingested_at": at}  # fmt: skip
        catalog.put(self, "recordings", key, [row])  # last: this is what makes the new version visible
        return digest

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
        return groups.open_recording(self.root / self._row(rid)["path"])

    # tokens

    def publish_tokens(self, rid: RecordingId | str, spec: TokenSpec, grid: TokenGrid, *, stream: str = "") -> str:
        """Stores one recording's tokens under the spec's digest; returns their logical digest."""
        rid = RecordingId.parse(str(rid))
        arrays, attributes = groups.pack_grid(grid)
        parent = self.recording_digest(rid)
        digest = digest_of({"attributes": attributes, "arrays": arrays, "recording": parent})
        relative = Path("tokens", spec.digest(), rid.archive, f"{rid.dataset}@{rid.version}")
        relative /= f"{rid.name}-{digest[:16]}.zarr"
        self._publish(relative, arrays, {"neurofmx": attributes, "digest": digest, "recording": parent})
        t, c, p = grid.values.shape
        row = {"recording_id": str(rid), "spec": spec.name, "spec_digest": spec.digest(), "stream": stream,
               "modality": spec.modality, "bin_s": grid.dt_s, "n_bins": t, "n_channels": c, "n_fields": p,
               "digest": digest, "path": str(relative)}  # fmt: skip
        catalog.put(self, "tokens", f"{rid}|{spec.name}|{spec.digest()}|{stream}", [row])
        return digest

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

    def snapshot(self) -> str:
        """Freezes what the catalog points at now as a manifest of digests; returns the manifest's digest."""
        recordings = catalog.rows(self, "recordings")
        manifest = {
            "recordings": {
                r["recording_id"]: {"digest": r["digest"], "path": r["path"], "raw_sha256": r["raw_sha256"]}
                for r in recordings
            },
            "tokens": {
                f"{r['recording_id']}|{r['spec']}|{r['stream']}": {"digest": r["digest"], "path": r["path"]}
                for r in catalog.rows(self, "tokens")
            },
        }
        digest = digest_of(manifest)
        self._write_json(self.root / "manifests" / "snapshots" / f"{digest}.json", manifest)
        return digest

    def verify(self) -> list[Check]:
        """Reads every published recording and token group and every raw file again, and compares digests."""
        checks = []
        for row in catalog.rows(self, "recordings"):
            checks.append(_verified(f"recording {row['recording_id']}", row["digest"], self.root / row["path"]))
            for sha in row["raw_sha256"] or []:
                path = self.raw_path(sha)
                found = digest_file(path) if path.exists() else "no file"
                checks.append(Check(name=f"raw {sha[:12]}", passed=found == sha, severity="block",
                                    evidence=f"sha256 is {found}, catalog says {sha}"))  # fmt: skip
        for row in catalog.rows(self, "tokens"):
            checks.append(_verified(f"tokens {row['spec']} of {row['recording_id']}", row["digest"],
                                    self.root / row["path"]))  # fmt: skip
        return checks

    def _publish(self, relative: Path, arrays: dict[str, np.ndarray], attributes: dict[str, Any]) -> None:
        target = self.root / relative
        if target.exists():  # content-addressed: the same digest is the same bytes
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = self.root / "tmp" / f"group-{uuid.uuid4().hex}"
        with _full_disk(target):
            try:
                shards.write_group(partial, arrays, attributes)
                os.rename(partial, target)
            except OSError:
                shutil.rmtree(partial, ignore_errors=True)
                if not target.exists():  # another writer may have published the same digest first
                    raise

    def _write_json(self, path: Path, value: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with _full_disk(path):
            partial.write_text(json.dumps(json.loads(canonical_json(value)), indent=1, sort_keys=True))
            os.replace(partial, path)


def _verified(name: str, digest: str, path: Path) -> Check:
    try:
        found = groups.logical_digest(path)
    except LakeCorrupt as error:
        found = str(error)
    return Check(name=name, passed=found == digest, severity="block",
                 evidence=f"digest is {found}, catalog says {digest}")  # fmt: skip


@contextlib.contextmanager
def _full_disk(target: Path) -> Iterator[None]:
    import errno

    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(target.parent).free
            raise NoSpace(
                f"disk of {target.parent}", got=f"{free} bytes free", expected="room for the new group",
                fix="Free some space and run again; nothing in the lake was changed.",
            ) from error  # fmt: skip
        raise
