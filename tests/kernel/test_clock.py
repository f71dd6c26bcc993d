"""Clock maps: planted skew, drift and jitter are recovered, with an honest error."""

from __future__ import annotations

import numpy as np
import pytest

from neurofmx.clock import fit_clock, identity
from neurofmx.errors import ConfigError


def test_skew_and_drift_are_recovered_under_jitter_and_bad_pulses() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    device = np.arange(0, 3600, 1.0)
    session = device * (1 + 30e-6) + 12.5 + rng.normal(0, 1e-4, device.size)
    session[::50] += 0.3  # pulses matched wrongly
    fitted = fit_clock(device, session)
    assert fitted.drift_ppm[0] == pytest.approx(30, abs=0.1)
    assert np.abs(fitted.apply(device) - (device * (1 + 30e-6) + 12.5)).max() < 1e-4 / 10
    assert 1e-4 < fitted.error_s < 3e-4


def test_a_reset_makes_two_pieces() -> None:
    device = np.concatenate([np.arange(0, 100.0), np.arange(1000, 1100.0)])
    session = np.concatenate([np.arange(0, 100.0) + 5, np.arange(1000, 1100.0) - 800])
    fitted = fit_clock(device, session, breaks_s=np.array([500.0]))
    assert np.allclose(fitted.apply(device), session, atol=1e-9)


def test_identity_changes_nothing_and_too_few_pulses_are_refused() -> None:
    assert identity().apply(np.array([1.25])).tolist() == [1.25]
    with pytest.raises(ConfigError, match="at least 2"):
        fit_clock(np.array([1.0]), np.array([1.0]))
