"""Debiased centred kernel alignment between two sets of features of the same windows.

Kornblith et al. 2019 with the unbiased HSIC of Song et al. 2012, as Nguyen et al. 2021 use it: the usual, biased
CKA of independent features is far from 0 when features are many (.81 for 200 features of 50 windows). Computed in
feature space, so the N x N kernels are never formed.

Legend: N rows, D and E features.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neurofmx.interpret.runner import Data, Measured
from neurofmx.interpret.surrogates import long_enough, surrogate_rows
from neurofmx.types import Check

LEAST = 8  # rows of one network below which the unbiased estimate is hardly defined
CHUNK = 32


def cka(data: Data, rng: np.random.Generator, n_null: int) -> Measured:
    """Debiased linear CKA, pooled over the networks that made the rows.

    Args:
        data: ``x`` (N, D) and ``z`` (N, E); ``x_untrained``, ``z_untrained`` optional.
        rng: draws surrogates of ``z``.
        n_null: how many.

    Returns:
        1 for features equal up to rotation and scale, 0 on average for unrelated ones (it may be negative); with
        the biased value, its ratio to the debiased one, and the untrained network's value beside it.
    """
    x, z = data.arrays["x"], data.arrays["z"]
    groups = [rows for m in np.unique(data.model) if len(rows := np.flatnonzero(data.model == m)) >= LEAST]
    if not groups:
        return Measured(value=float("nan"), null=np.empty(0))
    parts = [(_scaled(x[rows]), _scaled(z[rows])) for rows in groups]
    own = np.array([hsic(a, a) for a, _ in parts]), np.array([hsic(b, b) for _, b in parts])
    norm = float(np.sqrt(max(own[0].sum(), 0.0) * max(own[1].sum(), 0.0)))
    value = float(sum(hsic(a, b) for a, b in parts)) / norm if norm > 0 else float("nan")
    if n_null == 0:
        return Measured(value=value, null=np.empty(0))
    signal = Check(
        name="signal", passed=norm > 0, severity="block",
        evidence="One side has no similarity structure beyond noise: its unbiased HSIC with itself is not positive.",
    )  # fmt: skip
    if norm <= 0:
        return Measured(value=float("nan"), null=np.empty(0), checks=(signal,))
    null, scale = np.zeros(n_null), np.float32
    for rows, (a, b) in zip(groups, parts):
        labels = data.session[rows]
        index = surrogate_rows(labels, rng, n_null, ordered=data.ordered)
        if len(index) < n_null:  # a short series has few distinct shifts: draw them with replacement across networks
            index = index[rng.integers(len(index), size=n_null)] if len(groups) > 1 else index
        null = null[: len(index)]
        null += _shifted_hsic(a.astype(scale), b.astype(scale), index)
    biased = float(np.mean([biased_cka(a, b) for a, b in parts]))
    scalars = {"biased": biased, "biased_over_debiased": biased / value if value != 0 else float("nan")}
    if "x_untrained" in data.arrays and "z_untrained" in data.arrays:
        plain = {"x": data.arrays["x_untrained"], "z": data.arrays["z_untrained"]}
        scalars["untrained"] = cka(_with(data, plain), rng, 0).value
    checks = [signal]
    if data.ordered:
        checks += [long_enough(n, _leading(data.arrays[n]), _per_network(data)) for n in ("x", "z")]
    caveats = (f"The biased CKA would read {biased:.3f}, {biased - value:+.3f} against the debiased value.",)
    return Measured(value=value, null=null / norm, scalars=scalars, checks=tuple(checks), caveats=caveats)


def hsic(x: np.ndarray, z: np.ndarray) -> float:
    """Unbiased HSIC of linear kernels (Song et al. 2012, equation 5), in O(N D E).

    Args:
        x: (N, D).
        z: (N, E).
    """
    n = len(x)
    k, own = np.square(x).sum(1), np.square(z).sum(1)
    sum_x, sum_z = x.sum(0), z.sum(0)
    trace = np.square(x.T @ z).sum() - k @ own
    rows_x, rows_z = x @ sum_x - k, z @ sum_z - own
    total = rows_x.sum() * rows_z.sum() / ((n - 1) * (n - 2))
    return float((trace + total - 2 * (rows_x @ rows_z) / (n - 2)) / (n * (n - 3)))


def biased_cka(x: np.ndarray, z: np.ndarray) -> float:
    """The usual CKA, shown as a caveat only (Kornblith et al. 2019)."""
    x, z = x - x.mean(0), z - z.mean(0)
    norm = np.linalg.norm(x.T @ x) * np.linalg.norm(z.T @ z)
    return float(np.square(x.T @ z).sum() / norm) if norm > 0 else float("nan")


def _shifted_hsic(x: np.ndarray, z: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(S,) `hsic` of x with the rows of z in each of the orders ``index`` (S, N); float32 products, float64 sums."""
    n = len(x)
    k, own = np.square(x).sum(1, dtype=np.float64), np.square(z).sum(1, dtype=np.float64)
    rows_x, rows_z = x @ x.sum(0) - k, z @ z.sum(0) - own
    total = rows_x.sum() * rows_z.sum() / ((n - 1) * (n - 2))
    found = np.empty(len(index))
    for i in range(0, len(index), CHUNK):
        part = index[i : i + CHUNK]
        moved = z[part].transpose(1, 0, 2).reshape(n, -1)  # (N, S E)
        cross = np.square(x.T @ moved).sum(0, dtype=np.float64).reshape(len(part), -1).sum(1)
        found[i : i + CHUNK] = cross - own[part] @ k + total - 2 * (rows_z[part] @ rows_x) / (n - 2)
    return found / (n * (n - 3))


def _scaled(x: np.ndarray) -> np.ndarray:
    """Centred, of unit mean square norm: networks then weigh alike, and single precision is enough."""
    x = np.asarray(x, dtype=np.float64)
    x = x - x.mean(0)
    size = np.sqrt(np.square(x).sum() / len(x))
    return x / size if size > 0 else x


def _leading(x: np.ndarray) -> np.ndarray:
    """(N, 1) scores on the first principal component: what a kernel mostly sees."""
    x = x - x.mean(0)
    _, vectors = np.linalg.eigh(x.T @ x)
    return x @ vectors[:, -1:]


def _per_network(data: Data) -> np.ndarray:
    return np.array([f"{m}|{s}" for m, s in zip(data.model, data.session)])


def _with(data: Data, arrays: dict[str, np.ndarray]) -> Data:
    return replace(data, arrays=arrays)
