"""Observation models of the simulator: what electrodes, cameras and clocks make of the latents."""

from __future__ import annotations

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.ingest.simulate_latents import STEP_S, rng
from neurofmx.ingest.simulate_spec import SimSpec

LFP_HZ, EEG_HZ, CALCIUM_HZ = 500.0, 250.0, 30.0
FIELD_BANDS_HZ = ((6.0, 10.0), (18.0, 28.0), (40.0, 80.0))
CALCIUM_DECAY_S, CALCIUM_STEP, CALCIUM_NOISE = 0.5, 0.4, 0.2
MAX_RATE_HZ = 200.0
PULSE_S = 2.0  # distance of the synchronisation pulses
CLOCK_OFFSET_S = 0.25


def unit_regions(n_units: int) -> np.ndarray:
    """(U,) 0 for region A, 1 for region B: the first half of the units is in A."""
    return (np.arange(n_units) >= (n_units + 1) // 2).astype(int)


def loadings(spec: SimSpec, k: int) -> tuple[np.ndarray, np.ndarray]:
    """How units read the latents of their own region: (2, U, K) loadings at the ends of the drift, (U,) base rates.

    The loading at a share s of the session is cos(s drift) first + sin(s drift) second.
    """
    own = rng(spec.seed, "loadings")
    at = unit_regions(spec.n_units)
    sees = (np.arange(k)[None, :] >= k // 2) == (at[:, None] == 1)
    pair = own.standard_normal((2, spec.n_units, k)) * sees
    pair = spec.gain * pair / np.linalg.norm(pair, axis=2, keepdims=True)
    return pair, spec.rate_hz * np.exp(0.5 * own.standard_normal(spec.n_units) - 0.125)


def unit_rates(spec: SimSpec, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Firing rates of all units.

    Args:
        spec: gain, link, drift and dropout.
        latents: (T, K).

    Returns:
        rates (T, U) in Hz, and (U,) seconds after which a unit is lost (inf where it never is).

    Raises:
        ConfigError: an unknown link.
    """
    pair, base = loadings(spec, latents.shape[1])
    turn = np.deg2rad(spec.drift_deg) * np.linspace(0, 1, len(latents))[:, None]
    drive = latents @ pair[0].T
    if spec.drift_deg:
        drive = drive * np.cos(turn) + (latents @ pair[1].T) * np.sin(turn)
    if spec.link == "exp":
        rates = base * np.exp(drive - 0.5 * spec.gain**2)
    elif spec.link == "tanh":  # odd about the base rate, so that no product of latents is linear in the rates
        rates = base * (1 + np.tanh(drive))
    else:
        raise ConfigError("link of a simulation", got=spec.link, expected="exp or tanh")
    own = rng(spec.seed, "dropout")
    lost = own.random(spec.n_units) < spec.dropout
    lost_s = np.where(lost, own.uniform(0.3, 0.9, spec.n_units) * spec.duration_s, np.inf)
    times = (np.arange(len(latents)) + 0.5) * STEP_S
    if lost.any():
        rates = np.where(times[:, None] < lost_s, rates, 0.0)
    return np.minimum(rates, MAX_RATE_HZ), lost_s


def spike_trains(spec: SimSpec, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws Poisson spikes: (N,) ascending session seconds and (N,) int32 units."""
    own = rng(spec.seed, "spikes")
    counts = own.poisson(rates * STEP_S)
    step, unit = np.nonzero(counts)
    many = counts[step, unit]
    step, unit = np.repeat(step, many), np.repeat(unit, many)
    times = (step + own.random(len(step))) * STEP_S
    order = np.argsort(times, kind="stable")
    return times[order], unit[order].astype(np.int32)


def behaviour_path(spec: SimSpec, latents: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """What behaviour would be without noise, (T, 2).

    ``linear``: the projection on the plane. ``product``: the projection of region A times that of region B,
    dimension by dimension, which no linear function of either region holds. ``memory_s`` then integrates
    with a leak of that time constant; the result of ``product`` is scaled to unit variance.

    Raises:
        ConfigError: an unknown behaviour.
    """
    from scipy.signal import lfilter

    if spec.behaviour == "linear":
        path = latents @ plane
    elif spec.behaviour == "product":
        half = latents.shape[1] // 2
        a, b = plane[:half], plane[half:]
        path = (latents[:, :half] @ (a / np.linalg.norm(a, axis=0))) * (
            latents[:, half:] @ (b / np.linalg.norm(b, axis=0))
        )
    else:
        raise ConfigError("behaviour of a simulation", got=spec.behaviour, expected="linear or product")
    if spec.memory_s > 0:
        keep = np.exp(-STEP_S / spec.memory_s)
        path = np.asarray(lfilter([1 - keep], [1.0, -keep], path, axis=0))
    if spec.behaviour == "product":
        path = (path - path.mean(axis=0)) / path.std(axis=0)
    return path


def field_potential(spec: SimSpec, latents: np.ndarray, *, name: str, n_channels: int, rate_hz: float) -> np.ndarray:
    """Band-limited noise whose amplitude follows the latents, mixed into channels, plus 1/f noise.

    Args:
        spec: the session.
        latents: (T, K) every ``STEP_S``.
        name: ``lfp`` (the first half of the channels sees region A, the rest region B) or ``eeg`` (every
            channel sees both, through a smooth random lead field).
        n_channels: number of channels C.
        rate_hz: sampling rate.

    Returns:
        (N, C) float32 microvolts.
    """
    from scipy.signal import butter, lfilter, sosfilt

    own, law = rng(spec.seed, name), rng(spec.law_seed, f"{name} amplitude")
    n, k = round(spec.duration_s * rate_hz), latents.shape[1]
    times, steps = np.arange(n) / rate_hz, (np.arange(len(latents)) + 0.5) * STEP_S
    sources = []
    for region in range(2):
        mine = slice(region * k // 2, (region + 1) * k // 2)
        for lo, hi in FIELD_BANDS_HZ:
            weight = law.standard_normal(k // 2)
            depth = 0.7 * latents[:, mine] @ (weight / np.linalg.norm(weight))
            band = butter(2, [lo, hi], "bandpass", fs=rate_hz, output="sos")
            carrier = np.asarray(sosfilt(band, own.standard_normal(n)))
            sources.append(np.exp(np.interp(times, steps, depth)) * carrier / carrier.std())
    mixing = 0.5 + own.random((len(sources), n_channels))
    if name == "lfp":
        mixing *= (np.arange(n_channels) >= (n_channels + 1) // 2) == (np.arange(len(sources))[:, None] >= 3)
    else:
        place = (np.arange(n_channels) - own.uniform(0, n_channels, (len(sources), 1))) / (0.3 * n_channels)
        mixing *= np.exp(-0.5 * place**2)
    pink = np.asarray(lfilter([1.0], [1.0, -0.98], own.standard_normal((n, n_channels)), axis=0))
    return (20.0 * (np.stack(sources, axis=1) @ mixing) + 4.0 * pink).astype(np.float32)


def calcium_traces(spec: SimSpec, times_s: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Fluorescence of the first ``calcium_cells`` units: spikes through an exponential decay, plus noise.

    The first-order model of Vogelstein et al. (2010), J Neurophysiol 104:3691.

    Returns:
        (N, cells) float32 dF/F at `CALCIUM_HZ`.
    """
    from scipy.signal import lfilter

    n, cells = round(spec.duration_s * CALCIUM_HZ), spec.calcium_cells
    frame = (times_s * CALCIUM_HZ).astype(int)
    keep = (units < cells) & (frame < n)
    counts = np.bincount(frame[keep] * cells + units[keep], minlength=n * cells).reshape(n, cells)
    traces = lfilter([CALCIUM_STEP], [1.0, -np.exp(-1 / (CALCIUM_HZ * CALCIUM_DECAY_S))], counts, axis=0)
    return (traces + CALCIUM_NOISE * rng(spec.seed, "calcium").standard_normal((n, cells))).astype(np.float32)


def gap_spans(spec: SimSpec) -> np.ndarray:
    """(G, 2) seconds in which the neural recorder paused, one in each of G equal parts of the session."""
    own, part = rng(spec.seed, "gaps"), spec.duration_s / max(spec.n_gaps, 1)
    if spec.n_gaps and spec.gap_s >= part / 2:
        raise ConfigError("gaps of a simulation", got=f"{spec.gap_s} s", expected=f"less than {part / 2:g} s")
    start = (np.arange(spec.n_gaps) + own.uniform(0.25, 0.75, spec.n_gaps)) * part - spec.gap_s / 2
    return np.stack([start, start + spec.gap_s], axis=1)


def device_clock(spec: SimSpec, session_s: np.ndarray) -> np.ndarray:
    """What the spike recorder's own clock says at session times."""
    session = np.asarray(session_s, np.float64)
    turned = spec.clock_turn_ppm * 1e-6 * np.maximum(session - spec.duration_s / 2, 0.0)
    jumped = spec.clock_reset_s * (session >= reset_time(spec))
    return (session + CLOCK_OFFSET_S) * (1 + spec.clock_ppm * 1e-6) + turned + jumped


def reset_time(spec: SimSpec) -> float:
    """Session time at which the spike recorder's clock jumps, if it does."""
    return spec.duration_s * 2 / 3


def sync_pulses(spec: SimSpec) -> tuple[np.ndarray, np.ndarray]:
    """Pulses seen on both clocks: (N,) device seconds, with jitter, and (M,) session seconds, both ascending.

    Pulses come at uneven distances, as synchronisers send them, so that trains can be told apart; each side loses
    some and sees false ones where the spec says so.
    """
    own = rng(spec.seed, "pulses")
    steps = PULSE_S * own.uniform(0.75, 1.25, round(spec.duration_s / PULSE_S / 0.75))
    sent = np.cumsum(steps) - steps[0]
    sent = sent[sent < spec.duration_s]
    device = device_clock(spec, sent) + spec.clock_jitter_s * own.standard_normal(len(sent))
    if not spec.pulse_faults:
        return np.sort(device), sent
    faulty = rng(spec.seed, "pulse faults")
    seen = []
    for times in (device, sent):
        kept = times[faulty.random(len(times)) >= spec.pulse_faults]
        false = faulty.uniform(times.min(), times.max(), round(spec.pulse_faults * len(times)))
        seen.append(np.sort(np.concatenate([kept, false])))
    return seen[0], seen[1]
