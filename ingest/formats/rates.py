"""A rate that is stated and one that time stamps give, where they disagree: how readers note it and checks find it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

CLOCKS_AGREE = 0.01  # share by which a device's clock may differ from the stated rate
_NOTE = re.compile(
    r"clocks disagree: (?P<stated>\S+) Hz stated, (?P<measured>\S+) Hz by (?P<clock>[^;]+); (?P<then>.+)"
)


@dataclass(frozen=True)
class Disagreement:
    """Two rates for one signal.

    Args:
        stated_hz: by a header or a sidecar.
        measured_hz: by the steps of time stamps.
        clock: whose time stamps they are.
        then: which one was kept and what follows.
    """

    stated_hz: float
    measured_hz: float
    clock: str
    then: str

    def note(self) -> str:
        """The sentence that a reader leaves in a recording's notes."""
        return f"clocks disagree: {self.stated_hz:g} Hz stated, {self.measured_hz:.4g} Hz by {self.clock}; {self.then}"


def differ(stated_hz: float, measured_hz: float) -> bool:
    """Whether two rates are further apart than clocks drift."""
    return measured_hz > 0 and abs(stated_hz / measured_hz - 1) > CLOCKS_AGREE


def disagreements(notes: Iterable[str]) -> list[Disagreement]:
    """The disagreements that a reader noted."""
    found = [match for note in notes if (match := _NOTE.fullmatch(note))]
    return [Disagreement(float(m["stated"]), float(m["measured"]), m["clock"], m["then"]) for m in found]
