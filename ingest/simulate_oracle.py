"""What can be known of a simulated session: ceilings with the truth in hand, beside linear decoders without it.

``python -m neurofmx.ingest.simulate_oracle`` prints the table of docs/SIMULATOR.md.
"""

from __future__ import annotations

import numpy as np

from neurofmx.ingest.simulate import SIMULATED, TUNING_SEED, sessions, simulate
from neurofmx.ingest.simulate_latents import DIMENSIONS, STEP_S
from neurofmx.ingest.simulate_observe import behaviour_path, loadings, unit_regions
from neurofmx.ingest.simulate_spec import SimSpec

BIN_S = 0.05
LAGS = 16  # bins of the past that the Wiener filter and the latent decoder see
PENALTIES = (1e0, 1e1, 1e2, 1e3, 1e4)
GUARD = 40  # bins left out on either side of a test block


def oracle_scores(spec: SimSpec, *, n_folds: int = 5) -> dict[str, float]:
    """Cross-validated R2 of behaviour in 50 ms bins, mean over its dimensions.

    Args:
        spec: a session without pauses.
        n_folds: contiguous blocks.

    Returns:
        ``truth``: noise-free behaviour, the ceiling. ``rates``: the law applied to latents solved from the
        true rates. ``spikes``: the law applied to latents regressed from spike counts with the true latents
        as training targets, so it says what the spikes hold. ``wiener`` and ``ridge``: tuned linear
        decoders of behaviour, from lags and from the current bin.
    """
    recording, hidden = simulate(spec)
    per_bin = round(BIN_S / STEP_S)
    n = len(hidden.times_s) // per_bin

    def binned(values: np.ndarray) -> np.ndarray:
        return values[: n * per_bin].reshape(n, per_bin, -1).mean(axis=1)

    seen = binned(np.asarray(recording.streams["behaviour"].values, dtype=np.float64))  # type: ignore[union-attr]
    spikes = recording.streams["spikes"]
    at = (spikes.times_s / BIN_S).astype(int)  # type: ignore[union-attr]
    counts = np.bincount(at * spec.n_units + spikes.codes, minlength=n * spec.n_units)  # type: ignore[union-attr]
    counts = np.sqrt(counts[: n * spec.n_units].reshape(n, spec.n_units).astype(np.float64))
    past = np.concatenate([np.zeros((LAGS - 1, spec.n_units)), counts])
    lagged = np.concatenate([past[LAGS - 1 - lag : LAGS - 1 - lag + n] for lag in range(LAGS)], axis=1)
    fine = _latents_from_rates(spec, hidden.rates_hz)
    decoded = _cross_predict(lagged, binned(hidden.latents), n_folds)
    from_spikes = behaviour_path(spec, np.repeat(decoded, per_bin, axis=0), hidden.readout)
    return {
        "truth": _r2(seen, binned(hidden.behaviour)),
        "rates": _r2(seen, binned(behaviour_path(spec, fine, hidden.readout))),
        "spikes": _r2(seen, _rescaled(seen, binned(from_spikes), n_folds)),
        "wiener": _r2(seen, _cross_predict(lagged, seen, n_folds)),
        "ridge": _r2(seen, _cross_predict(counts, seen, n_folds)),
    }


def _latents_from_rates(spec: SimSpec, rates: np.ndarray) -> np.ndarray:
    """Solves each region's latents from the drive that the link's inverse gives, by least squares."""
    k = 2 * DIMENSIONS[spec.latent]
    (weights, _), base = loadings(spec, k)
    if spec.link == "exp":
        drive = np.log(np.maximum(rates / base, 1e-9)) + 0.5 * spec.gain**2
    else:
        drive = np.arctanh(np.clip(rates / base - 1, -0.9999, 0.9999))
    region, out = unit_regions(spec.n_units), np.empty((len(rates), k))
    for r in range(2):
        mine = slice(r * k // 2, (r + 1) * k // 2)
        out[:, mine] = np.linalg.lstsq(weights[region == r][:, mine], drive[:, region == r].T, rcond=None)[0].T
    return out


def _cross_predict(x: np.ndarray, y: np.ndarray, n_folds: int) -> np.ndarray:
    """Ridge predictions of contiguous blocks; the penalty is chosen on the block after the tested one."""
    edges = np.linspace(0, len(x), n_folds + 1).astype(int)
    rows = np.arange(len(x))
    out = np.zeros_like(y)
    for k in range(n_folds):
        test = (rows >= edges[k]) & (rows < edges[k + 1])
        j = (k + 1) % n_folds
        tune = (rows >= edges[j]) & (rows < edges[j + 1])
        near = (rows >= edges[k] - GUARD) & (rows < edges[k + 1] + GUARD)
        fit = ~near & ~((rows >= edges[j] - GUARD) & (rows < edges[j + 1] + GUARD))
        tune &= ~near
        mean_x, mean_y = x[fit].mean(axis=0), y[fit].mean(axis=0)
        xs = x[fit] - mean_x
        values, vectors = np.linalg.eigh(xs.T @ xs)
        moments = vectors.T @ (xs.T @ (y[fit] - mean_y))
        best = None
        for penalty in PENALTIES:
            weights = vectors @ (moments / (values + penalty)[:, None])
            score = _r2(y[tune], (x[tune] - mean_x) @ weights + mean_y)
            if best is None or score > best[0]:
                best = (score, weights)
        assert best is not None
        out[test] = (x[test] - mean_x) @ best[1] + mean_y
    return out


def _rescaled(y: np.ndarray, guess: np.ndarray, n_folds: int) -> np.ndarray:
    """A line per dimension from the guess to what was seen, fitted outside each block: shrinkage of the latents."""
    edges = np.linspace(0, len(y), n_folds + 1).astype(int)
    out = np.zeros_like(y)
    for lo, hi in zip(edges, edges[1:]):
        rest = np.r_[0 : max(lo - GUARD, 0), min(hi + GUARD, len(y)) : len(y)]
        for d in range(y.shape[1]):
            slope, height = np.polyfit(guess[rest, d], y[rest, d], 1)
            out[lo:hi, d] = slope * guess[lo:hi, d] + height
    return out


def _r2(y: np.ndarray, guess: np.ndarray) -> float:
    return float(np.mean(1 - ((y - guess) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)))


def table() -> str:
    """The scores of the datasets without pauses, on tuning and on reporting seeds, as a markdown table."""
    lines = ["| dataset | session | seeds | truth | rates | spikes + law | Wiener | ridge |", "|---" * 8 + "|"]
    for dataset, rows in SIMULATED.items():
        if rows[0].n_gaps:
            continue
        for seeds, found in (("reporting", sessions(dataset)), ("tuning", sessions(dataset, seed=TUNING_SEED))):
            for one in found:
                s = oracle_scores(one.spec)
                numbers = " | ".join(f"{s[key]:.2f}" for key in ("truth", "rates", "spikes", "wiener", "ridge"))
                lines.append(f"| {dataset} | {one.name} | {seeds} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
