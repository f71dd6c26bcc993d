"""What a label says a signal is, its unit in microvolts, and where an electrode of the 10-05 system lies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

UNKNOWN = "aux"  # the modality of a signal whose label tells nothing
# how many microvolts a unit is; the micro sign is written in three ways
_IN_UV = {"v": 1e6, "mv": 1e3, "uv": 1.0, "\u00b5v": 1.0, "\u03bcv": 1.0, "\x83\u00cav": 1.0, "nv": 1e-3}
# potentials of brain, eye and muscle are kept in uV; all else keeps the unit of its file
_POTENTIALS = ("eeg", "ecog", "eog", "emg")

# the first row that matches the whole label, in lower case, says what it is
_KINDS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("ecog", r"(ecog|ieeg|seeg)\b.*"),
        ("eeg", r"eeg\b.*"),
        ("eog", r".*\beog.*"),
        ("emg", r".*\bemg.*"),
        # leads: Einthoven, Goldberger, Wilson, modified and Frank
        ("ecg", r"(ecg|ekg).*|i{1,3}|av[rlf]|v[1-9]?r?|ml(i{1,3}|v\d)|mcl\d?|cm\d|v[xyz]"),
        ("pleth", r"pleth.*|ppg.*"),
        ("spo2", r"(spo2|sao2|osat).*"),
        ("abp", r"abp.*|art\b.*|ibp\b.*|bp\b.*"),
        ("cvp", r"cvp\b.*"),
        ("pap", r"pap\b.*"),
        ("icp", r"icp\b.*"),
        ("resp", r"resp.*|(air)?flow.*|thor.*|abdo.*|chest.*|nasal.*"),
        ("temperature", r"temp.*"),
        ("status", r"status.*|trig.*|stim.*|(event )?marker.*"),
    )
)
# what stands behind a hyphen where all electrodes share one reference
_REFERENCE = re.compile(r"-(ref|le|ar|avg|car)$", re.IGNORECASE)


def kind_of(label: str) -> str:
    """The modality that a label names: ``eeg``, ``ecg``, ``resp``, ... or ``aux``."""
    text = _bare(label).lower()
    found = next((kind for kind, pattern in _KINDS if pattern.fullmatch(text)), "")
    if found:
        return found
    parts = _REFERENCE.sub("", text).split("-")
    return "eeg" if all(part in _montage() for part in parts) else UNKNOWN


def scaled(kind: str, unit: str) -> tuple[float, str]:
    """The factor and the unit in which a signal is kept.

    Args:
        kind: its modality.
        unit: as the file has it.

    Returns:
        What brings brain, eye and muscle potentials to uV; 1 and the stated unit for all else, ``a.u.`` for none.
    """
    factor = _IN_UV.get(unit.lower())
    if kind in _POTENTIALS and factor is not None:
        return factor, "uV"
    return 1.0, "uV" if factor == 1.0 else unit or "a.u."


def scalp(labels: Iterable[str]) -> tuple[tuple[str, ...], np.ndarray | None]:
    """Spells electrodes as the 10-05 system does and looks up where they lie.

    Args:
        labels: as a file has them, such as ``Fc5.`` or ``EEG Fp1-LE``.

    Returns:
        The names; and (C, 3) um on the template head of MNE's colin27_1005 montage, NaN where a name is not of the
        10-05 system (a bipolar pair is not), or None where none is.
    """
    names, places = [], []
    for label in labels:
        text = re.sub(r"^eeg[ _]+", "", _bare(label), flags=re.IGNORECASE)
        name, place = _montage().get(_REFERENCE.sub("", text).lower(), (text, (np.nan,) * 3))
        names.append(name)
        places.append(place)
    positions = np.array(places, np.float64).reshape(-1, 3)
    return unique(names), positions if np.isfinite(positions).any() else None


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """The same names, those that repeat numbered from the second on."""
    seen: Counter[str] = Counter()
    out: list[str] = []
    for place, name in enumerate(names):
        text = name or f"signal{place}"
        seen[text] += 1
        out.append(text if seen[text] == 1 else f"{text}#{seen[text]}")
    return tuple(out)


def stream_names(groups: Sequence[tuple[str, float, str]]) -> list[str]:
    """A name for each group of signals that share modality, rate and unit.

    Args:
        groups: (modality, rate in Hz, unit), all different.

    Returns:
        The modality alone where it has one group; else with rate, and with unit where that is needed too.
    """
    alone = Counter(kind for kind, _, _ in groups)
    paced = Counter((kind, rate) for kind, rate, _ in groups)
    return [
        kind
        if alone[kind] == 1
        else f"{kind}_{rate:g}hz"
        if paced[kind, rate] == 1
        else f"{kind}_{rate:g}hz_{unit or 'no-unit'}"
        for kind, rate, unit in groups
    ]


def _bare(label: str) -> str:
    return label.strip().strip(".").strip()


@lru_cache(maxsize=1)
def _montage() -> dict[str, tuple[str, tuple[float, float, float]]]:
    """Name in lower case -> name and place in um."""
    import mne

    places = mne.channels.make_standard_montage("colin27_1005").get_positions()["ch_pos"]
    return {name.lower(): (name, tuple(np.asarray(place) * 1e6)) for name, place in places.items()}
