"""Are the numbers of a sampled stream what its modality and its unit can be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurofmx.ingest.verdict import Verdict, named, some
from neurofmx.types import Check, Recording, Samples

PIECE = 1 << 20  # numbers read at a time
_WINDOWS, _ROWS, _WINDOW_S = 16, 128, 1.0  # the spread is that of so many rows in each of so many windows
_TO_UV = {"V": 1e6, "mV": 1e3, "uV": 1.0, "nV": 1e-3}
# units by what they measure; voltages are in _TO_UV
UNITS = frozenset(
    (
        "a.u.", "1", "%", "%MVC", "dF/F", "px", "m", "cm", "mm", "um", "rad", "deg", "rad/s", "deg/s", "m/s", "cm/s",
        "m/s^2", "g", "s", "ms", "Hz", "dB", "K", "degC", "T", "pT", "fT", "A", "mA", "uA", "pA", "M", "mM", "uM", "N",
        "mN", "Nm", "mmHg", "Pa", "kPa", "kg", "lux", "count", "counts", "NU", "OD", "bpm", "L/min", "uS",
    )
)  # fmt: skip
ARBITRARY = ("a.u.", "NU", "1", "count", "counts")
_UNKNOWN = 0.01  # share of unknown samples that is worth a warning
# an extreme of a free signal is met a few times; a converter's limit again and again
_SATURATED, _SATURATED_TIMES = 2e-4, 10
_FAR, _HOPELESS = 4.0, 1000.0  # times outside the band: a wrong unit if one would explain it; wrong in any case


@dataclass(frozen=True)
class Band:
    """What a voltage of one modality can be.

    Args:
        says: the modality in words.
        low_uV: smallest robust spread of a working channel.
        high_uV: largest.
    """

    says: str
    low_uV: float
    high_uV: float


# robust standard deviation within one second; an order of magnitude beyond what textbooks give
# (Nunez and Srinivasan 2006, Electric Fields of the Brain; Merletti and Farina 2016, Surface Electromyography)
VOLTAGES = {
    "eeg": Band("scalp EEG", 0.5, 500.0),
    "ecog": Band("ECoG", 0.5, 2000.0),
    "ieeg": Band("intracranial EEG", 0.5, 2000.0),
    "seeg": Band("intracranial EEG", 0.5, 2000.0),
    "lfp": Band("LFP", 0.5, 5000.0),
    "ecephys": Band("extracellular voltage", 0.5, 5000.0),
    "emg": Band("EMG at the electrode", 0.5, 3000.0),
    "ecg": Band("ECG", 2.0, 5000.0),
    "eog": Band("EOG", 0.5, 5000.0),
}
_PREFIXES = (1e-6, 1e-3, 1e3, 1e6)
_OUTPUT = re.compile(r"amplifier('s)?[ -]output|gain (is )?(un|not )known|gain is not in", re.IGNORECASE)


@dataclass(frozen=True)
class Survey:
    """What one pass over a stream's values found.

    Args:
        n: samples.
        n_inside: numbers inside valid time.
        bad: of those, not finite.
        infinite: of those, infinite.
        known: (C,) finite numbers of each channel.
        low, high: (C,) extremes.
        at_low, at_high: (C,) numbers that equal them.
        spread: (C,) robust standard deviation within a second, NaN where unknown.
    """

    n: int
    n_inside: int
    bad: int
    infinite: int
    known: np.ndarray
    low: np.ndarray
    high: np.ndarray
    at_low: np.ndarray
    at_high: np.ndarray
    spread: np.ndarray


def judge_samples(name: str, stream: Samples, recording: Recording) -> tuple[Check, ...]:
    """Judges the values and the unit of one stream.

    Args:
        name: the stream's name; checks are called ``name.check``.
        stream: its values are read in pieces of about a million numbers.
        recording: its notes tell what a reader knows of a unit.
    """
    seen = survey(stream)
    found = (
        ("finite", _finite(seen)),
        ("flat", _flat(stream, seen)),
        ("saturated", _saturated(stream, seen)),
        ("unit", _unit(stream, recording)),
        ("amplitude", _amplitude(stream, seen, recording)),
    )
    return tuple(named(f"{name}.{what}", verdict) for what, verdict in found)


def survey(stream: Samples) -> Survey:
    """One pass over the values in pieces, and a few short windows for the spread."""
    values, n = stream.values, len(stream.values)
    wide = int(np.prod(np.shape(values)[1:], dtype=np.int64))
    known, at_low, at_high = (np.zeros(wide, np.int64) for _ in range(3))
    low, high = np.full(wide, np.inf), np.full(wide, -np.inf)
    n_inside = bad = infinite = 0
    rows = max(1, PIECE // max(1, wide))
    for start in range(0, n, rows):
        # channel after channel in memory: reductions along time are several times faster
        piece = np.ascontiguousarray(_flat_rows(values[start : start + rows]).T)
        inside = _inside(stream, start, piece.shape[1])
        n_inside += int(inside.sum()) * wide
        least, most = piece.min(axis=1), piece.max(axis=1)  # not finite where one of them is not
        if np.isfinite(least).all() and np.isfinite(most).all():
            known += piece.shape[1]
            _extreme(piece, least, low, at_low, np.less)
            _extreme(piece, most, high, at_high, np.greater)
            continue
        finite = np.isfinite(piece)
        bad += int(np.count_nonzero(~finite[:, inside]))
        infinite += int(np.count_nonzero(np.isinf(piece[:, inside])))
        known += np.count_nonzero(finite, axis=1)
        below, above = np.where(finite, piece, np.inf), np.where(finite, piece, -np.inf)
        _extreme(below, below.min(axis=1), low, at_low, np.less)
        _extreme(above, above.max(axis=1), high, at_high, np.greater)
    return Survey(n, n_inside, bad, infinite, known, low, high, at_low, at_high, _spread(stream, wide))


def _flat_rows(values: Any) -> np.ndarray:
    """(n, C) numbers of a piece, whatever the shape of one sample is."""
    piece = np.asarray(values)
    return piece.reshape(len(piece), int(np.prod(piece.shape[1:], dtype=np.int64)))


def _extreme(piece: np.ndarray, here: np.ndarray, best: np.ndarray, count: np.ndarray, beats: np.ufunc) -> None:
    """Takes the extreme of one (C, n) piece into the running one, and counts the numbers that equal it."""
    new = beats(here, best)
    count[new] = 0
    best[new] = here[new]
    same = np.flatnonzero((here == best) & np.isfinite(best))
    count[same] += np.count_nonzero(piece[same] == here[same, None], axis=1)


def _inside(stream: Samples, start: int, n: int) -> np.ndarray:
    """(n,) bool, which of the rows from ``start`` lie in valid time."""
    if stream.times_s is not None:
        times = np.asarray(stream.times_s[start : start + n], np.float64)
    else:
        times = stream.t0_s + np.arange(start, start + n) / float(stream.rate_hz or 1.0)
    valid = np.asarray(stream.valid, np.float64).reshape(-1, 2)
    if not len(valid):
        return np.zeros(n, bool)
    at = np.searchsorted(valid[:, 0], times, side="right") - 1
    return (at >= 0) & (times < valid[at, 1])


def _spread(stream: Samples, wide: int) -> np.ndarray:
    """(C,) median over windows of the spread within each, so that slow drift and short bursts count little."""
    n = len(stream.values)
    if stream.modality not in VOLTAGES or stream.unit not in _TO_UV or n < 8:
        return np.full(wide, np.nan)
    width = min(n, max(8, int(_WINDOW_S * _rate(stream))))
    stride = max(1, width // _ROWS)
    starts = np.unique(np.linspace(0, n - width, _WINDOWS).astype(np.int64)).tolist()
    windows = np.stack([_flat_rows(stream.values[at : at + width : stride]).T for at in starts])
    windows = windows.astype(np.float64)
    finite = np.isfinite(windows)
    alive = finite.any(axis=2)
    if finite.all():
        median, deviation = np.median, np.std
    else:
        median, deviation = np.nanmedian, np.nanstd
        windows[~finite] = np.nan
        windows[~alive] = 0.0
    middle = median(windows, axis=2, keepdims=True)
    found = 1.4826 * median(np.abs(windows - middle), axis=2)
    found = np.where(found > 0, found, deviation(windows, axis=2))  # coarse steps have a MAD of 0
    found[~alive] = np.nan
    lost = ~alive.any(axis=0)
    found[:, lost] = 0.0
    return np.where(lost, np.nan, np.nanmedian(found, axis=0))


def _rate(stream: Samples) -> float:
    if stream.times_s is None:
        return float(stream.rate_hz or 1.0)
    steps = np.diff(np.asarray(stream.times_s[:4096], np.float64))
    step = float(np.median(steps)) if len(steps) else 0.0
    return 1.0 / step if step > 0 else 1.0


def _finite(seen: Survey) -> Verdict:
    share = seen.bad / max(1, seen.n_inside)
    said = f"{seen.bad:,} of {seen.n_inside:,} numbers in valid time are not finite ({share:.2%})"
    if seen.infinite:
        return False, "block", f"{said}, {seen.infinite:,} of them infinite: expected none"
    if seen.n_inside and seen.bad == seen.n_inside:
        return False, "block", f"{said}: there is no data where data is claimed"
    if share > _UNKNOWN:
        return False, "warn", f"{said}: expected at most {_UNKNOWN:.0%}"
    return True, "block", said


def _flat(stream: Samples, seen: Survey) -> Verdict:
    dead = np.flatnonzero((seen.high <= seen.low) & (seen.n > 1))
    if len(dead):
        return False, "warn", f"{len(dead)} of {len(seen.low)} channels never change: {_named(stream, dead)}"
    return True, "warn", f"every channel changes ({len(seen.low)} in all)"


def _saturated(stream: Samples, seen: Survey) -> Verdict:
    if stream.modality not in VOLTAGES:
        return True, "warn", f"not judged: {stream.modality} may rest on one value"
    most = np.where(seen.high > seen.low, np.maximum(seen.at_low, seen.at_high), 0)
    share = most / np.maximum(1, seen.known)
    stuck = np.flatnonzero((share > _SATURATED) & (most >= _SATURATED_TIMES))
    limit = f"; {_SATURATED_TIMES} times and {_SATURATED:.2%} of the time are taken for clipping"
    if not len(stuck):
        return True, "warn", f"no channel meets its extreme more than {int(most.max(initial=0)):,} times{limit}"
    worst = int(stuck[np.argmax(share[stuck])])
    edge = seen.high[worst] if seen.at_high[worst] >= seen.at_low[worst] else seen.low[worst]
    said = (
        f"{len(stuck)} of {len(most)} channels rest on their extreme: {_named(stream, stuck)}; the worst "
        f"{int(most[worst]):,} times ({share[worst]:.2%}) at {edge:.5g} {stream.unit}{limit}"
    )
    return False, "warn", said


def _unit(stream: Samples, recording: Recording) -> Verdict:
    unit, voltage = stream.unit, stream.modality in VOLTAGES
    if voltage and unit not in _TO_UV and unit not in ARBITRARY:
        return (
            False,
            "block",
            f"unit {unit or 'missing'!r}: expected a voltage (V, mV, uV) or a.u. for {stream.modality}",
        )
    if voltage and unit == "mV" and recording.provenance.reader.startswith("formats.nwb"):
        return False, "warn", "unit is millivolts, not volts as NWB asks of an electrode's voltage"
    if unit not in UNITS and unit not in _TO_UV:
        return False, "warn", f"unit {unit or 'missing'!r} is not known here: expected SI, px or a.u."
    return True, "warn", f"unit {unit}" + (": arbitrary, so its amplitude means nothing" if unit in ARBITRARY else "")


def _amplitude(stream: Samples, seen: Survey, recording: Recording) -> Verdict:
    band = VOLTAGES.get(stream.modality)
    alive = seen.spread[(seen.high > seen.low) & np.isfinite(seen.spread)] if seen.spread.size else seen.spread
    if band is None or stream.unit not in _TO_UV or not alive.size or not (alive > 0).any():
        return True, "block", f"not judged: {stream.modality} in {stream.unit or 'no unit'} has no known range"
    uV = float(np.median(alive[alive > 0])) * _TO_UV[stream.unit]
    peak = max(abs(float(seen.low.min())), abs(float(seen.high.max())))
    said = (
        f"robust spread {_volts(uV)} (peak {peak:.4g} {stream.unit}); {band.says} has {band.low_uV:g} to "
        f"{band.high_uV:g} uV"
    )
    if band.low_uV <= uV <= band.high_uV:
        return True, "block", said
    off = uV / band.high_uV if uV > band.high_uV else band.low_uV / uV
    fits = [f for f in _PREFIXES if band.low_uV <= uV * f <= band.high_uV]
    size = "large" if uV > band.high_uV else "small"
    if off < (_FAR if fits else _HOPELESS):
        return False, "warn", f"{said}: {off:.2g} times beyond it"
    if fits and _at_output(stream, recording):
        return (
            False,
            "warn",
            f"{said}; a note says that this is an amplifier's output, its gain unknown: do not compare",
        )
    if not fits:
        return False, "block", f"{said}: {off:.2g} times too {size}, whatever the unit"
    factor = min(fits, key=lambda f: abs(np.log(uV * f) - np.log(np.sqrt(band.low_uV * band.high_uV))))
    times = f"{1 / factor if factor < 1 else factor:,.0f}"
    said = f"{said}: about {times} times too {size}, so the file's unit and its numbers disagree"
    return False, "block", f"{said} (with the prefix put right: {_volts(uV * factor)})"


def _at_output(stream: Samples, recording: Recording) -> bool:
    """Whether the file says of this signal that it is not what the electrode saw."""
    return any(stream.modality in note.lower() and _OUTPUT.search(note) for note in recording.provenance.notes)


def _volts(uV: float) -> str:
    return f"{uV / 1e6:.3g} V" if uV >= 1e6 else f"{uV / 1e3:.3g} mV" if uV >= 1e3 else f"{uV:.3g} uV"


def _named(stream: Samples, rows: np.ndarray) -> str:
    ids = stream.channels.ids
    return some([ids[row] if row < len(ids) else str(row) for row in rows.tolist()])
