"""Eye tracking and other physiology of a BIDS run: a headerless table and the JSON that names its columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.archives.bids import split
from neurofmx.ingest.formats import rates, spans
from neurofmx.ingest.formats.bids_files import MISSING, Run, metadata, number
from neurofmx.types import Channels, Samples, Stream, sanitise

_UNITS = {"pixel": "px", "pixels": "px", "degree": "deg", "degrees": "deg", "microsecond": "us", "µs": "us"}
_IN_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def streams(run: Run, notes: list[str]) -> dict[str, Stream]:
    """The columns of a run that is a physiology table itself: gaze and pupil, or one stream a column.

    Args:
        run: the run.
        notes: takes one sentence for each thing that was decided.

    Raises:
        MalformedFile: the table has another number of columns than the JSON names, or no rate.
    """
    return columns(run, run.primary, notes, taken=set())


def columns(run: Run, name: str, notes: list[str], *, taken: set[str]) -> dict[str, Stream]:
    """One physiology table as streams.

    Args:
        run: the run that it belongs to.
        name: the table.
        notes: takes one sentence for each thing that was decided.
        taken: stream names that the run has already.

    Raises:
        MalformedFile: as `streams`.
    """
    about = _about(run, name)
    data = _table(run, name, about)
    rate = number(about, "SamplingFrequency", f"the sidecar of {name}")
    if not rate or rate <= 0:
        raise MalformedFile(f"SamplingFrequency of {name}", got=str(rate), expected="a rate above 0 Hz")
    t0 = number(about, "StartTime", f"the sidecar of {name}") or 0.0
    gaze = about.get("PhysioType") == "eyetrack" or {"x_coordinate", "y_coordinate"} <= set(data)
    found = _eye(data, about, rate, t0, notes) if gaze else {}
    if "timestamp" in data:
        _compare_clock(data["timestamp"], about, rate, notes)
    used = {"timestamp", "x_coordinate", "y_coordinate"} | {c for c in data if gaze and c.startswith("pupil")}
    for column, values in data.items():
        if column in used:
            continue
        own = about.get(column)
        if isinstance(own, dict) and own.get("Levels") and run.beside("events", ".tsv"):
            notes.append(f"column {column} left out: labels of samples, which events.tsv holds as intervals")
            continue
        stream = sanitise(column).lower()
        found[stream if stream not in taken else f"{stream}_physio"] = _samples(
            values, (column,), stream, _unit(about, column), rate, t0
        )
    return found


def _about(run: Run, name: str) -> dict[str, Any]:
    """The sidecars of one table: those of another recording in the same folder are not its own."""
    stem = split(PurePosixPath(name).name)[0]
    others = {n for n in run.beside("physio", ".tsv.gz") if n != name}
    stems = {split(PurePosixPath(n).name)[0] for n in others}
    own = tuple(n for n in run.files if split(PurePosixPath(n).name)[0] not in stems)
    return metadata(replace(run, files=own), stem.rpartition("_")[2])


def _table(run: Run, name: str, about: dict[str, Any]) -> dict[str, np.ndarray]:
    import pandas

    names = about.get("Columns")
    if not isinstance(names, list) or not names:
        raise MalformedFile(f"Columns of {name}", got=repr(names), expected="a list of column names")
    try:
        frame = pandas.read_csv(run.root / name, sep="\t", header=None, na_values=[MISSING], compression="gzip")
        values = frame.to_numpy(np.float64)
    except (OSError, EOFError, ValueError, pandas.errors.ParserError) as error:
        got = f"{type(error).__name__}: {error}"
        raise MalformedFile(name, got=got, expected="a table of numbers, gzip") from error
    if values.shape[1] != len(names):
        raise MalformedFile(name, got=f"{values.shape[1]} columns", expected=f"{len(names)}: {', '.join(names)}")
    return {str(column): values[:, i] for i, column in enumerate(names)}


def _unit(about: dict[str, Any], column: str) -> str:
    own = about.get(column)
    text = str(own.get("Units", "")) if isinstance(own, dict) else ""
    return _UNITS.get(text, text) or "a.u."


def _eye(
    data: dict[str, np.ndarray], about: dict[str, Any], rate: float, t0: float, notes: list[str]
) -> dict[str, Stream]:
    if not {"x_coordinate", "y_coordinate"} <= set(data):
        raise MalformedFile("gaze table", got=f"columns {', '.join(data)}", expected="x_coordinate and y_coordinate")
    gaze = np.stack([data["x_coordinate"], data["y_coordinate"]], axis=1)
    pupils = [column for column in data if column.startswith("pupil")]
    pupil = np.stack([data[c] for c in pupils], axis=1) if pupils else np.empty((len(gaze), 0))
    unit = _unit(about, "x_coordinate")
    # a pupil without size is no eye; an exact origin is a tracker's zero fill, unless the origin is straight ahead
    lost: np.ndarray = np.any(pupil == 0, axis=1)
    if unit != "deg":
        lost = np.logical_or(lost, np.all(gaze == 0, axis=1))
    if lost.any():
        notes.append(f"{int(lost.sum())} of {len(gaze)} samples lost by the tracker (zeros): NaN, not valid")
        gaze[lost], pupil[lost] = np.nan, np.nan
    if about.get("RecordedEye"):
        notes.append(f"recorded eye: {about['RecordedEye']}")
    found: dict[str, Stream] = {"gaze": _samples(gaze, ("x", "y"), "gaze", unit, rate, t0)}
    if pupils:
        ids = tuple(column.removeprefix("pupil_") or column for column in pupils)
        found["pupil"] = _samples(pupil, ids, "pupil", _unit(about, pupils[0]), rate, t0)
    return found


def _samples(values: np.ndarray, ids: tuple[str, ...], modality: str, unit: str, rate: float, t0: float) -> Samples:
    known: np.ndarray = np.all(np.isfinite(values.reshape(len(values), -1)), axis=1)
    times = t0 + np.arange(len(values)) / rate
    valid = spans.whole(len(values), rate, t0) if known.all() else spans.stamped(times, known)
    return Samples(
        values=values, unit=unit, channels=Channels(ids=ids), modality=modality, valid=valid, rate_hz=rate, t0_s=t0
    )


def _compare_clock(stamps: np.ndarray, about: dict[str, Any], rate: float, notes: list[str]) -> None:
    """The device's own time stamps against the stated rate, which events count by and which is kept."""
    scale = _IN_S.get(_unit(about, "timestamp"))
    steps = np.diff(stamps[np.isfinite(stamps) & (stamps > 0)])
    if scale is None or not steps.size:
        notes.append("the device's time stamps are not known: the stated rate is the clock")
        return
    step = float(np.median(steps)) * scale
    if step > 0 and rates.differ(rate, 1 / step):
        then = "the stated rate is kept, since events count by it, so speeds and durations may be wrong "
        clock = "the device's time stamps"
        notes.append(rates.Disagreement(rate, 1 / step, clock, f"{then}{step * rate:.3g}-fold").note())
