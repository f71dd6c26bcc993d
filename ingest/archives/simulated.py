"""The simulated archive: each recording's raw file is the generator's spec as JSON, from which it is made again."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from neurofmx.errors import NotThere
from neurofmx.ingest.sessions import RemoteFile, Session, Source
from neurofmx.ingest.simulate_spec import SimSpec
from neurofmx.provenance import canonical_json
from neurofmx.types import Licence, RecordingId

VERSION = "1"
_LICENCE = Licence(spdx="CC0-1.0", text="Made by neurofmx's simulator", source="neurofmx.ingest.simulate")


def list_sessions(source: Source) -> Iterator[Session]:
    """Lists the recordings of a simulated dataset; nothing is generated yet.

    Raises:
        NotThere: no such dataset.
    """
    from neurofmx.ingest import simulate

    if source.dataset not in simulate.SIMULATED:
        raise NotThere(f"simulated dataset {source.dataset}", expected=f"one of {', '.join(simulate.SIMULATED)}")
    for one in simulate.sessions(source.dataset):
        yield session_of(RecordingId(source.archive, source.dataset, source.version, one.name), one.spec)


def session_of(rid: RecordingId, spec: SimSpec) -> Session:
    """A simulated recording before it is made: its raw file is its spec."""
    text = canonical_json(spec).encode()
    url = "data:application/json;base64," + base64.b64encode(text).decode()
    return Session(
        id=rid,
        files=(RemoteFile(path=f"{rid.name}.json", url=url, size=len(text)),),
        reader="simulated",
        licence=_LICENCE,
        citation="neurofmx simulator, docs/SIMULATOR.md",
        session=rid.name,
    )
