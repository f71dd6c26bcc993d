"""Which datasets a lake draws from: its sources file, what each was last listed to hold, and the demo's choice."""

from __future__ import annotations

import importlib
import json
import os
import tomllib
import uuid
from collections.abc import Iterable
from pathlib import Path

from neurofmx import catalog
from neurofmx.config import from_plain
from neurofmx.errors import ConfigError, NotThere
from neurofmx.ingest.archives.table import ARCHIVES, list_sessions
from neurofmx.ingest.sessions import Session, Source
from neurofmx.lake import Lake, now
from neurofmx.provenance import canonical_json
from neurofmx.types import RecordingId

# archive -> where a mirror keeps it
_MIRROR = {"dandi": "dandi", "physionet": "physionet/files", "openneuro": "openneuro", "ibl": "ibl", "other": "other"}
_HEAD = "# The datasets that this lake draws from; address is a folder or URL that stands in for the archive.\n"


def read_sources(lake: Lake) -> list[Source]:
    """The sources of a lake, in the order of ``<lake>/sources.toml``; none where there is no such file.

    Raises:
        ConfigError: the file is not TOML, or an entry has a field that a source lacks.
    """
    path = lake.root / "sources.toml"
    if not path.exists():
        return []
    try:
        table = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"sources file {path}", got=str(error), expected="TOML") from error
    entries = table.get("source", [])
    for entry in entries:
        missing = {"archive", "dataset", "version"} - set(entry)
        if missing:
            raise ConfigError(f"source {entry} of {path}", got=f"no {', '.join(sorted(missing))}", expected="all three")
    return [from_plain(Source, entry) for entry in entries]


def sources_of(lake: Lake) -> list[Source]:
    """The sources of a lake, or those of the demo where it names none yet."""
    return read_sources(lake) or demo_sources()


def write_sources(lake: Lake, sources: Iterable[Source]) -> Path:
    """Replaces the sources file; of two sources with one name the later one stands."""
    chosen = {source.text: source for source in sources}
    blocks = [
        "[[source]]\n" + "".join(f"{name} = {json.dumps(getattr(one, name))}\n" for name in _FIELDS)
        for one in chosen.values()
    ]
    path = lake.root / "sources.toml"
    _replace(path, _HEAD + "\n" + "\n".join(blocks))
    return path


_FIELDS = ("archive", "dataset", "version", "address")


def demo_sources(mirror: Path | None = None) -> list[Source]:
    """What the demo runs on: the sample archive, the small simulated datasets, and all that a mirror holds.

    Args:
        mirror: a folder laid out as the archives lay theirs out, or None.

    Raises:
        NotThere: the mirror holds no archive.
    """
    from neurofmx.ingest import simulate
    from neurofmx.ingest.archives import sample, simulated

    found = [Source(archive="sample", dataset=name, version=version) for name, version in sample.VERSIONS.items()]
    found += [Source(archive="simulated", dataset=name, version=simulated.VERSION) for name in simulate.SIMULATED]
    return found + (mirror_sources(mirror) if mirror else [])


def mirror_sources(mirror: Path) -> list[Source]:
    """Every dataset of every archive that a mirror folder holds.

    Raises:
        NotThere: it holds none.
    """
    root = mirror.expanduser().resolve()
    found = [
        Source(archive=archive, dataset=dataset, version=version, address=str(root / folder))
        for archive, folder in _MIRROR.items()
        if (root / folder).is_dir()
        for dataset, version in importlib.import_module(ARCHIVES[archive]).datasets(root / folder)
    ]
    if not found:
        raise NotThere(f"mirror {root}", got="no dataset", expected=f"folders {', '.join(_MIRROR.values())}")
    return found


def list_source(lake: Lake, source: Source) -> list[Session]:
    """Lists a dataset and keeps the answer, so that one recording can be found again without listing all.

    Raises:
        NotThere: no such dataset; and what the archive's connector raises.
    """
    sessions = list(list_sessions(source))
    for session in sessions:
        keep_session(lake, session)
    row = {"dataset_id": source.text, "archive": source.archive, "dataset": source.dataset, "version": source.version,
           "address": source.address, "n_listed": len(sessions), "listed_at": now()}  # fmt: skip
    if sessions:
        terms = sessions[0].licence
        row |= {"licence": terms.spdx if terms else "", "citation": sessions[0].citation}
    catalog.put(lake, "datasets", source.text, [row])
    return sessions


def keep_session(lake: Lake, session: Session) -> None:
    """Notes a session as it was listed, for `find_session`."""
    path, text = _session_path(lake, session.id), canonical_json(session)
    if not path.exists() or path.read_text() != text:
        _replace(path, text)


def find_session(lake: Lake, recording: RecordingId | str) -> Session:
    """One recording by its id: as last listed, else by listing its source now.

    Raises:
        ConfigError: the text is no recording id.
        NotThere: no source of this lake has it; the message names what there is.
    """
    rid = RecordingId.parse(str(recording))
    path = _session_path(lake, rid)
    if path.exists():
        return from_plain(Session, json.loads(path.read_text()))
    known = {source.text: source for source in read_sources(lake)}
    if rid.source not in known and rid.archive not in ("sample", "simulated"):
        raise NotThere(
            f"recording {rid}",
            got=f"no source {rid.source}",
            expected=f"one of {', '.join(known) or 'none: the lake has no sources yet'}",
            fix=f"Add it to {lake.root / 'sources.toml'}.",
        )
    listed = list_source(lake, known.get(rid.source, Source.parse(rid.source)))
    for session in listed:
        if session.id == rid:
            return session
    some = ", ".join(session.id.name for session in listed[:5])
    raise NotThere(f"recording {rid}", expected=f"one of the {len(listed)} of {rid.source}, such as {some}")


def _session_path(lake: Lake, rid: RecordingId) -> Path:
    return lake.root / "manifests" / "sessions" / rid.source.replace(":", "-") / f"{rid.name}.json"


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    partial.write_text(text)
    os.replace(partial, path)
