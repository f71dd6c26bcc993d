"""BIDS runs: the datatype decides which module reads the data, events and physiology come from the files beside it."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats.assemble import assemble, extent
from neurofmx.ingest.formats.bids_files import Run, events, metadata
from neurofmx.ingest.sessions import Session
from neurofmx.types import RawFile, Recording

# suffix of the file's name -> module with streams(run, notes)
_DATATYPES = {
    "eeg": "bids_eeg",
    "ieeg": "bids_eeg",
    "meg": "bids_eeg",
    "bold": "bids_bold",
    "nirs": "bids_nirs",
    "physio": "bids_physio",
}


def read(root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Reads one run of a BIDS dataset.

    Args:
        root: folder in which the files have their own relative names.
        session: what the archive says of the run.
        files: the data file, then its sidecars; time 0 is the first sample or volume, as events.tsv counts.

    Raises:
        MalformedFile: a file is not what its name says, or its sidecars contradict it.
    """
    run = Run(root=root, files=tuple(file.path for file in files))
    if run.suffix not in _DATATYPES:
        raise MalformedFile(f"{run.primary}", got=run.suffix or "no suffix", expected=f"one of {', '.join(_DATATYPES)}")
    if run.extension == ".nwb":  # intracranial runs may be NWB files, which state their own events
        from neurofmx.ingest.formats import nwb

        return nwb.read(root, session, files)
    notes: list[str] = []
    module = importlib.import_module(f"neurofmx.ingest.formats.{_DATATYPES[run.suffix]}")
    streams = dict(module.streams(run, notes))
    if run.suffix != "physio" and run.beside("physio", ".tsv.gz"):
        from neurofmx.ingest.formats import bids_physio

        for name in run.beside("physio", ".tsv.gz"):
            streams |= bids_physio.columns(run, name, notes, taken=set(streams))
    if "trials" not in streams:
        streams |= events(run, np.array([extent(streams.values())]), notes)
    task = str(metadata(run, run.suffix).get("TaskDescription", ""))
    if task:
        notes.append(f"the sidecar says: {' '.join(task.split())[:240]}")
    return assemble(session, files, streams, notes=notes)
