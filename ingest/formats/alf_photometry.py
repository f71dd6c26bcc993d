"""Fibre photometry of an IBL session: the calcium signal, and its isosbestic control as a stream of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import spans
from neurofmx.ingest.formats.alf_files import Attribute, Objects, load
from neurofmx.types import Channels, Samples, Stream, sanitise

_RAW = "raw_photometry.pqt"  # the older layout: one table a fibre, in a folder of its name
_ABOUT_ROWS = ("times", "valid", "wavelength", "name", "color", "state", "include", "led_state")
_ISOSBESTIC_NM = (400.0, 430.0)
_CALCIUM_NM = (440.0, 500.0)
CONTROL = "photometry_isosbestic"


def regions(root: Path, found: Objects) -> dict[str, str]:
    """Fibre -> brain region, where the session says it."""
    for (_, name), own in sorted(found.items()):
        if name == "photometryROI" and "locations" in own:
            frame = load(root, own["locations"])
            if "brain_region" in frame.columns:
                return {str(fibre): str(region) for fibre, region in zip(frame.index, frame["brain_region"])}
    return {}


def files(paths: Iterable[str], found: Objects) -> set[str]:
    """The files that are read here."""
    named = {
        a.path for (_, name), own in found.items() if name in ("photometry", "photometryROI") for a in own.values()
    }
    return named | {path for path in paths if PurePosixPath(path).name == _RAW}


def streams(
    root: Path, paths: Iterable[str], found: Objects, where: dict[str, str], notes: list[str]
) -> dict[str, Stream]:
    """The light of all fibres, one stream for each colour of excitation.

    The control also carries movement and blood, and behaviour decodes from it: it has a modality of its own so that
    nothing takes it for a neural signal.

    Args:
        root: folder of the files.
        paths: names of the session's files.
        found: its ALF objects.
        where: fibre -> brain region.
        notes: takes one sentence for each thing that was decided.

    Raises:
        MalformedFile: a table lacks a column, or its fibres.
    """
    signals = [own["signal"] for (_, name), own in sorted(found.items()) if name == "photometry" and "signal" in own]
    out: dict[str, Stream] = {}
    for signal in signals:
        for name, stream in _interleaved(root, signal, where, notes).items():
            out[name if name not in out else f"{name}_{sanitise(signal.collection)}"] = stream
    raw = sorted(path for path in paths if PurePosixPath(path).name == _RAW)
    for path in raw:
        fibre = PurePosixPath(path).parent.name
        for name, stream in _per_fibre(root, path, fibre, where, notes).items():
            out[name if len(raw) == 1 and name not in out else f"{name}_{sanitise(fibre)}"] = stream
    if out and not any(name.startswith(CONTROL) for name in out):
        notes.append("photometry: no isosbestic control")
    return out


def _interleaved(root: Path, signal: Attribute, where: dict[str, str], notes: list[str]) -> dict[str, Stream]:
    """One table of all fibres, colours on alternate rows."""
    frame = load(root, signal)
    if not {"times", "wavelength"} <= set(frame.columns):
        raise MalformedFile(
            signal.path, got=f"columns {', '.join(map(str, frame.columns))}", expected="times and wavelength"
        )
    fibres = [str(c) for c in frame.columns if c not in _ABOUT_ROWS and frame[c].dtype.kind == "f"]
    if not fibres:
        raise MalformedFile(signal.path, got="no column of a fibre", expected="at least one")
    at, nm = frame["times"].to_numpy(np.float64), frame["wavelength"].to_numpy(np.float64)
    valid = frame["valid"].to_numpy(bool) if "valid" in frame.columns else np.ones(len(frame), bool)
    names = frame["name"].astype(str).to_numpy() if "name" in frame.columns else np.full(len(frame), "")
    dark = ~np.isfinite(nm)
    if dark.any():
        notes.append(f"photometry: {int(dark.sum())} of {len(frame)} rows without a wavelength left out")
    if not valid[~dark].all():
        notes.append(
            f"photometry: {int(np.sum(~valid[~dark]))} of {int(np.sum(~dark))} rows are not valid by the table: kept, "
            "outside valid time"
        )
    out: dict[str, Stream] = {}
    for wavelength in np.unique(nm[~dark])[::-1]:
        rows = nm == wavelength
        name = _stream_name(float(wavelength), str(names[rows][0]))
        values = frame.loc[rows, fibres].to_numpy(np.float64)
        name = name if name not in out else f"{name}_{wavelength:g}nm"
        out[name] = _samples(values, at[rows], valid[rows], fibres, where, name)
        notes.append(f"{name}: {wavelength:g} nm {names[rows][0]}, {int(rows.sum())} rows")
    return out


def _stream_name(wavelength: float, name: str) -> str:
    if "isosbestic" in name.lower() or (not name and _ISOSBESTIC_NM[0] <= wavelength <= _ISOSBESTIC_NM[1]):
        return CONTROL
    if "gcamp" in name.lower() or _CALCIUM_NM[0] <= wavelength <= _CALCIUM_NM[1]:
        return "photometry"
    return f"photometry_{sanitise(name or f'{wavelength:g}nm')}"


def _per_fibre(root: Path, path: str, fibre: str, where: dict[str, str], notes: list[str]) -> dict[str, Stream]:
    own = Attribute(path=path, collection="", object="", name="", timescale="", extension="pqt", revision="")
    frame: Any = load(root, own)
    if not {"times", "raw_calcium"} <= set(frame.columns):
        raise MalformedFile(path, got=f"columns {', '.join(map(str, frame.columns))}", expected="times and raw_calcium")
    notes.append(f"photometry: older layout, fibre {fibre}; no column says which rows are valid, all taken")
    at = frame["times"].to_numpy(np.float64)
    everything = np.ones(len(at), bool)
    out: dict[str, Stream] = {}
    for name, column in (("photometry", "raw_calcium"), (CONTROL, "raw_isosbestic")):
        if column in frame.columns:
            values = frame[column].to_numpy(np.float64)[:, None]
            out[name] = _samples(values, at, everything, [fibre], where, name)
    return out


def _samples(
    values: np.ndarray, at: np.ndarray, valid: np.ndarray, fibres: list[str], where: dict[str, str], modality: str
) -> Samples:
    known = valid & np.isfinite(values).any(axis=1)
    return Samples(
        values=values,
        unit="a.u.",
        channels=Channels(ids=tuple(fibres), regions=tuple(where.get(fibre, "") for fibre in fibres)),
        modality=modality,
        valid=spans.stamped(at, known),
        times_s=at,
    )
