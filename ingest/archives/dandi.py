"""DANDI: one NWB asset is one recording; a folder with dandiset.yaml and assets.json answers as the REST API does."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from neurofmx.errors import MalformedFile, NotThere
from neurofmx.ingest.archives.licences import licence
from neurofmx.ingest.sessions import RemoteFile, Session, Source
from neurofmx.ingest.web import is_url, join, read_json, read_text
from neurofmx.types import RecordingId, Subject, sanitise

API = "https://api.dandiarchive.org/api"
_LOG = logging.getLogger(__name__)


def list_sessions(source: Source) -> Iterator[Session]:
    """Lists the NWB files of a dandiset.

    Args:
        source: ``address`` is a folder that holds ``<dandiset>/assets.json``, an API's base URL, or ``""`` for
            the public archive.

    Raises:
        NotThere: no such dandiset or version.
        MalformedFile: an answer lacks what DANDI promises.
    """
    address = source.address or API
    web = is_url(address)
    meta = _version(address, source) if web else _yaml(join(address, f"{source.dataset}/dandiset.yaml"))
    where = f"{source.dataset}/{source.version} of {address}"
    stated = meta.get("license") or []
    terms = licence(", ".join(stated) if isinstance(stated, list) else str(stated), f"license of dandiset {where}")
    left_out = 0
    for row in _pages(address, source) if web else _folder_rows(address, source):
        path = _field(row, "path", where)
        if not path.endswith(".nwb") or not row.get("blob"):
            left_out += 1
            continue
        metadata = row.get("metadata") or {}
        digest = metadata.get("digest") or {}
        digests = {
            name: value
            for name, value in (
                ("sha256", digest.get("dandi:sha2-256") or row.get("sha256")),
                ("dandi-etag", digest.get("dandi:dandi-etag")),
            )
            if value
        }
        if web:
            url = f"{address.rstrip('/')}/assets/{_field(row, 'asset_id', where)}/download/"
        else:
            url = join(address, f"{source.dataset}/{path}")
        session = re.search(r"_ses-([^_]+)", path)
        yield Session(
            id=RecordingId(source.archive, source.dataset, source.version, sanitise(PurePosixPath(path).stem)),
            files=(RemoteFile(path=path, url=url, size=row.get("size"), digests=digests),),
            reader="nwb",
            licence=terms,
            citation=str(meta.get("citation") or ""),
            subject=_subject(metadata),
            session=session.group(1) if session else "",
        )
    if left_out:
        _LOG.warning("dandi %s: %d assets that are not NWB files in HDF5 were left out", where, left_out)


def datasets(folder: Path) -> list[tuple[str, str]]:
    """The (dandiset, version) pairs that a folder holds."""
    found = sorted(path.parent for path in folder.glob("*/assets.json"))
    return [(one.name, str(_yaml((one / "dandiset.yaml").as_uri()).get("version", "draft"))) for one in found]


def _version(api: str, source: Source) -> dict[str, Any]:
    # the raw answer: dandischema's own model refuses licences that DANDI does not accept, and old versions
    return read_json(f"{api.rstrip('/')}/dandisets/{source.dataset}/versions/{source.version}/")


def _yaml(url: str) -> dict[str, Any]:
    import yaml

    try:
        return yaml.safe_load(read_text(url))
    except yaml.YAMLError as error:
        raise MalformedFile(url, got=str(error), expected="YAML") from error


def _pages(api: str, source: Source) -> Iterator[dict[str, Any]]:
    base = f"{api.rstrip('/')}/dandisets/{source.dataset}/versions/{source.version}/assets/"
    url: str | None = f"{base}?metadata=true&order=path"
    while url:
        page = read_json(url)
        for row in page["results"]:
            if row.get("blob") and row["path"].endswith(".nwb") and not row.get("metadata"):
                row["metadata"] = read_json(f"{base}{row['asset_id']}/")  # an API that does not inline it
            yield row
        url = page.get("next")


def _folder_rows(address: str, source: Source) -> Iterator[dict[str, Any]]:
    root = Path(address).expanduser() / source.dataset
    if not root.is_dir():
        near = ", ".join(name for name, _ in datasets(root.parent)) if root.parent.is_dir() else "nothing"
        raise NotThere(f"dandiset {source.dataset}", got=f"no folder {root}", expected=f"one of {near}")
    rows = read_json(join(str(root), "assets.json"))["results"]
    yield from sorted(rows, key=lambda row: row["path"])


def _field(row: dict[str, Any], name: str, where: str) -> Any:
    if name not in row:
        raise MalformedFile(
            f"asset of dandiset {where}", got=f"no {name!r}", expected="path, size, asset_id, blob or zarr"
        )
    return row[name]


def _subject(metadata: dict[str, Any]) -> Subject | None:
    """Who was recorded, where the archive says so; None leaves it to the file."""
    for one in metadata.get("wasAttributedTo") or []:
        if one.get("schemaKey") == "Participant" and one.get("identifier"):
            return Subject(
                id=str(one["identifier"]),
                species=str((one.get("species") or {}).get("name", "")),
                sex=str((one.get("sex") or {}).get("name", "")),
                age=str((one.get("age") or {}).get("value", "")),
            )
    return None
