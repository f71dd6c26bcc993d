"""Are the numbers of a sampled stream what its modality and its unit can be."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from neurofmx.errors import NeurofmxError
from neurofmx.frames import Frames
from neurofmx.ingest.checks_survey import Survey, survey
from neurofmx.ingest.verdict import Verdict, named, some
from neurofmx.types import Check, Recording, Samples

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


def judge_samples(name: str, stream: Samples, recording: Recording) -> tuple[Check, ...]:
    """Judges the values and the unit of one stream.

    Args:
        name: the stream's name; checks are called ``name.check``.
        stream: its values are read in pieces of about a million numbers.
        recording: its notes tell what a reader knows of a unit.
    """
    if isinstance(stream.values, Frames):
        return (named(f"{name}.decodes", _decodes(stream.values)),)
    seen = survey(stream, spread=stream.modality in VOLTAGES and stream.unit in _TO_UV)
    found = (
        ("finite", _finite(seen)),
        ("flat", _flat(stream, seen)),
        ("saturated", _saturated(stream, seen)),
        ("unit", _unit(stream, recording)),
        ("amplitude", _amplitude(stream, seen, recording)),
    )
    return tuple(named(f"{name}.{what}", verdict) for what, verdict in found)


def _decodes(frames: Frames) -> Verdict:
    """Bytes of a video are numbers whatever they show: whether its beginning, middle and end can be decoded."""
    n, height, width, _ = frames.shape
    for row in (0, n // 2, n - 1):
        try:
            frames[row]
        except NeurofmxError as error:
            return False, "block", f"{error}"
    return True, "block", f"{n:,} frames of {width} x {height} pixels; the first, middle and last were decoded"


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
