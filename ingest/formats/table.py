"""The table of readers: one row a format, imported when it is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

from neurofmx.errors import ConfigError
from neurofmx.ingest.sessions import Session
from neurofmx.types import RawFile, Recording

# reader -> (module:function, its name and hand-bumped version, as a recording's provenance keeps it)
_ROWS = {
    "nwb": ("neurofmx.ingest.formats.nwb:read", "formats.nwb@2"),
    "edf": ("neurofmx.ingest.formats.edf:read", "formats.edf@2"),
    "bids": ("neurofmx.ingest.formats.bids:read", "formats.bids@2"),
    "alf": ("neurofmx.ingest.formats.alf:read", "formats.alf@1"),
    "wfdb": ("neurofmx.ingest.formats.wfdb:read", "formats.wfdb@2"),
    "wav": ("neurofmx.ingest.formats.wav:read", "formats.wav@2"),
    "otb": ("neurofmx.ingest.formats.otb:read", "formats.otb@2"),
    "nitime_spikes": ("neurofmx.ingest.formats.nitime:read_spikes", "formats.nitime_spikes@1"),
    "nitime_fmri": ("neurofmx.ingest.formats.nitime:read_fmri", "formats.nitime_fmri@1"),
    "torch_brain": ("neurofmx.ingest.formats.torch_brain:read", "formats.torch_brain@1"),
    "video": ("neurofmx.ingest.formats.video:read", "formats.video@1"),
    "simulated": ("neurofmx.ingest.simulate:read", "simulate@2"),
}
READERS: dict[str, str] = {name: path for name, (path, _) in _ROWS.items()}


def reader_version(name: str) -> str:
    """Name and version of a reader, as `Provenance.reader` keeps it, without importing it.

    Raises:
        ConfigError: no such reader.
    """
    _known(name)
    return _ROWS[name][1]


def read(name: str, root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Reads one recording: exact times, native rates, gaps stated, nothing filled.

    Args:
        name: row of this table.
        root: folder in which the files have their own relative names.
        session: what the archive says of them.
        files: the raw files; the first is the one to open.

    Raises:
        ConfigError: no such reader.
        MalformedFile: a file is not what its name or its header says.
    """
    _known(name)
    module, _, function = READERS[name].partition(":")
    return getattr(importlib.import_module(module), function)(root, session, files)


def _known(name: str) -> None:
    if name not in READERS:
        raise ConfigError("reader", got=name, expected=f"one of {', '.join(READERS)}")
