"""Snapshots: manifests of digests that say what a lake held, under the digest of what they name.

    manifests/snapshots/<digest>.json  recordings and token grids with their digests, and what refetches them
    manifests/names/<name>.json        a name: the digest, and the catalog as it was when the name was given

The digest covers the data alone (ids, logical digests, raw digests): two lakes that hold the same data have the same
snapshot, whenever it was taken, by whatever code and however it is encoded. The catalog of the moment, with its
times and scores, is kept beside it. An unnamed snapshot keeps the catalog of the first time that it was taken; a
name keeps its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurofmx import catalog, files, parts, publish, remote_head
from neurofmx.errors import ConfigError, LakeCorrupt, Newer, NotThere
from neurofmx.provenance import code_version, digest_of, now

if TYPE_CHECKING:
    from neurofmx.lake import Lake

SCHEMA = 2  # 1 had neither catalog nor sources
SHORTEST = 6  # digits of a digest that may stand for it
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(rf"[0-9a-f]{{{SHORTEST},64}}")
_SOURCE = ("archive", "dataset", "version", "address", "licence", "citation")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a snapshot names.

    Args:
        digest: of ids, logical digests and raw digests.
        recordings: id -> digest, path, raw_sha256; since schema 2 also files (as `types.RawFile`), session, licence
            and reader.
        tokens: key of table ``tokens`` -> digest, path.
        catalog: table -> base files that held it; empty in manifests of schema 1.
        sources: archive, dataset, version, address, licence and citation of each dataset.
        name: under which it was found, empty for none.
        code_version: code that took it.
        taken_at: when, ISO 8601 in UTC.
    """

    digest: str
    recordings: dict[str, dict[str, Any]]
    tokens: dict[str, dict[str, Any]]
    catalog: dict[str, list[str]] = field(default_factory=dict)
    sources: tuple[dict[str, Any], ...] = ()
    name: str = ""
    code_version: str = ""
    taken_at: str = ""

    def groups(self) -> set[str]:
        """The folders that it names, relative to the lake."""
        return {row["path"] for row in (*self.recordings.values(), *self.tokens.values())}

    def raw(self) -> set[str]:
        """The digests of the raw files that it names."""
        return {sha for row in self.recordings.values() for sha in row.get("raw_sha256") or ()}


@remote_head.transaction
def take(lake: Lake, name: str = "", *, move: bool = False) -> str:
    """Freezes what the catalog points at now, and the catalog with it.

    Args:
        lake: the lake; its writers wait meanwhile.
        name: letters, digits, dot, dash and underscore; none when empty.
        move: whether a name may leave the snapshot that it has.

    Returns:
        The digest of what the snapshot names.

    Raises:
        ConfigError: the name has other characters, looks like a digest, or is another snapshot's.
        NoSpace, Denied: nothing was taken.
    """
    if name and (not _NAME.fullmatch(name) or _DIGEST.fullmatch(name) or name == "main"):
        raise ConfigError("name of a snapshot", got=name,
                          expected="letters, digits, . _ -; neither hex digits alone nor main")  # fmt: skip
    with publish.pointing(lake):
        frozen = parts.freeze(lake)
        manifest = _manifest(lake, frozen)
        digest = digest_of(_covered(manifest, SCHEMA))
        path, named = _path(lake, digest), _name_path(lake, name)
        if name and named.exists() and (had := _read(named)["snapshot"]) != digest and not move:
            raise ConfigError(f"snapshot name {name}", got=f"it stands for {had[:16]}", expected="a new name",
                              fix=f"Give another name, or move it: neurofmx lake snapshot {name} --move")  # fmt: skip
        taken = {"schema": SCHEMA, "catalog": frozen, "code_version": code_version(), "taken_at": now()}
        if not path.exists():
            files.replace(path, _text({**manifest, **taken}))
        if name:
            files.replace(named, _text({"name": name, "snapshot": digest, **taken}))
        sizes = parts.read(lake, "recordings", ["bytes"], frozen=frozen.get("recordings", ()))["bytes"].to_pylist()
        row = {"snapshot": digest, "name": name, "taken_at": taken["taken_at"], "n_tokens": len(manifest["tokens"]),
               "n_recordings": len(manifest["recordings"]), "bytes": sum(size or 0 for size in sizes),
               "path": path.relative_to(lake.root).as_posix()}  # fmt: skip
        if name or not catalog.rows(lake, "snapshots", digest):
            catalog.put(lake, "snapshots", f"name|{name}" if name else digest, [row])
    return digest


def _manifest(lake: Lake, frozen: Mapping[str, list[str]]) -> dict[str, Any]:
    def rows(table: str) -> list[dict[str, Any]]:
        return parts.read(lake, table, frozen=frozen.get(table, ())).to_pylist()

    raw: dict[str, list[Any]] = {}
    for edge in rows("lineage"):
        if edge["child_kind"] == "recording" and edge["parent_kind"] == "raw":
            raw.setdefault(edge["child"], []).append(json.loads(edge["detail"]))
    recordings = {
        r["recording_id"]: {
            **{name: r[name] for name in ("digest", "path", "raw_sha256", "session", "licence", "reader")},
            "files": raw.get(r["recording_id"], []),
        }
        for r in rows("recordings")
    }
    tokens = {
        f"{r['recording_id']}|{r['spec']}|{r['spec_digest']}|{r['stream']}": {"digest": r["digest"], "path": r["path"]}
        for r in rows("tokens")
    }
    held = {rid.partition("/")[0] for rid in recordings}
    sources = [{k: d[k] or "" for k in _SOURCE} for d in rows("datasets") if d["dataset_id"] in held]
    return {"recordings": recordings, "tokens": tokens, "sources": sources}


def _covered(manifest: Mapping[str, Any], schema: int) -> dict[str, Any]:
    """What the digest is of. Schema 1 had the folders in it, so that another encoding was another snapshot."""
    kept = ("digest", "raw_sha256", "path") if schema == 1 else ("digest", "raw_sha256")
    return {
        kind: {key: {k: row[k] for k in kept if k in row} for key, row in manifest[kind].items()}
        for kind in ("recordings", "tokens")
    }


@remote_head.reader(*remote_head.SNAPSHOTS)
def find(lake: Lake, name_or_digest: str) -> Manifest:
    """The snapshot of a name, of a digest or of its first digits.

    Raises:
        NotThere: there is none, or the digits fit several.
        Newer: newer code took it.
        LakeCorrupt: its manifest is damaged.
    """
    named = _name_path(lake, name_or_digest)
    if _NAME.fullmatch(name_or_digest) and named.exists():
        own = _read(named)
        found = _load(_path(lake, own["snapshot"]))
        return replace(found, catalog=own["catalog"], name=name_or_digest, taken_at=own["taken_at"],
                       code_version=own["code_version"])  # fmt: skip
    fitting = [d for d in digests(lake) if _DIGEST.fullmatch(name_or_digest) and d.startswith(name_or_digest)]
    if len(fitting) != 1:
        known = ", ".join([*names(lake), *(d[:12] for d in digests(lake))][:8]) or "none: none was taken yet"
        raise NotThere(f"snapshot {name_or_digest}", got=f"{len(fitting)} that fit", expected=f"one of {known}",
                       fix="List them: neurofmx lake snapshots")  # fmt: skip
    return _load(_path(lake, fitting[0]))


def load(path: Path) -> Manifest:
    """The manifest in a file, of any lake.

    Raises:
        NotThere: there is no such file.
        Newer, LakeCorrupt: as `find`.
    """
    if not path.is_file():
        raise NotThere(f"manifest {path}", expected="a file under manifests/snapshots of a lake")
    return _load(path)


@remote_head.reader(*remote_head.SNAPSHOTS)
def names(lake: Lake) -> dict[str, str]:
    """Name -> digest of its snapshot, sorted by name."""
    found = sorted((lake.root / "manifests" / "names").glob("*.json"))
    return {path.stem: _read(path)["snapshot"] for path in found}


@remote_head.reader(*remote_head.SNAPSHOTS)
def digests(lake: Lake) -> list[str]:
    """The digests of all snapshots, sorted."""
    return sorted(path.stem for path in (lake.root / "manifests" / "snapshots").glob("*.json"))


def every(lake: Lake) -> list[Manifest]:
    """All snapshots, then each again under each of its names, with the catalog that the name keeps.

    Raises:
        Newer: newer code took one; what that one names is not known.
        LakeCorrupt: a manifest is damaged.
    """
    return [*(_load(_path(lake, digest)) for digest in digests(lake)), *(find(lake, name) for name in names(lake))]


def rederived(lake: Lake, digest: str) -> str:
    """The digest of what a manifest names, derived again.

    Raises:
        Newer, LakeCorrupt: as `find`.
    """
    path = _path(lake, digest)
    _load(path)
    value = _read(path)
    return digest_of(_covered(value, value.get("schema", 1)))


def _path(lake: Lake, digest: str) -> Path:
    return lake.root / "manifests" / "snapshots" / f"{digest}.json"


def _name_path(lake: Lake, name: str) -> Path:
    return lake.root / "manifests" / "names" / f"{name}.json"


def _text(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
        schema = value.get("schema", 1)
    except (OSError, ValueError, AttributeError) as error:
        raise LakeCorrupt(f"manifest {path}", got=str(error), expected="a JSON object") from error
    if not isinstance(schema, int) or schema > SCHEMA:
        raise Newer(f"snapshot manifest {path}", got=f"schema {schema}", expected=f"schema {SCHEMA} or older",
                    fix="A newer neurofmx took it: update this one.")  # fmt: skip
    return value


def _load(path: Path) -> Manifest:
    value = _read(path)
    try:
        return Manifest(
            digest=path.stem, recordings=value["recordings"], tokens=value["tokens"], catalog=value.get("catalog", {}),
            sources=tuple(value.get("sources", ())), code_version=value.get("code_version", ""),
            taken_at=value.get("taken_at", ""),
        )  # fmt: skip
    except KeyError as error:
        raise LakeCorrupt(f"manifest {path}", got=f"no {error}", expected="recordings and tokens") from error
