"""Training recipes: a recipe is a short function that returns a complete typed config, and its digest names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from neurofmx.errors import ConfigError
from neurofmx.model.config import ModelConfig
from neurofmx.provenance import digest_of


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay.

    Args:
        lr: peak learning rate.
        weight_decay: decoupled, on matrices only.
        warmup: steps of linear warm-up.
        steps: most steps for each task that is learned; a network of several gets the sum.
        clip: largest gradient norm.
        average: decay of the moving average of weights that is evaluated and kept.
    """

    lr: float = 3e-3
    weight_decay: float = 0.1
    warmup: int = 20
    steps: int = 150
    clip: float = 1.0
    average: float = 0.95


@dataclass(frozen=True, kw_only=True)
class FeedConfig:
    """Batches and what is done to them in training.

    Args:
        bins: about as many bins (B x T) in a batch; at least one window.
        unit_dropout: largest share of channels hidden from the network in a window (the share is drawn anew).
        time_dropout: probability that a bin is hidden.
    """

    bins: int = 512
    unit_dropout: float = 0.4
    time_dropout: float = 0.05


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is minimised.

    Args:
        loss: of continuous targets, z-scored: mean squared error, or Huber at 1 sd.
        label_smoothing: of the cross-entropy of classes.
        reconstruction: weight of reconstructing the hidden channels and bins.
    """

    loss: Literal["mse", "huber"] = "mse"
    label_smoothing: float = 0.0
    reconstruction: float = 0.1


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """The closed-form fit of the linear path, on training folds only.

    Args:
        penalties: ridge penalties tried, each times the mean feature variance and number of samples.
        stretches: first and last lag of the stretches tried; what the model's lags don't hold of one is left out.
        inner_folds: folds inside the training data that choose the penalty and give the network honest residuals.
        rank: most principal components of (channel, field) before lags; more are cut.
    """

    penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    stretches: tuple[tuple[int, int], ...] = ((0, 0), (-2, 2), (-4, 4), (-9, 0))
    inner_folds: int = 4
    rank: int = 256


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    """Early stopping on the validation fold.

    Args:
        every: steps between evaluations, for each task that is learned.
        patience: evaluations without improvement before training stops.
        least: smaller improvements are kept but do not count against patience.
        save_every: steps between checkpoints.
    """

    every: int = 10
    patience: int = 10
    least: float = 0.002
    save_every: int = 50


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines a run but data, fold and code.

    Args:
        name: the recipe function.
        seed: of weights, order, dropout and augmentation.
        tasks: names of the tasks that are learned; empty means all that the lake has recordings for.
        networks: ``each`` task has a network of its own, or ``one`` learns all that no fold's leakage keeps apart.
        model: sizes.
        optim: optimiser.
        feed: batches.
        objective: losses.
        linear: the linear path's fit.
        stop: early stopping.
    """

    name: str
    seed: int = 0
    tasks: tuple[str, ...] = ()
    networks: Literal["each", "one"] = "each"
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    feed: FeedConfig = field(default_factory=FeedConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    linear: LinearConfig = field(default_factory=LinearConfig)
    stop: StopConfig = field(default_factory=StopConfig)

    def digest(self) -> str:
        """Identity of the recipe (16 hex digits)."""
        return digest_of(self)[:16]


BOTH_WAYS = tuple(range(-9, 5))  # lags that hold every stretch a baseline tries


def tiny() -> Recipe:
    """For tests and continuous integration: seconds, not quality."""
    return Recipe(
        name="tiny",
        model=ModelConfig(width=32, channel_width=16, latents=2, blocks=1, head_width=16, lags=(-2, -1, 0)),
        optim=OptimConfig(steps=40, warmup=5),
        stop=StopConfig(patience=4, save_every=10),
    )


def laptop() -> Recipe:
    """For one recording on one core: reads both ways in time, a few seconds a fold."""
    return Recipe(name="laptop", model=ModelConfig(bidirectional=True, lags=BOTH_WAYS))


def decode() -> Recipe:
    """For ``neurofmx decode``: as laptop, with less patience."""
    return replace(laptop(), name="decode", stop=StopConfig(patience=5))


def together() -> Recipe:
    """As laptop, but one network learns every task."""
    return replace(laptop(), name="together", networks="one")


def causal() -> Recipe:
    """As laptop, but nothing reads the future: the network that can stream."""
    return Recipe(name="causal", model=ModelConfig(lags=tuple(range(-9, 1))))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tiny": tiny, "laptop": laptop, "decode": decode, "together": together, "causal": causal,
}  # fmt: skip


def recipe_named(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    if name not in RECIPES:
        raise ConfigError("recipe", got=name, expected=f"one of {', '.join(sorted(RECIPES))}")
    return RECIPES[name]()
