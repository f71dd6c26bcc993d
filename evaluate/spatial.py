"""Decoders of raw field potentials by their spatial covariance: common spatial patterns, and the tangent space.

Sources: Ramoser, Mueller-Gerking and Pfurtscheller 2000, IEEE TRE 8:441 (CSP); Barachant, Bonnet, Congedo and Jutten
2012, IEEE TBME 59:920 (tangent space). Legend: n windows, C channels, S samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BAND_HZ = (7.0, 30.0)
CSP_GRID = tuple({"patterns": m, "shrinkage": s} for m in (4, 6) for s in (0.0, 0.05, 0.2))
TANGENT_GRID = tuple({"shrinkage": s} for s in (0.02, 0.1, 0.3))


def covariances(raw: np.ndarray, rate_hz: float, band_hz: tuple[float, float] = BAND_HZ) -> np.ndarray:
    """(n, C, C) covariance of each window in a band, each of trace C.

    Args:
        raw: (n, C, S).
        rate_hz: sampling rate.
        band_hz: what the Fourier transform of a window keeps.
    """
    spectrum = np.fft.rfft(raw - raw.mean(axis=2, keepdims=True), axis=2)
    freqs = np.fft.rfftfreq(raw.shape[2], 1 / rate_hz)
    kept = spectrum[:, :, (freqs >= band_hz[0]) & (freqs <= band_hz[1])]
    found = np.einsum("ncf,ndf->ncd", kept, kept.conj()).real
    trace = np.trace(found, axis1=1, axis2=2)
    return found * (raw.shape[1] / np.maximum(trace, 1e-30))[:, None, None]


def shrunk(covariance: np.ndarray, share: float) -> np.ndarray:
    """Covariances drawn towards the identity of the same trace."""
    c = covariance.shape[-1]
    size = np.trace(covariance, axis1=-2, axis2=-1)[..., None, None] / c
    return (1 - share) * covariance + (share + 1e-6) * size * np.eye(c)


@dataclass(frozen=True)
class Csp:
    """(C, m) filters; features are log variances."""

    filters: np.ndarray

    def features(self, covariance: np.ndarray) -> np.ndarray:
        """(n, m) log variance behind each filter."""
        return np.log(np.maximum(np.einsum("cm,ncd,dm->nm", self.filters, covariance, self.filters), 1e-12))


def csp(covariance: np.ndarray, label: np.ndarray, *, patterns: int, shrinkage: float) -> Csp:
    """Filters whose variance differs most between two classes, half of them for each."""
    from scipy.linalg import eigh

    # a class that the training data lack is taken as their mean, as in the discriminants
    kept = [covariance[label == k] if np.any(label == k) else covariance for k in (0, 1)]
    one, two = (shrunk(each.mean(axis=0), shrinkage) for each in kept)
    _, vectors = eigh(one, one + two)
    half = patterns // 2
    return Csp(np.concatenate([vectors[:, :half], vectors[:, -half:]], axis=1))


def tangent(covariance: np.ndarray, train: np.ndarray, *, shrinkage: float) -> np.ndarray:
    """(n, C (C + 1) / 2) coordinates in the tangent space at the log-Euclidean mean of the training windows."""
    whole = shrunk(covariance, shrinkage)
    middle = _spectral(_spectral(whole[train], np.log).mean(axis=0), np.exp)
    white = _spectral(middle, lambda v: 1 / np.sqrt(v))
    logs = _spectral(white @ whole @ white, np.log)
    upper = np.triu_indices(whole.shape[-1])
    return logs[:, upper[0], upper[1]] * np.where(upper[0] == upper[1], 1.0, np.sqrt(2.0))


def _spectral(matrices: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrices)
    out = function(values if function is np.exp else np.maximum(values, 1e-12))
    return (vectors * out[..., None, :]) @ np.swapaxes(vectors, -1, -2)
