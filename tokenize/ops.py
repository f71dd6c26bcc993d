"""The small pure steps that tokenizers compose: numbers in, numbers and a mask out, nothing remembered.

Three kinds, told apart by the table that holds them. Sample steps turn (N, C) samples into (N, C') samples;
bin steps turn samples into (T, C, P) tokens; grid steps turn tokens into tokens. A causal step never looks
at a sample after the end of the bin that it fills. What is not known has mask False and the value 0.

Shapes: N samples, T bins, C channels, P fields of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.tokenize.resample import EDGE, Bins, Pair, cubic, hold, linear, masked, nearest

FLOOR = 1e-12  # smallest amplitude whose logarithm is taken

# sample steps: (values (N, C), mask (N, C), times_s (N,)) -> (values, mask)


def log_amplitude(values: np.ndarray, mask: np.ndarray, times_s: np.ndarray) -> Pair:
    """Natural logarithm of the absolute value of each sample."""
    return np.log(np.maximum(np.abs(values), FLOOR)), mask


def speed(values: np.ndarray, mask: np.ndarray, times_s: np.ndarray) -> Pair:
    """Speed of a point from each sample and the one before it, in the unit of the samples per second, (N, 1)."""
    out, known = np.zeros((len(values), 1)), np.zeros((len(values), 1), dtype=bool)
    step = np.diff(times_s)
    both: np.ndarray = np.all(mask, axis=1)
    known[1:, 0] = np.logical_and(both[1:] & both[:-1], step > 0)
    out[1:, 0] = np.linalg.norm(np.diff(values, axis=0), axis=1) / np.where(step > 0, step, 1.0)
    return np.where(known, out, 0.0), known


# bin steps: (values (N, C), mask (N, C), times_s (N,), bins, valid (K, 2)) -> (tokens (T, C, P), mask (T, C))


def bin_mean(values: np.ndarray, mask: np.ndarray, times_s: np.ndarray, bins: Bins, valid: np.ndarray) -> Pair:
    """Mean of the samples in each bin; a bin that is empty, partly invalid or holds an unknown sample is masked."""
    total, count = _sums(values, bins.bounds(times_s))
    known = _whole(mask, times_s, bins, valid)
    return masked(total / np.maximum(count, 1)[:, None], known)


def patch(
    values: np.ndarray, mask: np.ndarray, times_s: np.ndarray, bins: Bins, valid: np.ndarray, *, samples: int
) -> Pair:
    """Cuts each bin into equal parts and takes the mean of each: P values a token, a decimated waveform.

    Raises:
        ConfigError: the signal is slower than one sample a part.
    """
    fine = Bins(bins.t0_s, bins.dt_s / samples, bins.n * samples)
    if len(times_s) > 1 and np.median(np.diff(times_s)) > fine.dt_s * (1 + 1e-3):
        raise ConfigError(
            f"patch of {samples} samples in {bins.dt_s:g} s",
            got=f"a signal of {1 / np.median(np.diff(times_s)):.4g} Hz",
            expected=f"at least {1 / fine.dt_s:.4g} Hz",
            fix="Use wider bins or another row of tokenize.catalog.",
        )
    total, count = _sums(values, fine.bounds(times_s))
    parts = (total / np.maximum(count, 1)[:, None]).reshape(bins.n, samples, -1).transpose(0, 2, 1)
    filled: np.ndarray = np.all((count > 0).reshape(bins.n, samples), axis=1)
    return masked(parts, _whole(mask, times_s, bins, valid) & filled[:, None])


def envelope(values: np.ndarray, mask: np.ndarray, times_s: np.ndarray, bins: Bins, valid: np.ndarray) -> Pair:
    """Log mean absolute value, log mean absolute difference and share of zero crossings, per channel and bin.

    The time-domain features of Hudgins, Parker and Scott (1993), IEEE Trans Biomed Eng 40:82. Differences
    are taken inside a bin only, so that a token depends on nothing outside it.
    """
    bounds = bins.bounds(times_s)
    size, count = _sums(np.abs(values), bounds)
    step, cross = np.zeros_like(values), np.zeros_like(values)
    step[1:] = np.abs(np.diff(values, axis=0))
    cross[1:] = np.signbit(values[1:]) != np.signbit(values[:-1])
    inner = bounds[:-1][count > 0]  # the first sample of a bin has its neighbour in another
    step[inner], cross[inner] = 0.0, 0.0
    steps, _ = _sums(step, bounds)
    crosses, _ = _sums(cross, bounds)
    pairs = np.maximum(count - 1, 1)[:, None]
    known = np.logical_and(_whole(mask, times_s, bins, valid), np.greater(count, 1)[:, None])
    fields = [
        np.log(np.maximum(size / np.maximum(count, 1)[:, None], FLOOR)),
        np.log(np.maximum(steps / pairs, FLOOR)),
        crosses / pairs,
    ]
    return masked(np.stack(fields, axis=2), known)


def band_power(
    values: np.ndarray,
    mask: np.ndarray,
    times_s: np.ndarray,
    bins: Bins,
    valid: np.ndarray,
    *,
    bands_hz: tuple[tuple[float, float], ...],
    window_s: float,
    causal: bool = True,
) -> Pair:
    """Log mean power density in each band, from a Hann window that ends with the bin (or is centred on it).

    A window is finite, so tokens of a slice equal the slice of the tokens and a gap spoils only the windows
    that it touches.

    Args:
        values: (N, C) evenly sampled.
        mask: (N, C) bool.
        times_s: (N,) seconds.
        bins: the grid.
        valid: (K, 2) seconds.
        bands_hz: (low, high) of each of the P bands.
        window_s: length of the window in seconds.
        causal: the window ends with the bin; otherwise it is centred on it.

    Returns:
        Tokens (T, C, P), natural log of unit^2/Hz, and mask (T, C).

    Raises:
        ConfigError: a band has no frequency of the window, or lies above half the sampling rate.
    """
    n, c = values.shape
    out, known = np.zeros((bins.n, c, len(bands_hz))), np.zeros((bins.n, c), dtype=bool)
    if n < 2:
        return out, known
    rate = 1.0 / float(np.median(np.diff(times_s)))
    width = max(2, round(window_s * rate))
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)
    freqs = np.fft.rfftfreq(width, 1 / rate)
    near = EDGE * rate / width  # a frequency on the border of a band must not depend on rounding
    rows = [np.flatnonzero((freqs >= lo - near) & (freqs < hi - near)) for lo, hi in bands_hz]
    for (lo, hi), found in zip(bands_hz, rows):
        if not len(found):
            raise ConfigError(
                f"band {lo:g}-{hi:g} Hz",
                got=f"a window of {window_s:g} s at {rate:.4g} Hz",
                expected="a frequency of the window inside the band, below half the sampling rate",
            )
    end = bins.bounds(times_s)[1:] + (0 if causal else width // 2)
    start = end - width
    fits = (start >= 0) & (end <= n)
    gaps = np.concatenate([[0], np.cumsum(np.diff(times_s) > 1.5 / rate)])  # breaks before each sample
    bad = np.concatenate([np.zeros((1, c), int), np.cumsum(~mask, axis=0)])
    at = np.flatnonzero(fits & bins.covered(valid))
    block = max(1, 4_000_000 // (width * c))
    for lo in range(0, len(at), block):
        part = at[lo : lo + block]
        pieces = values[start[part][:, None] + np.arange(width)]
        pieces = (pieces - pieces.mean(axis=1, keepdims=True)) * taper[:, None]
        density = np.abs(np.fft.rfft(pieces, axis=1)) ** 2 * (2 / (rate * np.sum(taper**2)))
        for p, found in enumerate(rows):
            out[part, :, p] = np.log(np.maximum(density[:, found].mean(axis=1), FLOOR))
        whole: np.ndarray = np.equal(gaps[end[part] - 1], gaps[start[part]])
        known[part] = np.logical_and(whole[:, None], bad[end[part]] == bad[start[part]])
    return masked(out, known)


# grid steps: (tokens (T, C, P), mask (T, C), dt_s) -> (tokens, mask)


def sqrt(tokens: np.ndarray, mask: np.ndarray, dt_s: float) -> Pair:
    """Square root, which makes the variance of Poisson counts nearly constant."""
    return np.sqrt(tokens), mask


def rate(tokens: np.ndarray, mask: np.ndarray, dt_s: float) -> Pair:
    """Counts per second."""
    return tokens / dt_s, mask


def zscore(
    tokens: np.ndarray, mask: np.ndarray, dt_s: float, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Pair:
    """Subtracts and divides by statistics that the caller fitted on training data, one a channel or one for all."""
    shape = (1, -1, 1)
    return masked((tokens - np.reshape(mean, shape)) / np.reshape(std, shape), mask)


def smooth(tokens: np.ndarray, mask: np.ndarray, dt_s: float, *, sigma_s: float, causal: bool = False) -> Pair:
    """Gaussian smoothing over known bins, with weights renormalised where bins are unknown.

    Args:
        tokens: (T, C, P).
        mask: (T, C).
        dt_s: bin width in seconds.
        sigma_s: standard deviation in seconds.
        causal: use the past half of the kernel only.

    Returns:
        Smoothed tokens and the same mask: unknown bins stay unknown.
    """
    from scipy.ndimage import correlate1d

    reach = max(1, int(np.ceil(4 * sigma_s / dt_s)))
    lag = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (lag * dt_s / sigma_s) ** 2) * (lag <= 0 if causal else 1.0)
    weight = correlate1d(mask.astype(np.float64), kernel, axis=0, mode="constant")
    total = correlate1d(np.where(mask[..., None], tokens, 0.0), kernel, axis=0, mode="constant")
    return masked(total / np.maximum(weight, FLOOR)[..., None], mask)


SAMPLE_STEPS: Mapping[str, Callable[..., Pair]] = {f.__name__: f for f in (log_amplitude, speed)}
BIN_STEPS: Mapping[str, Callable[..., Pair]] = {
    f.__name__: f for f in (bin_mean, patch, envelope, band_power, hold, nearest, linear, cubic)
}
GRID_STEPS: Mapping[str, Callable[..., Pair]] = {f.__name__: f for f in (sqrt, rate, zscore, smooth)}


def _sums(values: np.ndarray, bounds: np.ndarray) -> Pair:
    """(T, C) sums of the rows between bounds, and (T,) how many there were."""
    count = np.diff(bounds)
    out = np.zeros((len(count), values.shape[1]))
    some = count > 0
    if some.any():
        # empty bins have no rows of their own, so the starts of the others cut the rows exactly
        out[some] = np.add.reduceat(values[: bounds[-1]], bounds[:-1][some], axis=0)
    return out, count


def _whole(mask: np.ndarray, times_s: np.ndarray, bins: Bins, valid: np.ndarray) -> np.ndarray:
    """(T, C) bool: the bin has samples, all of them known, and lies in valid time."""
    unknown, count = _sums((~mask).astype(np.float64), bins.bounds(times_s))
    filled: np.ndarray = np.logical_and(count > 0, bins.covered(valid))
    return np.logical_and(unknown == 0, filled[:, None])
