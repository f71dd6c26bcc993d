"""Text files that nitime carries: spikes of a grasshopper's receptor with their sound, and fMRI of regions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import spans
from neurofmx.ingest.formats.assemble import assemble
from neurofmx.ingest.sessions import Session
from neurofmx.types import Channels, Events, RawFile, Recording, Samples

# fields of the header that say what was played; the others name files and settings of the rig
_SAID = re.compile(
    r"^#\s*(carrier freq|standard deviation|cut-off frequency|intensity)\s*(\([^)]*\))?\s*:\s*(\S+)", re.M
)
TR_S = 1.89
_TR_SOURCE = "TR 1.89 s, which the file does not hold: doc/examples/resting_state_fmri.py of nitime states it"
_NOT_REGIONS = {"WM": "white matter", "Vent": "ventricles", "Brain": "whole brain"}


def read_spikes(root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Reads spike times of one receptor and the amplitude of the sound that was played, on one clock.

    Args:
        root: folder in which the files have their own relative names.
        session: what the archive says of them.
        files: spike times in microseconds, one a line under ``#`` lines; then the sound, microseconds and amplitude.

    Raises:
        MalformedFile: lines that are no numbers, a missing stimulus, or times that run backwards.
    """
    if len(files) != 2:
        raise MalformedFile(files[0].path, got=f"{len(files)} files", expected="spike times and a stimulus")
    spikes, stimulus = (_columns(root / file.path, file.path, n) for file, n in zip(files, (1, 2)))
    times_us, amplitude = stimulus[:, 0], stimulus[:, 1]
    steps = np.diff(times_us)
    if len(steps) < 1 or steps[0] <= 0 or np.any(steps != steps[0]):
        raise MalformedFile(f"times of {files[1].path}", got="unequal steps", expected="one step in microseconds")
    if np.any(np.diff(spikes[:, 0]) < 0):
        raise MalformedFile(f"spike times of {files[0].path}", got="a time before the one above it",
                            expected="ascending microseconds")  # fmt: skip
    rate, t0 = 1e6 / float(steps[0]), float(times_us[0]) / 1e6
    valid = spans.whole(len(amplitude), rate, t0)
    said = _SAID.findall((root / files[0].path).read_text())
    notes = [
        "sound: amplitude of the sound, which was a tone of the carrier's frequency; no unit stated",
        *(f"the file says: {' '.join(part for part in (word, unit) if part)} {value}" for word, unit, value in said),
        "spikes: taken as observed as long as the sound lasts",
    ]
    streams = {
        "spikes": Events(
            times_s=spikes[:, 0] / 1e6,
            codes=np.zeros(len(spikes), np.int32),
            channels=Channels(ids=("receptor",)),
            modality="spikes",
            valid=valid,
        ),
        "sound": Samples(
            values=amplitude[:, None],
            unit="a.u.",
            channels=Channels(ids=("sound",)),
            modality="sound",
            valid=valid,
            rate_hz=rate,
            t0_s=t0,
        ),
    }
    return assemble(session, files, streams, notes=notes)


def read_fmri(root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Reads a table of BOLD time series, one column a region.

    Args:
        root: folder in which the file has its own relative name.
        session: what the archive says of it.
        files: comma-separated values under a line of names in quotes.

    Raises:
        MalformedFile: no names, or lines of other lengths than the first.
    """
    name = files[0].path
    path = root / name
    with path.open(encoding="utf-8", errors="replace") as handle:
        names = tuple(part.strip().strip('"') for part in handle.readline().strip().split(","))
    if not all(names) or re.fullmatch(r"[-+.\deE]+", names[0]):
        raise MalformedFile(f"first line of {name}", got=",".join(names)[:60], expected="a name for each region")
    values = _columns(path, name, len(names), delimiter=",", skip=1)
    known = spans.finite_rows(values)
    whole = spans.whole(len(values), 1 / TR_S)
    notes = [_TR_SOURCE, "time 0 is the first volume", "pre-processed by its authors; how is not stated"]
    other = [f"{one} ({_NOT_REGIONS[one]})" for one in names if one in _NOT_REGIONS]
    if other:
        notes.append(f"not of one region, and not centred as the others are: {', '.join(other)}")
    bold = Samples(
        values=values,
        unit="a.u.",
        channels=Channels(ids=names, regions=names),
        modality="fmri",
        valid=whole if known.all() else spans.stamped(np.arange(len(values)) * TR_S, known),
        rate_hz=1 / TR_S,
    )
    return assemble(session, files, {"fmri": bold}, notes=notes)


def _columns(path: Path, name: str, n: int, *, delimiter: str | None = None, skip: int = 0) -> np.ndarray:
    """(lines, n) numbers."""
    try:
        found = np.loadtxt(path, np.float64, delimiter=delimiter, skiprows=skip, ndmin=2)
    except ValueError as error:
        raise MalformedFile(name, got=str(error).splitlines()[0], expected=f"{n} numbers a line") from error
    if found.shape[1] != n or not len(found):
        raise MalformedFile(name, got=f"{found.shape[0]} lines of {found.shape[1]}", expected=f"{n} numbers a line")
    return found
