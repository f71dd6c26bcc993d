"""The files beside a BIDS run: sidecars by inheritance, tables as columns, events as intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.archives.bids import entities, split
from neurofmx.types import Intervals

MISSING = "n/a"
IN_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "um": 1.0, "µm": 1.0}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: its data file and all that the archive listed with it.

    Args:
        root: folder in which the files lie.
        files: names relative to ``root``; the first is the data.
    """

    root: Path
    files: tuple[str, ...]

    @property
    def primary(self) -> str:
        """Name of the data file."""
        return self.files[0]

    @property
    def path(self) -> Path:
        """Where the data file lies."""
        return self.root / self.primary

    @property
    def suffix(self) -> str:
        """Last part of the stem: ``eeg``, ``bold``, ``physio``."""
        return split(PurePosixPath(self.primary).name)[0].rpartition("_")[2]

    @property
    def extension(self) -> str:
        """Extension from the first dot on."""
        return split(PurePosixPath(self.primary).name)[1]

    def beside(self, suffix: str, extension: str) -> tuple[str, ...]:
        """Names with a suffix and extension, from the most general (highest folder, fewest entities) to the nearest."""
        found = []
        for name in self.files:
            path = PurePosixPath(name)
            stem, dotted = split(path.name)
            if dotted == extension and stem.rpartition("_")[2] == suffix:
                found.append((len(path.parts), len(entities(stem)), name))
        return tuple(name for _, _, name in sorted(found))


def metadata(run: Run, suffix: str) -> dict[str, Any]:
    """The JSON sidecars of a suffix, laid over one another: the nearest has the last word.

    Raises:
        MalformedFile: one of them is no JSON object.
    """
    merged: dict[str, Any] = {}
    for name in run.beside(suffix, ".json"):
        try:
            own = json.loads((run.root / name).read_text(encoding="utf-8-sig"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise MalformedFile(name, got=str(error), expected="JSON") from error
        if not isinstance(own, dict):
            raise MalformedFile(name, got=type(own).__name__, expected="a JSON object")
        merged |= own
    return merged


def number(about: Mapping[str, Any], key: str, where: str) -> float | None:
    """A number of a sidecar, None where it is not there or ``n/a``.

    Raises:
        MalformedFile: it is there and no number.
    """
    value = about.get(key)
    if value is None or value == MISSING:
        return None
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise MalformedFile(f"{key} of {where}", got=repr(value), expected="a number") from error


def table(run: Run, suffix: str) -> dict[str, list[str]] | None:
    """The nearest table of a suffix as name -> texts, or None where there is none.

    Raises:
        MalformedFile: a row has another number of fields than the header.
    """
    names = run.beside(suffix, ".tsv")
    if not names:
        return None
    lines = (run.root / names[-1]).read_text(encoding="utf-8-sig").splitlines()
    rows = [line.split("\t") for line in lines if line.strip()]
    if not rows:
        raise MalformedFile(names[-1], got="an empty file", expected="a header row")
    for at, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]):
            raise MalformedFile(f"row {at} of {names[-1]}", got=f"{len(row)} fields", expected=f"{len(rows[0])}")
    return {name.strip(): [row[i].strip() for row in rows[1:]] for i, name in enumerate(rows[0])}


def typed(texts: list[str]) -> np.ndarray:
    """(N,) int64 or float64 where every known entry is a number (``n/a`` is NaN), else text (``n/a`` is empty)."""
    known = [text for text in texts if text not in (MISSING, "")]
    try:
        numbers = [float(text) for text in known]
    except ValueError:
        return np.array(["" if text == MISSING else text for text in texts], dtype=str)
    if known and len(known) == len(texts) and all(text.lstrip("+-").isdigit() for text in known):
        return np.array([int(text) for text in texts], dtype=np.int64)
    if not known:
        return np.array([""] * len(texts), dtype=str)
    rest = iter(numbers)
    return np.array([np.nan if text in (MISSING, "") else next(rest) for text in texts], dtype=np.float64)


def events(run: Run, valid: np.ndarray, notes: list[str], *, shift_s: float = 0.0) -> dict[str, Intervals]:
    """The events table as a stream ``trials``; nothing where the run has none.

    Args:
        run: the run.
        valid: (1, 2) seconds over which it lasted.
        notes: takes one sentence for each thing that was decided.
        shift_s: time of the first sample, which onsets count from.

    Raises:
        MalformedFile: the table has no onset or duration, or one that is no number.
    """
    rows = table(run, "events")
    if rows is None:
        notes.append("no events.tsv")
        return {}
    where = run.beside("events", ".tsv")[-1]
    onset, duration = (_seconds(rows, name, where) for name in ("onset", "duration"))
    keep = np.flatnonzero(np.isfinite(onset))
    if len(keep) < len(onset):
        notes.append(f"events: {len(onset) - len(keep)} of {len(onset)} left out, onset n/a")
    if np.any(np.diff(onset[keep]) < 0):
        notes.append("events: put in order of onset")
        keep = keep[np.argsort(onset[keep], kind="stable")]
    if not np.all(np.isfinite(duration[keep])):
        notes.append(f"events: {np.sum(~np.isfinite(duration[keep]))} of {len(keep)} have no duration, stop is start")
    start = onset[keep] + shift_s
    columns = {
        name.replace("/", "_"): (_texts(texts) if name == "trial_type" else typed(texts))[keep]
        for name, texts in rows.items()
        if name not in ("onset", "duration")
    }
    stop = start + np.where(np.isfinite(duration[keep]), duration[keep], 0.0)
    return {"trials": Intervals(start_s=start, stop_s=stop, columns=columns, modality="trials", valid=valid)}


def _seconds(rows: dict[str, list[str]], name: str, where: str) -> np.ndarray:
    if name not in rows:
        raise MalformedFile(where, got=f"columns {', '.join(rows)}", expected=f"a column {name}")
    try:
        return np.array([np.nan if text in (MISSING, "") else float(text) for text in rows[name]], dtype=np.float64)
    except ValueError as error:
        raise MalformedFile(f"{name} of {where}", got=str(error), expected="seconds or n/a") from error


def _texts(texts: list[str]) -> np.ndarray:
    """Names stay names, even where they look like numbers."""
    return np.array(["" if text == MISSING else text for text in texts], dtype=str)


def _same_space(run: Run, name: str) -> Run:
    """The run less the files about positions in another space than a table's."""
    space = _entities(name).get("space")
    return replace(run, files=tuple(n for n in run.files if _entities(n).get("space") in (None, space)))


def _entities(name: str) -> dict[str, str]:
    return entities(split(PurePosixPath(name).name)[0])


def positions(run: Run, suffix: str, ids: tuple[str, ...], unit_key: str, notes: list[str]) -> np.ndarray | None:
    """Where channels or optodes are.

    Args:
        run: the run.
        suffix: of the table: ``electrodes`` or ``optodes``.
        ids: (C,) names to look up.
        unit_key: field of coordsystem.json that holds the unit, such as ``EEGCoordinateUnits``.
        notes: takes a sentence where positions cannot be given in micrometres.

    Returns:
        (C, 3) um, NaN for those without a position; None where the run has no usable table.

    Raises:
        MalformedFile: the table lacks a column.
    """
    rows = table(run, suffix)
    if rows is None:
        return None
    where = run.beside(suffix, ".tsv")[-1]
    about = metadata(_same_space(run, where), "coordsystem")
    unit = str(about.get(unit_key, MISSING))
    if unit not in IN_UM:
        notes.append(f"{suffix}: positions left out, {unit_key} is {unit}")
        return None
    if "name" not in rows:
        raise MalformedFile(where, got=f"columns {', '.join(rows)}", expected="a column name")
    xyz = np.stack([_seconds(rows, axis, where) for axis in ("x", "y", "z")], axis=1) * IN_UM[unit]
    at = {name: i for i, name in enumerate(rows["name"])}
    found = np.array([xyz[at[name]] if name in at else [np.nan] * 3 for name in ids], dtype=np.float64).reshape(-1, 3)
    lacking = int(np.sum(~np.isfinite(found).all(axis=1)))
    if lacking:
        notes.append(f"{suffix}: {lacking} of {len(ids)} have no position")
    system = about.get(f"{unit_key.removesuffix('Units')}SystemDescription")
    if system:
        notes.append(f"{suffix}: {' '.join(str(system).split())[:240]}")
    return found
