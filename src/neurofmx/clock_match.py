"""Finds which pulse of one clock is which pulse of the other, though either may have lost some and seen others.

A block of device pulses is laid over the session's at the shift at which most of them meet; from there pulses
are followed one by one, and where several in turn find no partner the block is laid anew: the device was reset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from neurofmx.clock import ClockMap
from neurofmx.clock_fit import LEAST, fit_clock
from neurofmx.errors import ConfigError

BLOCKS = (24, 96)  # pulses of a block: the longer one where the shorter fits in several places
MEET = 0.4  # share of a block that must find partners
RIVAL = 0.8  # a shift that this share of the best one's pulses meet at is as good
PATIENCE = 12  # pulses of which so few find partners that the block is laid anew
MEMORY, NEAR = 64, 8  # matches from which the rate and the shift at a pulse are foretold


@dataclass(frozen=True)
class _Trains:
    """Ascending pulse times and codes of both clocks, and how far from each other they may be."""

    device: np.ndarray
    session: np.ndarray
    device_codes: np.ndarray
    session_codes: np.ndarray
    jitter_s: float
    rate_error: float

    @cached_property
    def rows_of(self) -> dict[object, np.ndarray]:
        """Code -> rows of the session's pulses that have it."""
        return {code: np.flatnonzero(self.session_codes == code) for code in np.unique(self.session_codes).tolist()}

    def partner(self, row: int, wanted_s: float, within_s: float) -> int | None:
        """The session's pulse of the same code that is nearest to a time, if it is near enough."""
        rows = self.rows_of.get(self.device_codes[row].item())
        if rows is None:
            return None
        times = self.session[rows]
        at = int(np.searchsorted(times, wanted_s))
        best = min((i for i in (at - 1, at) if 0 <= i < len(rows)), key=lambda i: abs(times[i] - wanted_s))
        return int(rows[best]) if abs(times[best] - wanted_s) <= within_s else None


def sync_clock(
    device_s: np.ndarray,
    session_s: np.ndarray,
    *,
    device_codes: np.ndarray | None = None,
    session_codes: np.ndarray | None = None,
    shift_s: float | None = None,
    jitter_s: float = 2e-3,
    max_ppm: float = 500.0,
    breaks_s: np.ndarray | None = None,
) -> ClockMap:
    """The map of a device from pulses, or from coded events, that both clocks saw; trains need not be of one length.

    Args:
        device_s: (N,) pulse times on the device, ascending (`clock.unroll` makes them so over resets).
        session_s: (M,) pulse times on the session clock.
        device_codes: (N,) what each event was; only events of one code are partners. None for plain pulses.
        session_codes: (M,) likewise.
        shift_s: about session time less device time at the first pulses, needed only where evenly spaced pulses
            fit at several shifts; the nearest is taken.
        jitter_s: how far a pulse may be seen from where it was.
        max_ppm: how far the device's rate may be off.
        breaks_s: as in `clock_fit.fit_clock`.

    Returns:
        The map; ``n_set_aside`` counts pulses of either clock that were not used.

    Raises:
        ConfigError: too few pulses find a partner, or they fit at several shifts.
    """
    device, session, codes = np.asarray(device_s, np.float64), np.asarray(session_s, np.float64), device_codes
    if (codes is None) != (session_codes is None):
        raise ConfigError("codes of shared events", got="codes on one clock", expected="codes on both, or on neither")
    trains = _Trains(
        device=device,
        session=session,
        device_codes=np.zeros(device.size, np.int64) if codes is None else np.asarray(codes),
        session_codes=np.zeros(session.size, np.int64) if session_codes is None else np.asarray(session_codes),
        jitter_s=jitter_s,
        rate_error=max_ppm * 1e-6,
    )
    if np.any(np.diff(device) < 0) or np.any(np.diff(session) < 0):
        raise ConfigError("sync pulses", got="times that go back", expected="ascending times", fix="Use clock.unroll.")
    rows, partners = _followed(trains, shift_s)
    first = fit_clock(device[rows], session[partners], breaks_s=breaks_s)
    # with a map in hand a pulse that stands near another can be told from it, and those before the first block found
    rows, partners = _mutual(trains, first.apply(device), min(jitter_s, max(4 * first.error_s, 1e-6)))
    clock = fit_clock(device[rows], session[partners], breaks_s=breaks_s)
    return replace(clock, n_set_aside=int(device.size + session.size - 2 * clock.n_pulses))


def _followed(trains: _Trains, shift_s: float | None) -> tuple[np.ndarray, np.ndarray]:
    """(P,) rows of the device's pulses and (P,) rows of the session's that are their partners, both ascending."""
    device, row = trains.device, 0
    rows: list[int] = []
    partners: list[int] = []
    met: list[bool] = []
    laid, since = _laid(trains, row, -np.inf, shift_s), 0
    while laid is None and row < device.size:
        row += BLOCKS[0] // 2
        laid = _laid(trains, row, -np.inf, shift_s)
    laid_at = row
    line, counted = (0.0, 0.0, 0.0, 0.0), -NEAR
    while laid is not None and row < device.size:
        if len(rows) - counted >= NEAR // 2:
            seen = slice(max(since, len(rows) - MEMORY), None)
            times = device[rows[seen]]
            line = _line(trains, *((times, trains.session[partners[seen]] - times) if len(times) else laid[:, None]))
            counted = len(rows)
        about_s, last_s, rate, unsure = line
        since_s = device[row] - about_s
        ahead_s, within_s = last_s + rate * since_s, trains.jitter_s + unsure * abs(since_s)
        partner = trains.partner(row, device[row] + ahead_s, within_s)
        met.append(partner is not None and (not partners or partner > partners[-1]))
        if partner is not None and met[-1]:
            rows.append(row)
            partners.append(partner)
        row += 1
        if len(met) >= PATIENCE and sum(met[-PATIENCE:]) < PATIENCE * MEET:
            lost = row - PATIENCE
            sure = int(np.searchsorted(rows, lost))  # the few that met since then may have done so by chance
            rows, partners, met, counted, since = rows[:sure], partners[:sure], [], -NEAR, min(since, sure)
            anew = _laid(trains, lost, float(trains.session[partners[-1]]) if partners else -np.inf, None)
            if anew is None or lost <= laid_at:
                continue
            if abs(anew[1] - ahead_s) > within_s + trains.rate_error * abs(anew[0] - device[row - 1]):
                row, laid, laid_at, since = lost, anew, lost, sure
    least = max(LEAST, MEET / 2 * min(device.size, trains.session.size))
    if len(rows) < least:
        raise ConfigError(
            "sync pulses", got=f"{len(rows)} partners among {device.size} and {trains.session.size}",
            expected=f"at least {least:.0f} that fit at one shift only",
            fix="Evenly spaced pulses need shift_s; else check that both clocks saw the same line.",
        )  # fmt: skip
    return np.array(rows), np.array(partners)


def _line(trains: _Trains, times_s: np.ndarray, ahead_s: np.ndarray) -> tuple[float, float, float, float]:
    """Where the next pulses are looked for, from matches before them.

    Returns:
        a device time, session less device time there, how fast that changes, and how far that rate may be off.
    """
    about, last = float(np.median(times_s[-NEAR:])), float(np.median(ahead_s[-NEAR:]))
    span = about - float(np.median(times_s[:NEAR]))
    unsure = min(trains.rate_error, trains.jitter_s / span) if span > 0 else trains.rate_error
    rate = (last - float(np.median(ahead_s[:NEAR]))) / span if unsure < trains.rate_error else 0.0
    return about, last, rate, unsure


def _laid(trains: _Trains, row: int, after_s: float, shift_s: float | None) -> np.ndarray | None:
    """Lays a block of device pulses over the session's pulses after a time.

    Returns:
        (2,) the device time of the middle of those that meet, and session less device time there; None where too
        few meet, or as many meet at another shift and no rough shift was given to choose by.
    """
    for size in BLOCKS:
        block = slice(row, row + size)
        times, codes = trains.device[block], trains.device_codes[block]
        later = int(np.searchsorted(trains.session, after_s, side="right"))
        met, partner = np.nonzero(codes[:, None] == trains.session_codes[None, later:])
        ahead = trains.session[later:][partner] - times[met]
        if not ahead.size:
            return None
        order = np.argsort(ahead, kind="stable")
        met, ahead = met[order], ahead[order]
        width = 2 * trains.jitter_s + trains.rate_error * (times[-1] - times[0])
        stop = np.searchsorted(ahead, ahead + width, side="right")
        count = stop - np.arange(ahead.size)
        best = int(np.argmax(count))
        if count[best] < max(LEAST, MEET * len(times)):
            return None
        # the best place, and every other that mostly the same pulses would fit as well: only a rough shift can choose
        own = set(met[best : stop[best]].tolist())
        as_good = np.flatnonzero((count >= RIVAL * count[best]) & (np.abs(ahead - ahead[best]) > width))
        if shift_s is not None:
            as_good = as_good[np.argsort(np.abs(ahead[as_good] - shift_s), kind="stable")]
        rival = next((i for i in as_good if len(own.intersection(met[i : stop[i]].tolist())) > len(own) / 2), None)
        if rival is not None and shift_s is None:
            continue
        if rival is not None and abs(ahead[rival] - shift_s) < abs(ahead[best] - shift_s):
            near = np.flatnonzero(np.abs(ahead - ahead[rival]) <= width)
            best = int(near[np.argmax(count[near])])
        chosen = slice(best, stop[best])
        return np.array([np.median(times[met[chosen]]), np.median(ahead[chosen])])
    return None


def _mutual(trains: _Trains, foretold_s: np.ndarray, within_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of pulses that are each other's nearest of their code, and near enough."""
    pairs = []
    for code, theirs in trains.rows_of.items():
        mine = np.flatnonzero(trains.device_codes == code)
        mine = mine[np.argsort(foretold_s[mine], kind="stable")]
        if not mine.size:
            continue
        there = _nearest(trains.session[theirs], foretold_s[mine])
        back = _nearest(foretold_s[mine], trains.session[theirs])
        near = np.abs(trains.session[theirs[there]] - foretold_s[mine]) <= within_s
        chosen = np.flatnonzero(near & (back[there] == np.arange(mine.size)))
        pairs.append(np.stack([mine[chosen], theirs[there[chosen]]]))
    rows, partners = np.concatenate(pairs, axis=1)
    order = np.argsort(rows)
    return rows[order], partners[order]


def _nearest(times_s: np.ndarray, wanted_s: np.ndarray) -> np.ndarray:
    """Row of the nearest of some ascending times to each wanted one."""
    after = np.clip(np.searchsorted(times_s, wanted_s), 1, max(times_s.size - 1, 1))
    before, after = after - 1, np.minimum(after, times_s.size - 1)
    return np.where(wanted_s - times_s[before] <= times_s[after] - wanted_s, before, after)
