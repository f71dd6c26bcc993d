"""HDF5 files of torch_brain (temporaldata): spikes, series and intervals of one session.

Layout as `exports.torch_brain` says. A file that was exported here comes back as it was; in any other the names of
groups and arrays say what a stream is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurofmx.clock import ClockMap
from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import spans
from neurofmx.ingest.formats.assemble import assemble
from neurofmx.ingest.sessions import Session
from neurofmx.types import Channels, Events, Intervals, RawFile, Recording, Samples, Stream, Subject, sanitise

ABOUT = "neurofmx"
# last word of a name -> modality
_WORDS = {
    "pos": "position", "position": "position", "vel": "velocity", "velocity": "velocity", "acc": "acceleration",
    "acceleration": "acceleration", "eeg": "eeg", "seeg": "ecog", "ieeg": "ecog", "ecog": "ecog", "lfp": "lfp",
    "emg": "emg", "calcium": "calcium", "df_over_f": "calcium", "pupil": "pupil", "gaze": "gaze", "running": "running",
}  # fmt: skip
_SIDE = {"timestamps", "timestamp_indices_1s", "unit_index", "domain"}
_NO_STREAMS = {"splits", "domain", "brainset", "subject", "session", "device"}


def is_torch_brain(path: Path) -> bool:
    """Whether a file is HDF5 whose root is a ``Data`` object."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("object") == "Data"
    except OSError:
        return False


def read(root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Reads one file: times, samples and codes are kept as they are.

    Args:
        root: folder in which the file has its own relative name.
        session: what the archive says of it.
        files: the file.

    Raises:
        MalformedFile: the file is no HDF5 file of torch_brain, or its groups contradict themselves.
    """
    import h5py

    notes: list[str] = []
    try:
        with h5py.File(root / files[0].path, "r") as file:
            if file.attrs.get("object") != "Data":
                raise MalformedFile(
                    f"{files[0].path}", got=f"object {file.attrs.get('object')!r}", expected="'Data' at its root",
                    fix="Give a file that torch_brain or temporaldata saved.",
                )  # fmt: skip
            own = json.loads(file.attrs.get(ABOUT, "{}"))
            streams: dict[str, Stream] = {}
            for name, stream in _walk(file, "", notes):
                streams[name if name not in streams else f"{name}_{len(streams)}"] = stream
            subject, label = _who(file, own), own.get("session", "") or _text(file, "session", "id")
            notes[:0] = _said(file, own)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise MalformedFile(
            f"{files[0].path}", got=f"{type(error).__name__}: {error}", expected="a file that torch_brain saved",
            fix="Fetch it again, or ask its authors.",
        ) from error  # fmt: skip
    whole = {name: own[name] for name in ("task", "session", "clock_error_s") if own}
    if own:
        whole["domain_s"] = tuple(own["domain_s"])
        whole["clocks"] = {name: ClockMap.from_plain(clock) for name, clock in own["clocks"].items()}
    return replace(assemble(session, files, streams, subject=subject, label=label, notes=notes), **whole)


def _who(file: Any, own: dict[str, Any]) -> Subject | None:
    if own:
        return Subject(**own["subject"])
    name = _text(file, "subject", "id")
    if not name:
        return None
    age = file["subject"].attrs.get("age")
    return Subject(
        id=name,
        species=_text(file, "subject", "species"),
        sex=_text(file, "subject", "sex"),
        age="" if age is None or not np.isfinite(float(age)) else f"P{float(age):g}D",
    )


def _text(file: Any, group: str, key: str) -> str:
    value = file[group].attrs.get(key, "") if group in file else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _said(file: Any, own: dict[str, Any]) -> list[str]:
    if own:
        rid, licence = own["id"], own["licence"]
        return [
            f"exported from {rid['archive']}:{rid['dataset']}@{rid['version']}/{rid['name']}, licence "
            f"{licence['spdx'] or 'none'}, {own['citation'] or 'no citation'}",
            *own["notes"],
            *(f"{name}: left out of the file: {why}" for name, why in own["left_out"].items()),
        ]
    words = [f"{key} {_text(file, 'brainset', key)}" for key in ("id", "origin_version", "source", "description")]
    said = [f"the file says: {', '.join(words)[:480]}"] if "brainset" in file else []
    start = float(file.attrs.get("absolute_start", 0.0))
    return said + ([f"the file begins {start:g} s into its session; times are the file's own"] if start else [])


def _walk(group: Any, prefix: str, notes: list[str]) -> Iterator[tuple[str, Stream]]:
    tables = {name for name in group if name in ("units", "channels") or name.endswith(("_channels", "_outside"))}
    for name in sorted(set(group) - _NO_STREAMS - tables):
        item, full = group[name], f"{prefix}{name}"
        kind = item.attrs.get("object", "")
        if ABOUT in item.attrs:
            about = json.loads(item.attrs[ABOUT])
            yield about["stream"], _own(group, item, about)
        elif kind == "Data":
            yield from _walk(item, f"{full}_", notes)
        elif kind == "Interval":
            yield full, _interval(item, full, notes)
        elif kind == "IrregularTimeSeries" and "unit_index" in item:
            yield full, _events(group, item, full, notes)
        elif kind in ("IrregularTimeSeries", "RegularTimeSeries"):
            yield from _series(item, full, notes)
        else:
            notes.append(f"{full}: {kind or 'an array'} left out")


# what was exported here


def _own(group: Any, item: Any, about: dict[str, Any]) -> Stream:
    valid, modality = np.asarray(about["valid"], np.float64).reshape(-1, 2), about["modality"]
    if about["kind"] == "Intervals":
        columns = {c["name"]: _words(item[key][:], c.get("text")) for key, c in about["columns"].items()}
        return Intervals(
            start_s=item["start"][:], stop_s=item["end"][:], columns=columns, modality=modality, valid=valid
        )
    table = group[about["channels"]]
    positions = np.stack([table[f"{a}_um"][:] for a in "xyz"], axis=1) if "x_um" in table else None
    channels = Channels(ids=tuple(about["ids"]), regions=tuple(about["regions"]), positions_um=positions)
    if about["kind"] == "Events":
        codes = item["unit_index"][:].astype(np.int32)
        return Events(times_s=item["timestamps"][:], codes=codes, channels=channels, modality=modality, valid=valid)
    samples = _samples(item, "values", channels, modality, about["unit"], valid)
    if samples.rate_hz is None:
        return samples
    parts = [samples.values]
    if about["outside"]:
        parts = [group[about["outside"]]["before"][:], samples.values, group[about["outside"]]["after"][:]]
    return replace(samples, t0_s=about["t0_s"], values=np.concatenate(parts))


def _words(values: np.ndarray, text: list[str] | None = None) -> np.ndarray:
    if text is not None:
        return np.array(text, dtype=str)
    if values.dtype.kind not in "SO":
        return values
    return np.array([v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values], dtype=str)


def _samples(
    item: Any, key: str, channels: Channels, modality: str, unit: str, valid: np.ndarray | None = None
) -> Samples:
    values = item[key][:]
    if item.attrs["object"] == "IrregularTimeSeries":
        times, rate, t0 = item["timestamps"][:], None, 0.0
        valid = _domain(item) if valid is None else valid
    else:
        times, rate, t0 = None, float(item.attrs["sampling_rate"]), float(item["domain"]["start"][0])
        # one interval: older files end theirs at the last sample, not one step after it
        whole = spans.whole(len(values), rate, t0) if len(item["domain"]["start"]) == 1 else _domain(item)
        valid = whole if valid is None else valid
    return Samples(
        values=values, unit=unit, channels=channels, modality=modality, valid=valid, rate_hz=rate, t0_s=t0,
        times_s=times,
    )  # fmt: skip


def _domain(item: Any) -> np.ndarray:
    return spans.merged(np.stack([item["domain"]["start"][:], item["domain"]["end"][:]], axis=1))


# what others saved


def _events(group: Any, item: Any, name: str, notes: list[str]) -> Events:
    codes = item["unit_index"][:].astype(np.int32)
    least = int(codes.max(initial=-1)) + 1
    table = group.get("units")
    ids = _words(table["id"][:]).tolist() if table is not None and "id" in table else []
    if len(ids) < least or len(set(ids)) < len(ids):
        notes.append(f"{name}: units have no table of distinct names, called by their number")
        table, ids = None, [str(i) for i in range(max(least, len(ids)))]
    area = next((c for c in ("brain_region", "area_name", "region") if table is not None and c in table), None)
    regions = _words(table[area][:]).tolist() if table is not None and area else [""] * len(ids)
    notes += [f"{name}.{key}: left out" for key in sorted(set(item) - _SIDE)]
    return Events(
        times_s=item["timestamps"][:],
        codes=codes,
        channels=Channels(ids=tuple(map(str, ids)), regions=tuple(map(str, regions))),
        modality="spikes" if name.split("_")[-1] == "spikes" else sanitise(name).lower(),
        valid=_domain(item),
    )


def _series(item: Any, name: str, notes: list[str]) -> Iterator[tuple[str, Samples]]:
    keys = [key for key in sorted(set(item) - _SIDE) if item[key].dtype.kind in "iufb"]
    notes += [f"{name}.{key}: left out, no numbers" for key in sorted(set(item) - _SIDE - set(keys))]
    for key in keys:
        shape = item[key].shape
        width = shape[1] if len(shape) > 1 else 1
        full = name if len(keys) == 1 else f"{name}_{key}"
        modality = _WORDS.get(key.lower()) or _WORDS.get(name.split("_")[-1].lower()) or sanitise(full).lower()
        ids = tuple("xyz"[:width]) if modality == "position" and 1 < width <= 3 else tuple(map(str, range(width)))
        yield full, _samples(item, key, Channels(ids=ids), modality, "a.u.")


def _interval(item: Any, name: str, notes: list[str]) -> Intervals:
    columns: dict[str, np.ndarray] = {}
    for key in sorted(set(item) - {"start", "end"}):
        values = _words(item[key][:]) if item[key].ndim == 1 else item[key][:]
        if values.ndim == 1 and values.dtype.kind in "biufU":
            columns[key] = values
        elif values.ndim == 2 and values.dtype.kind in "biuf":
            columns |= {f"{key}_{i}": values[:, i] for i in range(values.shape[1])}
        else:
            notes.append(f"{name}.{key}: left out, neither one number nor text a row")
    start, stop = item["start"][:].astype(np.float64), item["end"][:].astype(np.float64)
    span = np.array([[start.min(), stop.max()]]) if len(start) else np.empty((0, 2))
    return Intervals(
        start_s=start, stop_s=stop, columns=columns, modality="trials" if "trials" in name else "epochs", valid=span
    )
