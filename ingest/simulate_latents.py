"""Latent dynamics with known laws: Lorenz systems, damped oscillators, a low-rank network that switches regime.

Every system gives a path of two regions, A and B, sampled every `STEP_S`. The laws come from one seed that
all sessions of a dataset share; initial state and noise come from the session's own seed.
"""

from __future__ import annotations

import hashlib

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.ingest.simulate_spec import SimSpec

STEP_S = 0.01
BURN_IN = 1000  # steps thrown away, so that paths start on the attractor
# long-run mean and standard deviation of x, y, z at sigma 10, rho 28, beta 8/3, over 10,000 time units
LORENZ_MEAN, LORENZ_STD = np.array([0.0, 0.0, 23.55]), np.array([7.92, 9.01, 8.62])
DIMENSIONS = {"lorenz": 3, "linear": 4, "switching": 2}
HIDDEN = 64  # units of the low-rank network
GAIN, TURN_DEG, TAU_S, DWELL_S = 2.0, 40.0, 0.1, 4.0
KAPPA_STD = 0.72  # long-run standard deviation of the network's latents at these settings


def rng(seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, so that adding a stream changes no other."""
    word = int.from_bytes(hashlib.sha256(f"{seed}|{purpose}".encode()).digest()[:16], "big")
    return np.random.Generator(np.random.PCG64(word))


def latent_path(spec: SimSpec) -> tuple[np.ndarray, np.ndarray]:
    """The latents of a session, standardised.

    Args:
        spec: which system, how fast, how strongly region A drives region B, and for how long.

    Returns:
        latents (T, K) float64, region A's dimensions first, and regime (T, 2) int8 of each region (0 unless
        the system switches).

    Raises:
        ConfigError: no such system.
    """
    systems = {"lorenz": _lorenz_region, "linear": _linear_region, "switching": _switching_region}
    if spec.latent not in systems:
        raise ConfigError("latent system of a simulation", got=spec.latent, expected=f"one of {sorted(systems)}")
    steps = round(spec.duration_s / STEP_S)
    lag = round(spec.coupling_lag_s / STEP_S)
    (a, regime_a), (b, regime_b) = (systems[spec.latent](spec, region, steps + lag) for region in "AB")
    driven = np.sqrt(1 - spec.coupling**2) * b[lag:] + spec.coupling * a[: len(a) - lag]
    return np.concatenate([a[lag:], driven], axis=1), np.stack([regime_a[lag:], regime_b[lag:]], axis=1)


def readout(spec: SimSpec) -> np.ndarray:
    """The plane of latent space that behaviour reads, (K, 2) with orthonormal columns.

    At ``relatedness_deg`` 0 it is the plane of the law; at an angle both principal angles to that plane
    are that angle, so two sessions differ by the difference of their angles.
    """
    k = 2 * DIMENSIONS[spec.latent]
    basis, _ = np.linalg.qr(rng(spec.law_seed, "readout").standard_normal((k, 4)))
    angle = np.deg2rad(spec.relatedness_deg)
    return basis[:, :2] * np.cos(angle) + basis[:, 2:] * np.sin(angle)


def lorenz(state: tuple[float, float, float], steps: int, step: float) -> np.ndarray:
    """Integrates Lorenz's system (sigma 10, rho 28, beta 8/3) by fourth-order Runge-Kutta.

    Lorenz (1963), J Atmos Sci 20:130.

    Args:
        state: x, y, z at the start.
        steps: number of steps.
        step: length of a step in time units of the system.

    Returns:
        (steps, 3) float64, the state after each step.
    """
    x, y, z = state
    half, beta, out = step / 2, 8.0 / 3.0, []
    for _ in range(steps):  # plain floats: five times faster than small arrays
        kx1, ky1, kz1 = 10.0 * (y - x), x * (28.0 - z) - y, x * y - beta * z
        a, b, c = x + half * kx1, y + half * ky1, z + half * kz1
        kx2, ky2, kz2 = 10.0 * (b - a), a * (28.0 - c) - b, a * b - beta * c
        a, b, c = x + half * kx2, y + half * ky2, z + half * kz2
        kx3, ky3, kz3 = 10.0 * (b - a), a * (28.0 - c) - b, a * b - beta * c
        a, b, c = x + step * kx3, y + step * ky3, z + step * kz3
        kx4, ky4, kz4 = 10.0 * (b - a), a * (28.0 - c) - b, a * b - beta * c
        x += step / 6 * (kx1 + 2 * kx2 + 2 * kx3 + kx4)
        y += step / 6 * (ky1 + 2 * ky2 + 2 * ky3 + ky4)
        z += step / 6 * (kz1 + 2 * kz2 + 2 * kz3 + kz4)
        out.append((x, y, z))
    return np.array(out).reshape(steps, 3)


def _lorenz_region(spec: SimSpec, region: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    start = LORENZ_MEAN + rng(spec.seed, f"start {region}").standard_normal(3)
    path = lorenz((float(start[0]), float(start[1]), float(start[2])), steps + BURN_IN, STEP_S * spec.speed)
    return (path[BURN_IN:] - LORENZ_MEAN) / LORENZ_STD, np.zeros(steps, np.int8)


def _linear_region(spec: SimSpec, region: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Two damped oscillators driven by white noise: each is one complex pole, of unit variance a part."""
    from scipy.signal import lfilter

    law, own = rng(spec.law_seed, f"oscillators {region}"), rng(spec.seed, f"noise {region}")
    parts = []
    for hz in np.sort(law.uniform(0.3, 0.9, 2)) * spec.speed:
        pole = np.exp((-spec.speed + 2j * np.pi * hz) * STEP_S)  # decays in 1 s at speed 1
        noise = own.standard_normal((steps + BURN_IN, 2)) @ np.array([1.0, 1j])
        mode = np.asarray(lfilter([np.sqrt(1 - np.abs(pole) ** 2)], [1.0, -pole], noise))[BURN_IN:]
        parts += [np.real(mode), np.imag(mode)]
    return np.stack(parts, axis=1), np.zeros(steps, np.int8)


def _switching_region(spec: SimSpec, region: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """A rank-two network whose limit cycle turns one way or the other, by a hidden two-state Markov chain.

    The network of Mastrogiuseppe and Ostojic (2018), Neuron 99:609, in its two latent variables
    kappa: tau dkappa/dt = -kappa + n^T tanh(m kappa) / H, with n turned by +40 or -40 degrees against m.
    """
    law, own = rng(spec.law_seed, f"network {region}"), rng(spec.seed, f"noise {region}")
    m, _ = np.linalg.qr(law.standard_normal((HIDDEN, 2)))
    m = m * np.sqrt(HIDDEN)
    turn = np.deg2rad(TURN_DEG)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    n = [GAIN * (m @ spin.T).T / HIDDEN, GAIN * (m @ spin).T / HIDDEN]
    coarse = 2  # integrated every 20 ms, read off every 10 ms
    total = -(-(steps + BURN_IN) // coarse) + 1
    share = STEP_S * coarse * spec.speed / TAU_S
    noise = own.standard_normal((total, 2)) * 0.1 * np.sqrt(share)
    regime = (np.cumsum(own.random(total) < STEP_S * coarse * spec.speed / DWELL_S) % 2).astype(np.int8)
    kappa, path = own.standard_normal(2), np.empty((total, 2))
    for i in range(total):
        kappa = kappa + share * (n[regime[i]] @ np.tanh(m @ kappa) - kappa) + noise[i]
        path[i] = kappa
    at = np.arange(steps + BURN_IN) / coarse
    fine = np.stack([np.interp(at, np.arange(total), path[:, d]) for d in range(2)], axis=1)
    return fine[BURN_IN:] / KAPPA_STD, regime[at.astype(int)][BURN_IN:]
