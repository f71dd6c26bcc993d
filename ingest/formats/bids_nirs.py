"""fNIRS of a BIDS run: a SNIRF file, read with h5py."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import rates, spans
from neurofmx.ingest.formats.bids_files import Run, events, metadata, number, positions, table
from neurofmx.types import Channels, Intervals, Samples, Stream

_JITTER = 1e-3  # share of a step by which time stamps of one rate may differ
_SAME_MOMENT_S = 0.01
_LARGEST_V = 1e3


def streams(run: Run, notes: list[str]) -> dict[str, Stream]:
    """The intensities of all source-detector pairs and wavelengths, and the events, on the file's own clock.

    Args:
        run: the run.
        notes: takes one sentence for each thing that was decided.

    Raises:
        MalformedFile: no SNIRF file, or one whose parts contradict each other.
    """
    import h5py

    try:
        with h5py.File(run.path, "r") as file:
            nirs: list[Any] = [file[name] for name in list(file) if name.startswith("nirs")]
            blocks: list[Any] = [nirs[0][name] for name in nirs[0] if name.startswith("data")] if nirs else []
            if len(nirs) != 1 or len(blocks) != 1:
                raise MalformedFile(
                    run.primary, got=f"{len(nirs)} nirs groups, {len(blocks)} data blocks", expected="one of each"
                )
            values, times = np.asarray(blocks[0]["dataTimeSeries"]), np.asarray(blocks[0]["time"], np.float64)
            pairs, unit = _pairs(nirs[0], blocks[0])
            stims = _stims(nirs[0])
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise MalformedFile(run.primary, got=f"{type(error).__name__}: {error}", expected="a SNIRF file") from error
    if values.ndim != 2 or values.shape[1] != len(pairs):
        raise MalformedFile(run.primary, got=f"values {values.shape}", expected=f"(time, {len(pairs)})")
    signal = _samples(run, values, times, pairs, unit, notes)
    span = np.array([[signal.valid[0, 0], signal.valid[-1, 1]]]) if len(signal.valid) else np.empty((0, 2))
    return {"fnirs": signal, **_trials(run, span, float(times[0]) if len(times) else 0.0, stims, notes)}


def _samples(
    run: Run, values: np.ndarray, times: np.ndarray, pairs: list[tuple[str, str, str]], unit: str, notes: list[str]
) -> Samples:
    if len(times) == 2 and len(values) > 2:  # the short form: start and step
        times = times[0] + times[1] * np.arange(len(values))
    if len(times) != len(values):
        raise MalformedFile(run.primary, got=f"{len(times)} time stamps", expected=f"{len(values)}, one a sample")
    ids = tuple(f"{source}_{detector} {wavelength}" for source, detector, wavelength in pairs)
    if len(set(ids)) < len(ids):
        raise MalformedFile(run.primary, got="a pair and wavelength twice", expected="each once")
    common: dict[str, Any] = {
        "values": values,
        "unit": _checked_unit(run, ids, values, unit, notes),
        "channels": Channels(ids=ids, positions_um=_midpoints(run, pairs, notes)),
        "modality": "fnirs",
    }
    steps = np.diff(times)
    known = spans.finite_rows(values)
    if steps.size and np.ptp(steps) < _JITTER * np.median(steps):
        rate, t0 = (len(times) - 1) / float(times[-1] - times[0]), float(times[0])
        said = number(metadata(run, "nirs"), "SamplingFrequency", f"the sidecar of {run.primary}")
        if said and rates.differ(said, rate):
            notes.append(rates.Disagreement(said, rate, "the file's time stamps", "the file's are kept").note())
        valid = spans.whole(len(times), rate, t0) if known.all() else spans.stamped(times, known)
        return Samples(**common, rate_hz=rate, t0_s=t0, valid=valid)
    return Samples(**common, times_s=times, valid=spans.stamped(times, known))


def _pairs(nirs: Any, block: Any) -> tuple[list[tuple[str, str, str]], str]:
    """(source, detector, wavelength) of each column, and the unit where the file states one."""
    probe = nirs["probe"]
    wavelengths = np.asarray(probe["wavelengths"], np.float64)
    names = {
        kind: [_text(v) for v in probe[f"{kind}Labels"][()]] if f"{kind}Labels" in probe else []
        for kind in ("source", "detector")
    }
    lists = sorted((n for n in block if n.startswith("measurementList")), key=lambda n: int(n[15:] or 0))
    pairs, units = [], set()
    for name in lists:
        row = block[name]
        source, detector, wave = (int(row[f"{k}Index"][()]) - 1 for k in ("source", "detector", "wavelength"))
        if "dataUnit" in row:
            units.add(_text(row["dataUnit"][()]))
        pairs.append((
            names["source"][source] if names["source"] else f"S{source + 1}",
            names["detector"][detector] if names["detector"] else f"D{detector + 1}",
            f"{wavelengths[wave]:g}",
        ))  # fmt: skip
    return pairs, units.pop() if len(units) == 1 else ""


def _stims(nirs: Any) -> dict[str, np.ndarray]:
    """Condition -> (N, 3) onset, duration, value, on the file's clock."""
    found = {}
    for name in nirs:
        if name.startswith("stim") and "data" in nirs[name]:
            found[_text(nirs[name]["name"][()])] = np.asarray(nirs[name]["data"], np.float64).reshape(-1, 3)
    return found


def _checked_unit(run: Run, ids: tuple[str, ...], values: np.ndarray, unit: str, notes: list[str]) -> str:
    """The file's unit, else that of channels.tsv, unless no instrument could give such numbers."""
    rows = table(run, "channels") or {}
    if rows.get("name") and set(rows["name"]) != set(ids):
        notes.append("channels.tsv names other channels than the file: the file's are kept")
    said = unit or (rows.get("units") or [""])[0]
    largest = float(np.nanmax(np.abs(values))) if values.size else 0.0
    if said == "V" and largest > _LARGEST_V:
        notes.append(f"unit V stated, but values reach {largest:.3g}: taken as arbitrary units of intensity")
        return "a.u."
    return said or "a.u."


def _midpoints(run: Run, pairs: list[tuple[str, str, str]], notes: list[str]) -> np.ndarray | None:
    """(C, 3) um halfway between source and detector, where the optodes' positions are known."""
    optodes = tuple(sorted({name for pair in pairs for name in pair[:2]}))
    where = positions(run, "optodes", optodes, "NIRSCoordinateUnits", notes)
    if where is None:
        return None
    at = dict(zip(optodes, where))
    return np.array([(at[source] + at[detector]) / 2 for source, detector, _ in pairs])


def _trials(
    run: Run, span: np.ndarray, t0: float, stims: dict[str, np.ndarray], notes: list[str]
) -> dict[str, Intervals]:
    """events.tsv before the file's own marks; the marks tell which clock events.tsv counts on."""
    names = [name for name, rows in stims.items() for _ in rows]
    marks = np.concatenate([np.empty((0, 3)), *stims.values()])
    order = np.argsort(marks[:, 0], kind="stable")
    if table(run, "events") is not None:
        found = events(run, span, notes)
        start = found["trials"].start_s
        same_clock = len(start) == len(marks) and np.allclose(start, marks[order, 0], rtol=0, atol=_SAME_MOMENT_S)
        if t0 and not same_clock:  # the standard counts from the first sample
            return events(run, span, [], shift_s=t0)
        return found
    if not len(marks):
        return {}
    notes.append("no events.tsv: the marks of the SNIRF file taken")
    columns = {"trial_type": np.array(names, dtype=str)[order], "value": marks[order, 2]}
    start = marks[order, 0]
    return {
        "trials": Intervals(
            start_s=start, stop_s=start + marks[order, 1], columns=columns, modality="trials", valid=span
        )
    }


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
