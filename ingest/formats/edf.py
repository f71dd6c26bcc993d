"""EDF, EDF+ and BDF files: signals at their own rates, annotations, and the gaps between records.

The samples are taken from the bytes: MNE brings all signals to one rate, joins the pieces of a discontinuous file and
takes any dimension that it does not know for volts. It is what the tests compare with, and knows the electrodes.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import biosignals
from neurofmx.ingest.formats.assemble import assemble
from neurofmx.ingest.formats.edf_header import Header, Signal, read_header
from neurofmx.ingest.formats.rows import Rows
from neurofmx.ingest.sessions import Session
from neurofmx.scaled import Scaled
from neurofmx.types import Channels, Intervals, RawFile, Recording, Samples, Stream, Subject

# one time-stamped list of annotations: onset, maybe a duration, texts (EDF+ 2.2.2)
_TAL = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?\x14((?:[^\x00]*?\x14)?)\x00")


def read(root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Reads one EDF, EDF+ or BDF file; time 0 is the start that its header states.

    Args:
        root: folder in which the files have their own relative names.
        session: what the archive says of them.
        files: the EDF first. A ``.event`` file beside it says again what its annotations say, and is not read.

    Raises:
        MalformedFile: a header that is none, a size that it does not imply, line ends changed by a transfer in text
            mode, or annotations that are no text.
    """
    name = files[0].path
    path = root / name
    header = read_header(path, name)
    notes = [f"the file says: {header.kind}", *header.notes]
    records = records_of(path, header)
    onsets, marks = _annotations(header, records, name)
    valid = _valid(header, onsets, name, notes)
    streams = _signals(header, records, onsets, valid, notes)
    if marks:
        streams["trials"] = Intervals(
            start_s=np.array([start for start, _, _ in marks]),
            stop_s=np.array([start + lasts for start, lasts, _ in marks]),
            columns={"label": np.array([text for _, _, text in marks])},
            modality="trials",
            valid=valid,
        )
    who = Subject(id=Path(name).stem, sex=header.sex)
    return assemble(session, files, streams, subject=who, notes=notes)


def _valid(header: Header, onsets: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
    """(K, 2) seconds of the records, those that follow one another joined.

    Raises:
        MalformedFile: a record begins inside the one before it.
    """
    if not header.record_s:  # annotations alone
        return np.array([[onsets.min(), onsets.max()]])
    fastest = max((s.samples for s in header.signals if not s.is_annotations), default=1)
    late = np.diff(onsets) - header.record_s
    apart = np.flatnonzero(np.abs(late) > 0.5 * header.record_s / max(fastest, 1))
    if np.any(late[apart] < 0):
        at = int(apart[np.argmax(late[apart] < 0)]) + 1
        raise MalformedFile(
            f"record {at} of {name}", got=f"a start at {onsets[at]:g} s, inside the record before it",
            expected=f"{header.record_s:g} s or more between records",
        )  # fmt: skip
    if len(apart):
        notes.append(f"{len(apart)} gaps between records, {late[apart].sum():g} s in all: stated, not filled")
        if not header.kind.endswith("D"):
            notes.append(f"{header.kind} means that there are none: the records' own onsets were taken")
    first, last = np.append(0, apart + 1), np.append(apart, header.records - 1)
    return np.stack([onsets[first], onsets[last] + header.record_s], axis=1)


def _signals(
    header: Header, records: np.ndarray, onsets: np.ndarray, valid: np.ndarray, notes: list[str]
) -> dict[str, Stream]:
    """Signals of one kind, rate and unit side by side in one stream."""
    groups: dict[tuple[str, float, str], list[tuple[Signal, float]]] = {}
    for signal in header.signals:
        if signal.is_annotations:
            continue
        if not signal.samples or not np.isfinite(signal.gain):
            notes.append(f"{signal.label}: left out, no samples or no physical range")
            continue
        kind = biosignals.kind_of(signal.label)
        factor, unit = biosignals.scaled(kind, signal.unit)
        groups.setdefault((kind, signal.samples / header.record_s, unit), []).append((signal, factor))
    found: dict[str, Stream] = {}
    gaps = len(valid) > 1
    for name, ((kind, rate, unit), members) in zip(biosignals.stream_names(list(groups)), groups.items()):
        per_record = members[0][0].samples
        values = Scaled(
            digital(records, [signal for signal, _ in members], header.width),
            np.array([signal.gain * factor for signal, factor in members]),
            np.array([signal.base * factor for signal, factor in members]),
        )
        labels = [signal.label for signal, _ in members]
        ids, positions = biosignals.scalp(labels) if kind == "eeg" else (biosignals.unique(labels), None)
        times = (onsets[:, None] + np.arange(per_record) / rate).ravel() if gaps else None
        found[name] = Samples(
            values=values,
            unit=unit,
            channels=Channels(ids=ids, positions_um=positions),
            modality=kind,
            valid=valid,
            rate_hz=None if gaps else rate,
            t0_s=0.0 if gaps else float(onsets[0]),
            times_s=times,
        )
        notes += _said(name, members, positions is not None, unit)
    return found


def _said(name: str, members: list[tuple[Signal, float]], placed: bool, unit: str) -> list[str]:
    said = []
    filters = {signal.prefilter for signal, _ in members if signal.prefilter}
    if filters:
        said.append(f"{name}: the prefilter field says {'; '.join(sorted(filters))[:240]}")
    if placed:
        said.append(f"{name}: positions of MNE's 10-05 template head, not measured on this head")
    if unit == "a.u.":
        said.append(f"{name}: the file states no unit")
    if name.startswith(biosignals.UNKNOWN):
        said.append(f"{name}: labels that tell no kind of signal: {', '.join(s.label for s, _ in members)[:240]}")
    return said


def records_of(path: Path, header: Header) -> np.ndarray:
    """(records, bytes) of a file, mapped."""
    return np.memmap(path, np.uint8, "r", header.start, (header.records, header.record_bytes))


def digital(records: np.ndarray, signals: list[Signal], width: int) -> Rows:
    """The integers of signals of one rate, taken out of the records as they are asked for.

    Args:
        records: (records, bytes) of the file.
        signals: all with as many samples in a record.
        width: bytes of a sample.

    Returns:
        (records x samples, signals) int16 or int32.
    """
    per_record = signals[0].samples

    def read(lo: int, hi: int) -> np.ndarray:
        first = lo // per_record
        block = records[first : -(-hi // per_record)]
        out = np.empty((len(block), per_record, len(signals)), np.int16 if width == 2 else np.int32)
        for column, signal in enumerate(signals):
            raw = np.ascontiguousarray(block[:, signal.offset : signal.offset + width * per_record])
            out[:, :, column] = _integers(raw, width)
        skip = lo - first * per_record
        return out.reshape(-1, len(signals))[skip : skip + hi - lo]

    return Rows((len(records) * per_record, len(signals)), np.dtype(np.int16 if width == 2 else np.int32), read)


def _integers(raw: np.ndarray, width: int) -> np.ndarray:
    """(records, samples) integers: two or three bytes each, least significant first, signed."""
    if width == 2:
        return raw.view("<i2")
    wide = np.zeros((raw.size // 3, 4), np.uint8)
    wide[:, 1:] = raw.reshape(-1, 3)
    return (wide.view("<i4") >> 8).reshape(len(raw), raw.shape[1] // 3)  # the shift brings the sign down


def _annotations(header: Header, records: np.ndarray, name: str) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """(records,) onset of each record in seconds, and the annotations in order: onset, duration, text."""
    onsets = np.arange(header.records) * header.record_s
    marks: list[tuple[float, float, str]] = []
    holders = [signal for signal in header.signals if signal.is_annotations]
    for place, signal in enumerate(holders):
        span = records[:, signal.offset : signal.offset + header.width * signal.samples]
        for number, row in enumerate(span):
            text = row.tobytes()
            lists = list(_TAL.finditer(text))
            left = _TAL.sub(b"", text).strip(b"\0")
            if left or (place == 0 and not lists):
                raise MalformedFile(
                    f"annotations of {name}", got=f"{(left or text)[:24]!r} in record {number}",
                    expected="time-stamped lists of EDF+, the record's own first", fix="Fetch it again.",
                )  # fmt: skip
            if place == 0:
                onsets[number] = float(lists[0][1])
            for one in lists:
                texts = (t.decode("utf-8", "replace").strip() for t in one[3].split(b"\x14"))
                marks += [(float(one[1]), float(one[2] or 0.0), t) for t in texts if t]
    return onsets, sorted(marks, key=lambda mark: mark[0])
