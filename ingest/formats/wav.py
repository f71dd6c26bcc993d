"""WAV files: one sound, and what a JSON beside it says of its rate and its units of song."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import spans
from neurofmx.ingest.formats.assemble import assemble
from neurofmx.ingest.sessions import Session
from neurofmx.scaled import Scaled
from neurofmx.types import Channels, Intervals, RawFile, Recording, Samples, Stream

# by the type that the samples are read as; 24 bits come as the upper ones of 32
_FULL_SCALE = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31, "i8": 2.0**63}
_HEARD = 1 << 22  # samples that are enough to judge a rate by


def read(root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Reads one WAV file as a share of full scale, -1 to 1.

    Args:
        root: folder in which the files have their own relative names.
        session: what the archive says of them.
        files: the WAV file; and the JSON of the same name, where there is one. Where its ``sample_rate`` is not the
            header's, the rate is taken at which the sound fills the band from ``lower_freq`` to ``upper_freq`` of
            the JSON; without a band the header's is.

    Raises:
        MalformedFile: no WAV file, one that is shorter than its header says, or a JSON that is none.
    """
    name = files[0].path
    header_hz, raw = _wav(root / name, name)
    about: dict[str, Any] = {}
    for file in files[1:]:
        about |= _json(root / file.path, file.path)
    rate, notes = _rate(float(header_hz), about, raw)
    values = raw.reshape(len(raw), -1)
    kind, n = f"{raw.dtype.kind}{raw.dtype.itemsize}", values.shape[1]
    if raw.dtype.kind != "f":
        exact = np.dtype(np.float32 if kind in ("u1", "i2") else np.float64)
        step = 1.0 / _FULL_SCALE[kind]
        values = Scaled(values, np.full(n, step), np.full(n, -128 * step if kind == "u1" else 0.0), exact)
    valid = spans.whole(len(values), rate)
    streams: dict[str, Stream] = {
        "sound": Samples(
            values=values,
            unit="a.u.",
            channels=Channels(ids=("sound",) if n == 1 else tuple(f"sound{i}" for i in range(n))),
            modality="sound",
            valid=valid,
            rate_hz=rate,
        )
    }
    if "onsets" in about and "offsets" in about:
        streams["song_units"] = _units(about, valid, name)
    return assemble(session, files, streams, notes=[*notes, "sound: a.u. is a share of full scale"])


def _wav(path: Path, name: str) -> tuple[int, np.ndarray]:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of chunks that hold no sound
            warnings.filterwarnings("error", "Reached EOF", wavfile.WavFileWarning)
            rate, raw = wavfile.read(path)
    except (ValueError, OSError, EOFError, wavfile.WavFileWarning) as error:
        raise MalformedFile(name, got=str(error) or type(error).__name__, expected="a whole WAV file",
                            fix="Fetch it again.") from error  # fmt: skip
    if not len(raw) or rate <= 0:
        raise MalformedFile(name, got=f"{len(raw)} samples at {rate} Hz", expected="sound")
    return rate, raw


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MalformedFile(name, got=str(error), expected="JSON") from error
    if not isinstance(found, dict):
        raise MalformedFile(name, got=type(found).__name__, expected="a JSON object")
    return found


def _rate(header_hz: float, about: dict[str, Any], raw: np.ndarray) -> tuple[float, list[str]]:
    """The rate to believe, and why, where header and JSON disagree.

    A ``length_s`` is no witness: whoever wrote the rate divided the number of samples by it. The band was drawn on
    the sound itself.
    """
    stated, low, high = (_positive(about, key) for key in ("sample_rate", "lower_freq", "upper_freq"))
    if stated in (0.0, header_hz):
        return header_hz, []
    both = f"sample rate: the WAV header says {header_hz:g} Hz, the JSON beside it {stated:g} Hz"
    if not 0.0 < low < high:
        return header_hz, [f"{both}; the header's was taken, since the JSON has no band to judge by"]
    by_header, by_json = (_share(raw, rate, low, high) for rate in (header_hz, stated))
    whose, rate = ("JSON", stated) if by_json > by_header else ("header", header_hz)
    return rate, [
        f"{both}; the {whose}'s was taken: {by_header:.1%} of the sound's power lies in the JSON's own band, "
        f"{low:g} to {high:g} Hz, at the header's rate, and {by_json:.1%} at the JSON's"
    ]


def _positive(about: dict[str, Any], key: str) -> float:
    """A number above 0, or 0 where there is none."""
    value = about.get(key)
    return float(value) if isinstance(value, int | float) and value > 0 else 0.0


def _share(raw: np.ndarray, rate_hz: float, low_hz: float, high_hz: float) -> float:
    """Share of the power, the mean left out, that lies in a band."""
    sound = raw[:_HEARD].reshape(min(len(raw), _HEARD), -1)[:, 0].astype(np.float64)
    power = np.abs(np.fft.rfft(sound - sound.mean())) ** 2
    at = np.fft.rfftfreq(len(sound), 1.0 / rate_hz)
    return float(power[(at >= low_hz) & (at <= high_hz)].sum() / max(power.sum(), np.finfo(float).tiny))


def _units(about: dict[str, Any], valid: np.ndarray, name: str) -> Intervals:
    """Units of song, whose onsets and offsets pykanto writes in seconds."""
    try:
        start, stop = (np.asarray(about[key], np.float64).reshape(-1) for key in ("onsets", "offsets"))
    except (TypeError, ValueError) as error:
        raise MalformedFile(f"onsets and offsets beside {name}", got=str(error), expected="seconds") from error
    if len(start) != len(stop) or np.any(stop < start):
        raise MalformedFile(f"onsets and offsets beside {name}", got=f"{len(start)} and {len(stop)}",
                            expected="one offset behind each onset")  # fmt: skip
    columns = {"unit": np.arange(len(start))}
    return Intervals(start_s=start, stop_s=stop, columns=columns, modality="song_units", valid=valid)
