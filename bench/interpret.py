"""Interpretation: a probe with its surrogates against a fit for each, and what the alignment's feature space saves."""

from __future__ import annotations

import numpy as np

from bench.figure import Figure, at_least, in_turn
from neurofmx.interpret.probes import linear_probe, probe_score
from neurofmx.interpret.runner import Data
from neurofmx.interpret.similarity import hsic

N, WIDTH, SURROGATES = 1_000, 64, 100


def figures() -> list[Figure]:
    """1,000 rows of 64 features, five folds, a target of two columns."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, WIDTH))
    y = x[:, :2] + rng.standard_normal((N, 2))
    label = (np.arange(N) * 5 // N).astype(str)
    data = Data(
        subject="bench", arrays={"x": x, "y": y}, unit=label, session=np.full(N, "s"), fold=label,
        model=np.zeros(N, int), ordered=False,
    )  # fmt: skip

    def together() -> None:
        linear_probe(data, np.random.default_rng(1), SURROGATES)

    def one_by_one() -> None:
        draw = np.random.default_rng(1)
        for _ in range(SURROGATES):
            probe_score(data, x, y[draw.permutation(N)])

    a, b, ratio = in_turn(together, one_by_one, repeats=3)
    return [
        at_least(
            f"a probe with {SURROGATES} surrogates: a fit for each over ours", 1 / ratio, "x", 3.0, each_s=b, ours_s=a
        ),
        _alignment(x, rng.standard_normal((N, WIDTH))),
    ]


def _alignment(x: np.ndarray, z: np.ndarray) -> Figure:
    def naive() -> None:
        k, m = x @ x.T, z @ z.T
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        n = len(x)
        total = np.sum(k * m) + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ m.sum(0)) / (n - 2)
        assert np.isfinite(total)

    a, b, ratio = in_turn(lambda: hsic(x, z), naive, repeats=10)
    what = "unbiased HSIC by N x N kernels over feature space, 1,000 rows of 64"
    return at_least(what, 1 / ratio, "x", 5.0, kernels_ms=b * 1e3, features_ms=a * 1e3)
