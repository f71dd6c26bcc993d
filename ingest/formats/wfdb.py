"""WFDB records (PhysioNet), with the wfdb package: signals at their own rates and the annotations beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import biosignals, spans
from neurofmx.ingest.formats.assemble import assemble
from neurofmx.ingest.sessions import Session
from neurofmx.scaled import Scaled
from neurofmx.types import Channels, Events, Intervals, RawFile, Recording, Samples, Stream

FLAT_S = 2.0  # a signal that keeps one value for so long is disconnected: the noise of a converter alone moves it
_REFERENCE = "atr"  # the annotator whose beats people have checked
_RHYTHM = "+"  # the symbol of a rhythm change, which its note names


@dataclass(frozen=True)
class _Piece:
    """The samples of one signal in one segment.

    Args:
        start: sample of the record at which it begins.
        digital: (n,) integers as the file has them.
        physical: (n,) float64 in the header's unit, NaN where the file's code says that it is unknown.
        gain: digital steps a unit.
        baseline: digital value of 0 units.
    """

    start: int
    digital: np.ndarray
    physical: np.ndarray
    gain: float
    baseline: float


@dataclass(frozen=True)
class _Wave:
    """One signal: unit of the header, samples a frame, samples in all, and its pieces in order."""

    unit: str
    per_frame: int
    n: int
    pieces: list[_Piece]

    def values(self) -> np.ndarray:
        """(n,) float64 in the header's unit, NaN where no segment has them."""
        out = np.full(self.n, np.nan)
        for piece in self.pieces:
            out[piece.start : piece.start + len(piece.physical)] = piece.physical
        return out

    def is_exact(self) -> bool:
        """Whether one gain and one baseline tell every sample, and none is unknown."""
        laws = {(piece.gain, piece.baseline) for piece in self.pieces}
        whole = sum(len(piece.digital) for piece in self.pieces) == self.n
        return whole and len(laws) == 1 and all(np.isfinite(piece.physical).all() for piece in self.pieces)


def read(root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Reads one record: of one segment or several, with or without a stated length.

    Args:
        root: folder in which the files have their own relative names.
        session: ``options["annotators"]`` lists suffixes of annotation files, of which those beside are read.
        files: the header first. Signals keep their rates and the units of the header, brain and muscle
            potentials in uV; invalid codes stay NaN, and with flat stretches are stated in ``valid``.

    Raises:
        MalformedFile: a header, signal or annotation file that is not what it should be, or a signal file that
            is shorter than its header says.
    """
    import wfdb

    name = files[0].path
    record = root / name.removesuffix(".hea")
    beside = {file.path for file in files}
    annotators = [
        one for one in session.options.get("annotators", ()) if f"{name.removesuffix('.hea')}.{one}" in beside
    ]
    try:
        # skewed signals are shifted to where the header says that they belong; segments are joined here, since
        # the package trips over gaps between them
        signals: Any = wfdb.rdrecord(str(record), physical=False, smooth_frames=False, m2s=False)
        marks: dict[str, Any] = {one: wfdb.rdann(str(record), one) for one in annotators}
    except (ValueError, IndexError, TypeError, KeyError, OSError, AttributeError) as error:
        raise MalformedFile(
            name,
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            expected="a WFDB record whose files are whole",
            fix="Fetch it again, or ask its authors.",
        ) from error
    # comments often tell age, sex and drugs of a person
    said = sum(bool(line.strip()) for line in signals.comments or ())
    notes = [f"comments in the header, left where they are: {said}"] if said else []
    streams = _signals(signals, name, notes)
    for one, found in marks.items():
        rate = float(found.fs or signals.fs)
        last = float(np.max(found.sample)) / rate if len(found.sample) else 0.0
        # a record may have annotations alone
        streams |= _annotations(one, found, rate, signals.sig_len / signals.fs if signals.sig_len else last)
    return assemble(session, files, streams, notes=notes)


def _signals(record: Any, name: str, notes: list[str]) -> dict[str, Stream]:
    """Signals of one kind, rate and unit side by side in one stream."""
    groups: dict[tuple[str, float, str], list[tuple[str, float, _Wave]]] = {}
    for (label, _), wave in _joined(record, name, notes).items():
        kind = biosignals.kind_of(label)
        factor, unit = biosignals.scaled(kind, wave.unit)
        groups.setdefault((kind, float(record.fs) * wave.per_frame, unit), []).append((label, factor, wave))
    found: dict[str, Stream] = {}
    for stream, ((kind, rate, unit), members) in zip(biosignals.stream_names(list(groups)), groups.items()):
        labels = [label for label, _, _ in members]
        values = _values([(factor, wave) for _, factor, wave in members])
        physical = np.asarray(values)
        ids, positions = biosignals.scalp(labels) if kind == "eeg" else (biosignals.unique(labels), None)
        alive = np.isfinite(physical) & ~_flat(physical, round(FLAT_S * rate))
        known = np.any(alive, axis=1)
        whole = spans.whole(len(values), rate)
        found[stream] = Samples(
            values=values,
            unit=unit,
            channels=Channels(ids=ids, positions_um=positions),
            modality=kind,
            valid=whole if known.all() else spans.stamped(np.arange(len(values)) / rate, known),
            rate_hz=rate,
        )
        if kind == biosignals.UNKNOWN:
            notes.append(f"{stream}: labels that tell no kind of signal: {', '.join(labels)[:240]}")
        for channel, dead in zip(ids, (~alive).sum(axis=0)):
            if dead:
                notes.append(
                    f"{stream} {channel}: {dead} of {len(values)} samples unknown, or of one value for {FLAT_S:g} s"
                )
    return found


def _values(waves: list[tuple[float, _Wave]]) -> Scaled | np.ndarray:
    """(N, C) signals side by side: the integers of the file with their law, or float32 where some are unknown."""
    if not all(wave.is_exact() for _, wave in waves):
        return np.stack([wave.values() * factor for factor, wave in waves], axis=1).astype(np.float32)
    digital = np.stack([np.concatenate([piece.digital for piece in wave.pieces]) for _, wave in waves], axis=1)
    low, high = int(digital.min(initial=0)), int(digital.max(initial=0))
    narrow = next(t for t in (np.int16, np.int32, np.int64) if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    laws = [(factor / wave.pieces[0].gain, wave.pieces[0].baseline) for factor, wave in waves]
    scale = np.array([step for step, _ in laws])
    return Scaled(digital.astype(narrow), scale, np.array([-step * baseline for step, baseline in laws]))


def _joined(record: Any, name: str, notes: list[str]) -> dict[tuple[str, int], _Wave]:
    """The signals of all segments end to end, by label and its place among equal labels."""
    segments = getattr(record, "segments", None)
    found: dict[tuple[str, int], _Wave] = {}
    if segments is None:
        _place(found, record, 0, record.sig_len, record.sig_len, name, notes)
        return found
    start = 0
    for segment, length in zip(segments, record.seg_len):
        if segment is not None:
            _place(found, segment, start, int(length), record.sig_len, name, notes)
        start += int(length)
    gaps = sum(segment is None for segment in segments)
    notes.append(f"segments: {len(segments)}, of which gaps: {gaps}; stated, not filled")
    return found


def _place(
    found: dict[tuple[str, int], _Wave], segment: Any, start: int, length: int, total: int, name: str, notes: list[str]
) -> None:
    """Puts the signals of one segment where they belong; all counts are in frames."""
    seen: Counter[str] = Counter()
    known = segment.dac(expanded=True) if segment.e_d_signal else []
    for i, (digital, values) in enumerate(zip(segment.e_d_signal or (), known)):
        label, unit = segment.sig_name[i] or f"signal{i}", segment.units[i] or ""
        per_frame = int(segment.samps_per_frame[i])
        key = (label, seen[label])
        seen[label] += 1
        wave = found.setdefault(key, _Wave(unit, per_frame, total * per_frame, []))
        if (unit, per_frame, len(values)) != (wave.unit, wave.per_frame, length * per_frame):
            raise MalformedFile(
                f"{label} in {segment.record_name} of {name}",
                got=f"{len(values)} samples in {unit}, {per_frame} a frame",
                expected=f"{length * wave.per_frame} in {wave.unit}, {wave.per_frame} a frame",
            )
        law = float(segment.adc_gain[i]), float(segment.baseline[i])
        wave.pieces.append(_Piece(start * per_frame, digital, values, *law))
        if segment.skew and segment.skew[i]:
            notes.append(f"{label}: moved {segment.skew[i]} frames earlier, the header's skew; its end is unknown")


def _flat(values: np.ndarray, least: int) -> np.ndarray:
    """(N, C) bool, True in runs of at least ``least`` samples of one value."""
    flat = np.zeros(values.shape, bool)
    for channel in range(values.shape[1]):
        change = np.flatnonzero(np.diff(values[:, channel])) + 1  # NaN differs from all, itself included
        edges = np.concatenate([[0], change, [len(values)]])
        for k in np.flatnonzero(np.diff(edges) >= max(least, 2)):
            flat[edges[k] : edges[k + 1], channel] = True
    return flat


def _annotations(annotator: str, found: Any, rate_hz: float, length_s: float) -> dict[str, Stream]:
    """Events by symbol; and intervals of rhythm, where an annotator says how it changes."""
    suffix = "" if annotator == _REFERENCE else f"_{annotator}"
    times = np.asarray(found.sample, np.float64) / rate_hz
    order = np.argsort(times, kind="stable")
    symbols = np.asarray(found.symbol, dtype=str)
    kinds, codes = np.unique(symbols, return_inverse=True)
    valid = np.array([[0.0, length_s]])
    streams: dict[str, Stream] = {
        f"beats{suffix}": Events(
            times_s=times[order],
            codes=codes.astype(np.int32)[order],
            channels=Channels(ids=tuple(str(kind) for kind in kinds)),
            modality="beats",
            valid=valid,
        )
    }
    changes, labels = _rhythms(times, symbols, found.aux_note)
    if len(changes):
        streams[f"rhythm{suffix}"] = Intervals(
            start_s=changes,
            stop_s=np.append(changes[1:], max(length_s, changes[-1])),
            columns={"label": labels},
            modality="epochs",
            valid=valid,
        )
    return streams


def _rhythms(times_s: np.ndarray, symbols: np.ndarray, notes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Onset and name of each rhythm, such as ``N`` or ``AFIB``."""
    labels = np.array([str(note).strip("\0 ").removeprefix("(") for note in notes], dtype=str)
    named = (symbols == _RHYTHM) & (labels != "")
    order = np.argsort(times_s[named], kind="stable")
    return times_s[named][order], labels[named][order]
