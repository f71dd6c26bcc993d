"""OTBioLab+ exports in MATLAB's format 5: grid EMG, its decomposition into motor units, and force, on one clock."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import spans
from neurofmx.ingest.formats.assemble import assemble
from neurofmx.ingest.formats.biosignals import scaled, unique
from neurofmx.ingest.sessions import Session
from neurofmx.scaled import Scaled
from neurofmx.types import Channels, Events, RawFile, Recording, Samples, Stream

_UNIT = re.compile(r"\s*\[\s*(?P<unit>[^\]]*?)\s*\]\s*$")
_GRID = re.compile(r"(?P<code>(?:GR|HD)\d\dMM\d{4}) \((?P<electrode>\d+)\)")
# distance of the electrodes in mm, rows and columns of the grids whose 64 electrodes wind from column to column,
# the first corner empty (GR08MM1305 and its kin, OT Bioelettronica; openhdemg 0.1.2, library/electrodes.py)
_GRIDS = {"GR08MM1305": 8.0, "HD08MM1305": 8.0, "GR04MM1305": 4.0, "HD04MM1305": 4.0}
_ROWS = 13


def read(root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Reads one export; time 0 is its first sample.

    Args:
        root: folder in which the file has its own relative name.
        session: what the archive says of it.
        files: the ``.mat`` file. Its columns are told apart by their descriptions: ``Decomposition of`` is a train of
            0 and 1, ``Source for decomposition`` is what such a train was made from and is left out, ``acquired data``
            is force, ``performed path`` is left out, a grid's code is EMG.

    Raises:
        MalformedFile: another kind of file, or columns that are not what their descriptions say.
    """
    name = files[0].path
    data, titles, rate, start = _load(root / name, name)
    notes = [f"time 0 is the first sample, which the file's own clock puts at {start:g} s"] if start else []
    valid = spans.whole(len(data), rate)
    places: dict[str, list[int]] = {"emg": [], "spikes": [], "force": [], "source": [], "other": []}
    for column, title in enumerate(titles):
        places[_kind(title)].append(column)
    streams: dict[str, Stream] = {}
    if places["emg"]:
        streams["emg"] = _emg(data, titles, places["emg"], rate, valid, name, notes)
    if places["spikes"]:
        streams["spikes"] = _spikes(data, places["spikes"], rate, valid, name)
        notes.append("spikes: motor units decomposed from this very EMG, so the two are not independent")
    if places["force"]:
        streams["force"] = Samples(
            values=data[:, places["force"]],
            unit=_unit(titles[places["force"][0]]).replace("(", "").replace(")", "").replace(" ", "") or "a.u.",
            channels=Channels(ids=("force",) if len(places["force"]) == 1 else _numbered(places["force"], "force")),
            modality="force",
            valid=valid,
            rate_hz=rate,
        )
    if places["source"]:
        notes.append(f"{len(places['source'])} columns 'Source for decomposition' left out: the spikes came from them")
    notes += [f"column left out: {titles[column]}" for column in places["other"]]
    return assemble(session, files, streams, notes=notes)


def _load(path: Path, name: str) -> tuple[np.ndarray, list[str], float, float]:
    """(N, columns) values, their descriptions, the rate in Hz and the file's time of the first sample."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(path)
        data = np.asarray(_inner(found["Data"]))
        time = np.asarray(_inner(found["Time"]), np.float64).ravel()
        rate = float(np.asarray(_inner(found["SamplingFrequency"])).ravel()[0])
        titles = [" ".join(str(np.asarray(_inner(row)).ravel()[0]).split()) for row in found["Description"].ravel()]
    except KeyError as error:
        raise MalformedFile(name, got=f"no variable {error}", expected="Data, Description, SamplingFrequency and Time, "
                            "as OTBioLab+ exports them") from error  # fmt: skip
    except (MatReadError, ValueError, TypeError, IndexError, OSError, NotImplementedError, zlib.error) as error:
        raise MalformedFile(name, got=f"{type(error).__name__}: {error}", expected="a MATLAB file of format 5",
                            fix="Fetch it again, or export it again.") from error  # fmt: skip
    if data.ndim != 2 or data.shape[1] != len(titles) or len(time) != len(data) or not len(data) or rate <= 0:
        raise MalformedFile(
            name, got=f"Data {data.shape}, {len(titles)} descriptions, {len(time)} times, {rate:g} Hz",
            expected="a time a row, a description a column, a rate above 0",
        )  # fmt: skip
    if np.max(np.abs(time - time[0] - np.arange(len(time)) / rate)) > 0.5 / rate:
        raise MalformedFile(f"Time in {name}", got="steps of other lengths", expected=f"1/{rate:g} s throughout")
    return data, titles, rate, float(time[0])


def _inner(value: np.ndarray) -> np.ndarray:
    """What a cell of one entry holds."""
    return value.ravel()[0] if value.dtype == object else value


def _kind(title: str) -> str:
    text = title.lower()
    if "source for decomposition" in text:
        return "source"
    if "decomposition of" in text:
        return "spikes"
    if "acquired data" in text:
        return "force"
    # the path that a subject was to follow is no signal of the body
    return "emg" if _GRID.search(title) and "performed path" not in text else "other"


def _unit(title: str) -> str:
    found = _UNIT.search(title)
    return found["unit"] if found else ""


def _numbered(columns: list[int], word: str) -> tuple[str, ...]:
    return tuple(f"{word}{i}" for i in range(1, len(columns) + 1))


def _emg(
    data: np.ndarray, titles: list[str], columns: list[int], rate: float, valid: np.ndarray, name: str, notes: list[str]
) -> Samples:
    units = sorted({_unit(titles[c]) for c in columns})
    factor, unit = scaled("emg", units[0])
    if len(units) != 1 or unit != "uV":
        raise MalformedFile(f"EMG of {name}", got=f"units {units}", expected="one of uV, mV, V")
    grids = [found for c in columns if (found := _GRID.search(titles[c]))]
    codes = {found["code"] for found in grids}
    electrodes = np.array([int(found["electrode"]) for found in grids])
    several = len({titles[c].partition(" (")[0] for c in columns}) > 1 or len(codes) > 1
    code = codes.pop()
    positions = None
    if several or code not in _GRIDS:
        notes.append(f"emg: no positions, {'several grids' if several else f'the layout of {code} is not known here'}")
    else:
        positions = grid_positions(electrodes, _GRIDS[code])
        notes.append(f"emg: positions on the grid {code}; where it lay on the muscle is not stated")
    chosen = data[:, columns]
    if chosen.dtype.kind in "iu":
        values = Scaled(chosen, np.full(len(columns), factor), np.zeros(len(columns)))
    else:
        values = chosen.astype(np.float32) * np.float32(factor)
    ids = unique([str(e) for e in electrodes])
    muscle = titles[columns[0]].partition(" - ")[0]
    return Samples(
        values=values,
        unit=unit,
        channels=Channels(ids=ids, regions=(muscle,) * len(ids), positions_um=positions),
        modality="emg",
        valid=valid,
        rate_hz=rate,
    )


def grid_positions(electrodes: np.ndarray, distance_mm: float) -> np.ndarray:
    """Where the electrodes of a 13 x 5 grid lie.

    Args:
        electrodes: (C,) numbers from 1 to 64. They wind through the columns, the first of which lacks a corner.
        distance_mm: between neighbours.

    Returns:
        (C, 3) um: x across columns, y along rows, z 0; NaN for numbers that the grid does not have.
    """
    place = np.asarray(electrodes)  # the missing corner is place 0
    column, step = np.divmod(place, _ROWS)
    row = np.where(column % 2 == 0, _ROWS - 1 - step, step)
    out = np.stack([column, row, np.zeros_like(row)], axis=1) * (distance_mm * 1000.0)
    out[(place < 1) | (place > 64)] = np.nan
    return out


def _spikes(data: np.ndarray, columns: list[int], rate: float, valid: np.ndarray, name: str) -> Events:
    trains = data[:, columns]
    if not np.all((trains == 0) | (trains == 1)):
        bad = int(np.argmax(np.any((trains != 0) & (trains != 1), axis=0)))
        raise MalformedFile(f"motor unit {bad + 1} of {name}", got="values between", expected="0 and 1 alone")
    sample, unit = np.nonzero(trains)  # row by row: in time
    return Events(
        times_s=sample / rate,
        codes=unit.astype(np.int32),
        channels=Channels(ids=_numbered(columns, "unit")),
        modality="spikes",
        valid=valid,
    )
