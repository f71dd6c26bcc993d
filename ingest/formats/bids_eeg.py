"""EEG, intracranial EEG and MEG of a BIDS run, with MNE-Python: one stream for each type of channel and rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import biosignals, spans
from neurofmx.ingest.formats.bids_files import MISSING, Run, metadata, number, positions, table
from neurofmx.ingest.formats.edf import digital, records_of
from neurofmx.ingest.formats.edf_header import read_header
from neurofmx.ingest.formats.rows import Rows
from neurofmx.scaled import Scaled
from neurofmx.types import Channels, Samples, Stream, sanitise

# type of a channel in channels.tsv -> stream and modality; any other type is a stream of its own name
_TYPES = {
    "EEG": ("eeg", "eeg"),
    "ECOG": ("ecog", "ecog"),
    "SEEG": ("seeg", "ecog"),
    "DBS": ("dbs", "lfp"),
    "EOG": ("eog", "eog"),
    "HEOG": ("eog", "eog"),
    "VEOG": ("eog", "eog"),
    "ECG": ("ecg", "ecg"),
    "EMG": ("emg", "emg"),
    "MISC": (biosignals.UNKNOWN, biosignals.UNKNOWN),
    "AUX": (biosignals.UNKNOWN, biosignals.UNKNOWN),
    "TRIG": ("status", "status"),
    "STIM": ("status", "status"),
    "PPG": ("pleth", "pleth"),
    "TEMP": ("temperature", "temperature"),
    "REF": ("reference", "reference"),
    "MAG": ("meg_mag", "meg"),
    "GRAD": ("meg_grad", "meg"),
    "MEGMAG": ("meg_mag", "meg"),
    "MEGGRADAXIAL": ("meg_grad", "meg"),
    "MEGGRADPLANAR": ("meg_grad", "meg"),
}
_VOLTS = {"V", "mV", "µV", "uV", "nV"}
_FIFF_UNITS = {107: "V", 112: "T", 201: "T/m"}
_SPLICES = ("New Segment", "boundary", "BAD boundary", "EDGE boundary")


def streams(run: Run, notes: list[str]) -> dict[str, Stream]:
    """Every channel of the run at its own rate, voltages in uV.

    Args:
        run: the run; channels.tsv says what each channel is.
        notes: takes one sentence for each thing that was decided.

    Raises:
        MalformedFile: MNE-Python cannot read the file, or it holds no samples.
    """
    found: dict[str, Stream] = {}
    for raw in _opened(run):
        for name, stream in _streams_of(raw, run, notes).items():
            found[name if name not in found else f"{name}_{sanitise(f'{stream.rate_hz:g}Hz')}"] = stream
    return found


def _opened(run: Run) -> list[Any]:
    """The file through MNE, once for each sampling rate in it."""
    import mne

    path = run.path
    readers = {
        ".vhdr": mne.io.read_raw_brainvision,
        ".edf": mne.io.read_raw_edf,
        ".bdf": mne.io.read_raw_bdf,
        ".set": mne.io.read_raw_eeglab,
        ".fif": mne.io.read_raw_fif,
    }
    if run.extension not in readers:
        raise MalformedFile(run.primary, got=run.extension, expected=f"one of {', '.join(readers)}")
    reader = readers[run.extension]
    # MNE brings all channels of an EDF to the fastest rate: a group that is read alone keeps its own
    groups = _edf_groups(path, run.primary) if run.extension in (".edf", ".bdf") else []
    try:
        if len(groups) > 1:
            return [reader(path, include=group, verbose="ERROR") for group in groups]
        return [reader(path, verbose="ERROR")]
    except (OSError, ValueError, RuntimeError, KeyError, IndexError, NotImplementedError) as error:
        raise MalformedFile(
            run.primary,
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            expected="a file that MNE-Python can read",
            fix="Fetch it again with all the files beside it.",
        ) from error


def _edf_groups(path: Path, name: str) -> list[list[str]]:
    """Labels of an EDF or BDF file by samples a record, once its header and size are sure."""
    header = read_header(path, name)
    if header.kind.endswith("+D"):
        raise MalformedFile(
            name,
            got=f"a discontinuous {header.kind}",
            expected="one stretch without gaps",
            fix="Read it as an EDF file of its own: that reader states the gaps.",
        )
    groups: dict[int, list[str]] = {}
    for signal in header.signals:
        if not signal.is_annotations:
            groups.setdefault(signal.samples, []).append(signal.label)
    return list(groups.values())


def _streams_of(raw: Any, run: Run, notes: list[str]) -> dict[str, Samples]:
    rate, n = float(raw.info["sfreq"]), int(raw.n_times)
    if not n:
        raise MalformedFile(run.primary, got="no samples", expected="at least one")
    about = metadata(run, run.suffix)
    _compare(about, run, rate, n, notes)
    types, units = _described(raw, run, notes)
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name in raw.ch_names:
        stream, modality = _TYPES.get(types[name], (sanitise(types[name]).lower(),) * 2)
        groups.setdefault((stream, modality, units[name]), []).append(name)
    places = positions(run, "electrodes", tuple(raw.ch_names), _unit_key(run), notes)
    rows = {name: i for i, name in enumerate(raw.ch_names)}
    splices = _splices(raw, n / rate, notes)
    found: dict[str, Samples] = {}
    for (stream, modality, unit), ids in groups.items():
        values = _integers(raw, run, ids, unit)
        if values is None:
            values = np.ascontiguousarray(raw.get_data(picks=ids, verbose="ERROR").T)
            values = (values * (1e6 if unit == "uV" else 1.0)).astype(np.float32)
        where = None if places is None else places[[rows[name] for name in ids]]
        if places is None and modality == "eeg":
            _, where = biosignals.scalp(ids)
            if where is not None:
                notes.append("eeg: positions of MNE's 10-05 template head, not measured on this head")
        if where is not None and not np.isfinite(where).any():
            where = None
        name = stream if stream not in found else f"{stream}_{sanitise(unit)}"
        found[name] = Samples(
            values=values,
            unit=unit,
            channels=Channels(ids=tuple(ids), positions_um=where),
            modality=modality,
            valid=_valid(values, rate, splices),
            rate_hz=rate,
        )
    return found


def _integers(raw: Any, run: Run, ids: list[str], unit: str) -> Scaled | None:
    """The integers of channels of one unit with what makes them physical, where the format keeps integers."""
    if run.extension == ".vhdr" and raw.orig_format == "short" and raw._raw_extras[0]["order"] == "F":
        stored = np.memmap(raw.filenames[0], "<i2", "r", shape=(int(raw.n_times), len(raw.ch_names)))
        columns = [raw.ch_names.index(name) for name in ids]
        rows = Rows((len(stored), len(ids)), np.dtype(np.int16), lambda lo, hi: stored[lo:hi, columns])
        return Scaled(rows, raw._cals[columns] * (1e6 if unit == "uV" else 1.0), np.zeros(len(ids)))
    if run.extension in (".edf", ".bdf") and unit == "uV":
        header = read_header(run.path, run.primary)
        signals = [signal for name in ids for signal in header.signals if signal.label == name]
        laws = [(signal.gain, signal.base, *biosignals.scaled("eeg", signal.unit)) for signal in signals]
        if len(signals) == len(ids) and all(np.isfinite(gain) and kept == "uV" for gain, _, _, kept in laws):
            scale = np.array([gain * factor for gain, _, factor, _ in laws])
            offset = np.array([base * factor for _, base, factor, _ in laws])
            return Scaled(digital(records_of(run.path, header), signals, header.width), scale, offset)
    return None


def _described(raw: Any, run: Run, notes: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Type and unit of each channel: channels.tsv says the type, the data file whether it is a voltage."""
    rows = table(run, "channels")
    listed = dict(zip(rows["name"], range(len(rows["name"])))) if rows and "name" in rows else {}
    guessed = dict(zip(raw.ch_names, raw.get_channel_types()))
    main = {"eeg": "EEG", "ieeg": "ECOG"}.get(run.suffix, "")
    types, units, bad = {}, {}, []
    for at, name in enumerate(raw.ch_names):
        row = listed.get(name)
        stated = rows["type"][row].upper() if rows and row is not None and "type" in rows else ""
        types[name] = stated or (main if guessed[name] == "eeg" and main else guessed[name].upper())
        said = rows["units"][row] if rows and row is not None and "units" in rows else MISSING
        units[name] = _unit(raw, at, name, said)
        if rows and row is not None and rows.get("status", [""] * (row + 1))[row].lower() == "bad":
            why = rows.get("status_description", [MISSING] * (row + 1))[row]
            bad.append(name if why == MISSING else f"{name} ({why})")
    if bad:
        notes.append(f"channels that channels.tsv calls bad, kept: {', '.join(bad)}")
    unlisted = [name for name in raw.ch_names if name not in listed]
    if unlisted:
        notes.append(f"channels.tsv lacks {len(unlisted)} of {len(raw.ch_names)} channels: type by the data file")
    return types, units


def _unit(raw: Any, at: int, name: str, said: str) -> str:
    kind = _FIFF_UNITS.get(int(raw.info["chs"][at]["unit"]), "")
    # formats that keep a unit a channel are scaled to volts only where that unit is one
    own = raw._orig_units.get(name, "V")
    if kind == "V":
        return "uV" if own in _VOLTS else (said if said not in (MISSING, "") else "a.u.")
    return kind or (said if said not in (MISSING, "") else "a.u.")


def _unit_key(run: Run) -> str:
    return {"eeg": "EEGCoordinateUnits", "ieeg": "iEEGCoordinateUnits"}.get(run.suffix, "MEGCoordinateUnits")


def _compare(about: dict[str, Any], run: Run, rate: float, n: int, notes: list[str]) -> None:
    """What the sidecar says of the clock against what the file holds; the file is kept."""
    where = f"the sidecar of {run.primary}"
    said, length = number(about, "SamplingFrequency", where), number(about, "RecordingDuration", where)
    if said and abs(said - rate) > 1e-3 * rate:
        notes.append(f"the sidecar says {said:g} Hz, the file {rate:g} Hz: the file's is kept")
    if length and abs(length - n / rate) > max(1.0, 0.01 * length):
        notes.append(f"the sidecar says {length:g} s, the file holds {n / rate:g} s")


def _splices(raw: Any, duration_s: float, notes: list[str]) -> np.ndarray:
    """(K,) seconds at which the recording was paused: its samples go on, time did not."""
    at = [
        float(onset)
        for onset, text in zip(raw.annotations.onset, raw.annotations.description)
        if str(text).startswith(_SPLICES) and 0 < onset < duration_s
    ]
    if at:
        notes.append(f"paused {len(at)} times: a new interval of valid time begins at each; the pause is not known")
    return np.unique(at)


def _valid(values: Any, rate: float, splices: np.ndarray) -> np.ndarray:
    known, n = spans.finite_rows(values), len(values)
    valid = spans.whole(n, rate) if known.all() else spans.stamped(np.arange(n) / rate, known)
    for splice in splices:
        inside = (valid[:, 0] < splice) & (splice < valid[:, 1])
        valid = np.sort(np.concatenate([valid.ravel(), np.repeat(splice, 2 * inside.sum())])).reshape(-1, 2)
    return valid
