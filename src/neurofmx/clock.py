"""Device clocks mapped to the session clock: affine pieces with a stated error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neurofmx.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ClockMap:
    """Maps device seconds to session seconds by affine pieces.

    Args:
        start_s: (K,) device time at which each piece begins, ascending.
        slope: (K,) session seconds per device second.
        offset_s: (K,) session time of a piece is ``slope * device + offset``.
        error_s: 95th percentile of the absolute residual of the pulses it was fitted to.
        n_pulses: pulses used; 0 for a map that was stated, not fitted.
    """

    start_s: np.ndarray
    slope: np.ndarray
    offset_s: np.ndarray
    error_s: float
    n_pulses: int = 0

    def apply(self, device_s: np.ndarray) -> np.ndarray:
        """Session seconds of device seconds, float64, same shape."""
        device = np.asarray(device_s, dtype=np.float64)
        piece = np.clip(np.searchsorted(self.start_s, device, side="right") - 1, 0, len(self.slope) - 1)
        return self.slope[piece] * device + self.offset_s[piece]

    @property
    def drift_ppm(self) -> np.ndarray:
        """(K,) rate difference of each piece in parts per million."""
        return (self.slope - 1.0) * 1e6


def identity(error_s: float = 0.0) -> ClockMap:
    """The map of a device that is the session clock itself."""
    return ClockMap(start_s=np.zeros(1), slope=np.ones(1), offset_s=np.zeros(1), error_s=error_s)


def fit_clock(device_s: np.ndarray, session_s: np.ndarray, *, breaks_s: np.ndarray | None = None) -> ClockMap:
    """Fits affine pieces to pulses seen on both clocks, robust to a minority of bad pulses.

    Least squares after two rounds in which pulses beyond five median absolute deviations are set aside
    (iteratively trimmed least squares).

    Args:
        device_s: (N,) pulse times on the device.
        session_s: (N,) the same pulses on the session clock.
        breaks_s: device times at which the device's clock was reset, or None.

    Raises:
        ConfigError: fewer than two pulses in a piece, or unequal counts.
    """
    device, session = np.asarray(device_s, np.float64), np.asarray(session_s, np.float64)
    if device.shape != session.shape:
        raise ConfigError("sync pulses", got=f"{device.size} against {session.size}", expected="as many on both clocks")
    edges = np.concatenate([[-np.inf], np.sort(np.asarray([] if breaks_s is None else breaks_s, np.float64)), [np.inf]])
    starts, slopes, offsets, residuals = [], [], [], []
    for lo, hi in zip(edges, edges[1:]):
        inside = (device >= lo) & (device < hi)
        d, s = device[inside], session[inside]
        if d.size < 2:
            raise ConfigError("sync pulses of a clock piece", got=int(d.size), expected="at least 2")
        keep = np.ones(d.size, bool)
        slope, offset = 1.0, 0.0
        for _ in range(3):
            centre = d[keep].mean()  # centred, so that large times do not cost precision
            slope, height = np.polyfit(d[keep] - centre, s[keep], 1)
            offset = height - slope * centre
            residual = s - (slope * d + offset)
            aside = np.abs(residual - np.median(residual))
            keep = aside <= max(5 * 1.4826 * float(np.median(aside)), 1e-9)
        starts.append(lo)
        slopes.append(slope)
        offsets.append(offset)
        residuals.append(np.abs(s - (slope * d + offset))[keep])
    return ClockMap(
        start_s=np.array(starts),
        slope=np.array(slopes),
        offset_s=np.array(offsets),
        error_s=float(np.quantile(np.concatenate(residuals), 0.95)),
        n_pulses=int(device.size),
    )
