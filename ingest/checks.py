"""Judges a recording: its bytes before they are read, then its clock, gaps, units and values.

Every check is a pure function of what it judges. Its evidence says what was seen and what was expected, whether it
passed or not; `ingest.governance` judges terms and identities.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neurofmx.ingest.checks_files import judge_bytes
from neurofmx.ingest.checks_nwb import judge_nwb
from neurofmx.ingest.checks_streams import judge_stream
from neurofmx.ingest.formats.rates import disagreements
from neurofmx.ingest.sessions import Session
from neurofmx.ingest.verdict import Verdict, named
from neurofmx.types import Check, Recording

CLOCK_LIMIT_S = 0.005  # a stated alignment error above this blurs a bin of 5 ms


def judge_files(root: Path, session: Session) -> tuple[Check, ...]:
    """Judges the bytes of a session.

    Args:
        root: folder in which the files have their own relative names.
        session: what the archive says of them.

    Returns:
        Every check; what a fault makes pointless is left out.
    """
    found = judge_bytes(root, session)
    if session.reader != "nwb" or not all(check.passed for check in found):
        return found
    return (*found, *judge_nwb(root / session.files[0].path))


def judge(recording: Recording) -> tuple[Check, ...]:
    """Judges a recording that was read.

    Args:
        recording: its arrays are read in pieces.

    Returns:
        Checks of the whole, then of each stream, called ``stream.check``.
    """
    whole = (
        ("has_streams", _has_streams),
        ("duration", _duration),
        ("clock_error", _clock_error),
        ("clock_rate", _clock_rate),
    )
    return (
        *(named(name, rule(recording)) for name, rule in whole),
        *(check for name, stream in recording.streams.items() for check in judge_stream(name, stream, recording)),
    )


def _has_streams(recording: Recording) -> Verdict:
    names = ", ".join(f"{name} ({stream.modality})" for name, stream in recording.streams.items())
    return bool(names), "block", names or "no stream: expected at least one signal, event train or interval table"


def _duration(recording: Recording) -> Verdict:
    start, stop = recording.domain_s
    lasts = stop - start
    ok = bool(np.isfinite(lasts) and lasts > 0)
    return ok, "block", f"{lasts:g} s, from {start:g} to {stop:g} s" + ("" if ok else ": expected more than 0")


def _clock_error(recording: Recording) -> Verdict:
    error = recording.clock_error_s
    if not np.isfinite(error) or error < 0:
        return False, "block", f"stated as {error} s: expected a number from 0 up"
    told = [f"{name}: {clock.sentence()}" for name, clock in recording.clocks.items()]
    aligned = f"streams are aligned to within {error:g} s; limit {CLOCK_LIMIT_S:g} s"
    return error <= CLOCK_LIMIT_S, "warn", "; ".join([aligned, *told])


def _clock_rate(recording: Recording) -> Verdict:
    found = disagreements(recording.provenance.notes)
    said = [f"{d.stated_hz:g} Hz is stated, {d.measured_hz:g} Hz measured by {d.clock}: {d.then}" for d in found]
    return not found, "warn", "; ".join(said) or "no time stamp contradicts a stated rate"
