"""Device clocks mapped to the session clock: affine pieces with a stated error.

A map comes from pulses or events that both clocks saw (`clock_match`, `clock_fit`), or from what a file states
of rates and starts (`nominal_clock`). `align` applies it to streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from neurofmx.errors import ConfigError

# a device clock that starts anew goes on from the next multiple: no device counts 12 days, and a power of two
# leaves a time of that size exact to a quarter of a nanosecond
EPOCH_S = 2.0**20
QUANTILES = (0.5, 0.95, 0.999, 1.0)


def _none() -> np.ndarray:
    return np.empty((0, 2))


@dataclass(frozen=True, kw_only=True)
class ClockMap:
    """Maps device seconds to session seconds by affine pieces.

    Args:
        start_s: (K,) device time at which each piece begins, ascending; the first piece also holds before it.
        slope: (K,) session seconds per device second.
        offset_s: (K,) session time of a piece is ``slope * device + offset``.
        error_s: stated error: the 95th percentile of the absolute residual of the pulses that were used.
        quantiles_s: (4,) the 50th, 95th and 99.9th percentile and the largest of those residuals.
        n_pulses: pulses used; 0 for a map that was stated, not fitted.
        n_set_aside: pulses seen on either clock and not used: without a partner, or far from the map.
        resets_s: (R, 2) device seconds, from the last pulse before a reset to the first after it: where in
            between the clock jumped is not known. Both are the same where it is.
    """

    start_s: np.ndarray
    slope: np.ndarray
    offset_s: np.ndarray
    error_s: float
    quantiles_s: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    n_pulses: int = 0
    n_set_aside: int = 0
    resets_s: np.ndarray = field(default_factory=_none)

    def apply(self, device_s: np.ndarray, *, closing: bool = False) -> np.ndarray:
        """Session seconds of device seconds, float64, same shape; the identity changes no bit.

        Args:
            device_s: any shape.
            closing: a time on the border of two pieces belongs to the one that ends there.
        """
        device = np.asarray(device_s, dtype=np.float64)
        if self.is_identity:
            return device.copy()
        side = "left" if closing else "right"
        piece = np.clip(np.searchsorted(self.start_s, device, side=side) - 1, 0, len(self.slope) - 1)
        return self.slope[piece] * device + self.offset_s[piece]

    @property
    def is_identity(self) -> bool:
        """Whether the device is the session clock itself."""
        return bool(np.all(self.slope == 1.0) and np.all(self.offset_s == 0.0))

    @property
    def drift_ppm(self) -> np.ndarray:
        """(K,) rate difference of each piece in parts per million."""
        return (self.slope - 1.0) * 1e6

    @property
    def worst_ppm(self) -> float:
        """The drift of the piece that runs farthest from the session clock's rate."""
        return float(self.drift_ppm[np.argmax(np.abs(self.drift_ppm))])

    def plain(self) -> dict[str, Any]:
        """The map as JSON types; `from_plain` reads it back bit for bit."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {k: v.tolist() if isinstance(v, np.ndarray) else list(v) if isinstance(v, tuple) else v
                for k, v in values.items()}  # fmt: skip

    @classmethod
    def from_plain(cls, about: Mapping[str, Any]) -> ClockMap:
        """Reads what `plain` wrote."""
        arrays = {k: np.asarray(about[k], np.float64) for k in ("start_s", "slope", "offset_s")}
        resets_s = np.asarray(about["resets_s"], np.float64).reshape(-1, 2)
        return cls(
            **arrays, resets_s=resets_s, quantiles_s=tuple(about["quantiles_s"]), error_s=about["error_s"],
            n_pulses=about["n_pulses"], n_set_aside=about["n_set_aside"],
        )  # fmt: skip

    def sentence(self) -> str:
        """The map in words, for a person."""
        pulses = f"{self.n_pulses} pulses, {self.n_set_aside} set aside" if self.n_pulses else "stated, not measured"
        pieces = f", {len(self.slope)} pieces" if len(self.slope) > 1 else ""
        resets = f", {len(self.resets_s)} resets" if len(self.resets_s) else ""
        return f"drift {self.worst_ppm:+.3g} ppm, error {self.error_s:.3g} s ({pulses}{pieces}{resets})"


def identity(error_s: float = 0.0) -> ClockMap:
    """The map of a device that is the session clock itself."""
    return ClockMap(start_s=np.zeros(1), slope=np.ones(1), offset_s=np.zeros(1), error_s=error_s)


def nominal_clock(
    start_s: float, *, start_error_s: float, duration_s: float, rate_hz: float = 1.0, rate_error_hz: float = 0.0
) -> ClockMap:
    """The map of a device of which only the start and the nominal rate are known.

    The error is what the stated precision allows at the end of the recording: half of the last digit of the
    start, and the rate's share of error over the whole duration.

    Args:
        start_s: session time of device time 0.
        start_error_s: how exactly the start is stated.
        duration_s: how long the device recorded.
        rate_hz: nominal rate; device seconds are samples over this rate.
        rate_error_hz: how exactly the rate is stated.

    Raises:
        ConfigError: a negative error or duration, or no rate.
    """
    if rate_hz <= 0 or min(start_error_s, duration_s, rate_error_hz) < 0:
        raise ConfigError(
            "nominal clock",
            got=f"rate {rate_hz:g} +- {rate_error_hz:g} Hz, start +- {start_error_s:g} s, {duration_s:g} s long",
            expected="a positive rate, and errors and duration from 0 up",
        )
    error_s = start_error_s + duration_s * rate_error_hz / rate_hz
    return ClockMap(
        start_s=np.zeros(1), slope=np.ones(1), offset_s=np.array([float(start_s)]), error_s=error_s,
        quantiles_s=(error_s,) * len(QUANTILES),
    )  # fmt: skip


def unroll(device_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Device times in the order in which they were written, made ascending over resets to an earlier time.

    Each step back begins the next multiple of `EPOCH_S`, so that pulses and samples of one device, unrolled
    apart, still agree.

    Args:
        device_s: (N,) seconds in the order of writing.

    Returns:
        (N,) ascending seconds, and the (R,) device times of the resets, as `clock_fit.fit_clock` takes them.
    """
    device = np.asarray(device_s, dtype=np.float64)
    epoch = np.concatenate([[0], np.cumsum(np.diff(device) < 0)]) if device.size else np.empty(0)
    return device + epoch * EPOCH_S, EPOCH_S * np.arange(1, (int(epoch[-1]) if device.size else 0) + 1)
