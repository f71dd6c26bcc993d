"""How much of a score hangs on channels and on blocks, from what networks answered with and without them.

Legend: N rows, G channel groups, R exchanges, S surrogates, K target columns or classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neurofmx.interpret.runner import Data, Measured
from neurofmx.interpret.surrogates import sign_flips
from neurofmx.interpret.terms import Metric, chance_level, score_terms
from neurofmx.types import Check


def channel_ablation(data: Data, rng: np.random.Generator, n_null: int, *, metric: Metric) -> Measured:
    """How much of the score hangs on the channel group that matters most.

    Args:
        data: what `answers.ablate_channels` gives.
        rng: draws swaps.
        n_null: how many.
        metric: the score.

    Returns:
        The largest drop; the null swaps intact and ablated in resampling units, the same units for all groups, and
        takes the largest drop again (Westfall and Young 1993), so the p of each group, in the array ``p``, is
        corrected for their number.
    """
    score = _scorer(data, metric)
    intact = score("intact")
    drop = intact[:, None] - score("without").mean(2)
    units, row = np.unique(data.unit, return_inverse=True)
    per_unit = np.stack([np.bincount(row, weights=d, minlength=len(units)) for d in drop.T], axis=1)
    total = per_unit.sum(0)
    if n_null == 0 or not np.all(np.isfinite(total)):
        return Measured(value=float(total.max()), null=np.empty(0))
    null = (sign_flips(len(units), rng, n_null) @ per_unit).max(1)
    p = (1 + (null[:, None] >= total - 1e-12).sum(0)) / (len(null) + 1)
    arrays = {"drop": total, "drop_mean": intact.sum() - score("mean").sum(0), "p": p}
    scalars = {"intact": float(intact.sum()), "groups": float(len(total))}
    if "random" in data.arrays:
        arrays["drop_random"] = intact.sum() - score("random").sum(0)
        scalars["largest_of_random_groups"] = float(arrays["drop_random"].max())
    return Measured(
        value=float(total.max()),
        null=null,
        scalars=scalars,
        arrays=arrays,
        checks=(_acts(data), _informed(data, metric, intact)),
    )


def block_ablation(data: Data, rng: np.random.Generator, n_null: int, *, metric: Metric) -> Measured:
    """How much of the score hangs on what one block adds.

    Args:
        data: what `answers.ablate_block` gives.
        rng: not used; the directions were drawn with the passes.
        n_null: how many directions are taken, of those that there are.
        metric: the score.

    Returns:
        The drop when the block says what it said of another window; the null pushes the residual stream as far, in
        random directions.
    """
    score = _scorer(data, metric)
    intact, without = score("intact"), score("without")
    value = float(intact.sum() - without.sum(0).mean())
    if n_null == 0:
        return Measured(value=value, null=np.empty(0))
    return Measured(
        value=value,
        null=intact.sum() - score("turned")[:, :n_null].sum(0),
        scalars={"intact": float(intact.sum()), "mean_ablation": float(intact.sum() - score("mean").sum())},
        checks=(_acts(data), _informed(data, metric, intact)),
    )


def _scorer(data: Data, metric: Metric) -> Callable[[str], np.ndarray]:
    """Name of predictions (N, ..., K) -> what each row adds to the score of each variant (N, ...)."""
    y, recording = data.arrays["y"], np.unique(data.session, return_inverse=True)[1]

    def score(name: str) -> np.ndarray:
        said = data.arrays[name]
        flat = said.reshape(len(said), -1, said.shape[-1])
        terms = [score_terms(metric, y, flat[:, v], recording) for v in range(flat.shape[1])]
        return np.stack(terms, axis=1).reshape(said.shape[:-1])

    return score


def _acts(data: Data) -> Check:
    intact, without = data.arrays["intact"], data.arrays["without"]
    apart = float(np.abs(without - intact.reshape(len(intact), *[1] * (without.ndim - 2), -1)).max())
    return Check(
        name="acts",
        passed=apart > 1e-5 * float(np.abs(intact).max()),  # passes of other sizes round otherwise
        severity="block",
        evidence="Nothing that is ablated reaches the answer.",
    )


def _informed(data: Data, metric: Metric, intact: np.ndarray) -> Check:
    chance, value = chance_level(metric, data.arrays["y"]), float(intact.sum())
    return Check(
        name="above_chance",
        passed=value > chance,
        severity="warn",
        evidence=f"The intact network scores {value:.3f}, not above the {chance:.3f} of a constant answer: "
        "there is little to lose.",
    )
