"""A trained network on recordings that it has not met: their channels get vectors, and the named groups learn.

Trained for channels and head alone, with the core frozen, this is few-shot adaptation of POYO's kind (Azabou et al.
2023, "unit identification"); trained for every group it is fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from neurofmx.errors import ConfigError
from neurofmx.model.network import GROUPS, NeuroFMX
from neurofmx.provenance import digest_of
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import Trained, load_trained, new_model, save_trained
from neurofmx.train.feed import Feed, Vocabulary, make_feed
from neurofmx.train.linear import LinearStart, linear_refit
from neurofmx.train.loop import Callback, data_digest, optimise, set_linear, stored_start, trained_of
from neurofmx.train.recipes import Recipe
from neurofmx.train.settle import keep_what_validates

VERSION = 1  # raised by hand when the same network, data and recipe would give another network


def adapt(
    trained: Trained,
    data: Mapping[str, TaskData],
    recipe: Recipe,
    *,
    fold: int | None,
    groups: tuple[str, ...] = ("channels", "head"),
    linear: bool = True,
    steps: int | None = None,
    out: Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Takes a trained network to recordings, old or new; the network that is given stays as it is.

    The result knows the recordings and tasks of ``data``, and no others. Channels that the network has met (by
    `Vocabulary.key`) and tasks that it can do keep what they learned; the rest begins as in a new network of the
    recipe's seed. Statistics are those of the training folds of ``data``; the linear path is fitted anew, and what
    the heads have learned is kept as far as validation windows support it (`train.settle`).

    Args:
        trained: the network.
        data: task -> windows.
        recipe: optimiser, batches, objective, stopping and seed; its model must be the network's own.
        fold: fold of ``data`` that is not touched, None for none; the next that holds windows tells when to stop.
        groups: which of `GROUPS` learn, none for the statistics and the linear path alone; others keep every bit.
        linear: whether the linear path is fitted, in closed form; if not it is left at zero, and all is decoded
            through the core.
        steps: most steps, instead of the recipe's.
        out: folder in which the result and its progress are kept, by `adaptation_id`; a finished one is read back.
        callbacks: called after every step.

    Returns:
        The adapted network, in evaluation mode.

    Raises:
        ConfigError: other sizes than the network's, a group that does not exist, or a task or modality that means
            something else than it did.
        Leakage: a resampling unit in two folds.
        MalformedFile: a checkpoint of this adaptation is damaged.
    """
    if recipe.model != trained.recipe.model:
        raise ConfigError(
            "recipe.model",
            got=f"{recipe.name}'s sizes",
            expected=f"those of the network, trained by {trained.recipe.name}",
            fix="Start from the network's own recipe and override optim, feed or stop.",
        )
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise ConfigError("adapted groups", got=", ".join(unknown), expected=f"out of {GROUPS}")
    recipe = recipe if steps is None else replace(recipe, optim=replace(recipe.optim, steps=steps))
    path = None
    if out is not None:
        path = Path(out) / adaptation_id(trained, data, recipe, fold=fold, groups=groups, linear=linear)
        path.mkdir(parents=True, exist_ok=True)
        if (path / "model.pt").exists():
            return load_trained(path)
    base = Vocabulary(channels=(), recordings=())
    feed = make_feed(data, fold=fold, config=recipe.feed, seed=recipe.seed, vocabulary=base)
    model = new_model(recipe, data, feed.vocabulary)
    _carry_over(trained, model, feed, data)
    start = stored_start(path, feed, recipe) if linear else _no_linear(data)
    set_linear(model, start)
    kept = dict.fromkeys(data, 1.0 if groups and recipe.optim.steps else 0.0)
    if groups and recipe.optim.steps:
        optimise(model, feed, start, recipe, groups=groups, path=path, callbacks=callbacks)
        if "head" in groups:
            kept = keep_what_validates(model.cpu(), feed)
    if linear:
        set_linear(model.cpu(), linear_refit(feed, recipe.linear, recipe.model.lags, start, kept))
    adapted = trained_of(model, feed, recipe, data)
    if path is not None:
        save_trained(adapted, path / "model.pt")
        (path / "last.pt").unlink(missing_ok=True)
    return adapted


def adaptation_id(
    trained: Trained,
    data: Mapping[str, TaskData],
    recipe: Recipe,
    *,
    fold: int | None,
    groups: Sequence[str],
    linear: bool,
) -> str:
    """Digest of everything that determines an adapted network (16 hex digits); weights count, names of runs don't."""
    weights = {key: tensor.numpy() for key, tensor in trained.model.state_dict().items()}
    known = [trained.vocabulary.channels, sorted(trained.tasks)]
    return digest_of(["adapt", VERSION, recipe, data_digest(data), fold, sorted(groups), linear, known, weights])[:16]


@torch.no_grad()
def _carry_over(trained: Trained, model: NeuroFMX, feed: Feed, data: Mapping[str, TaskData]) -> None:
    """Copies the core, the vectors of known channels and the heads of known tasks into a new network."""
    old = trained.model
    for modality, fields in model.fields.items():
        if old.fields.get(modality) != fields:
            raise ConfigError(
                f"modality {modality!r}",
                got=f"{fields} fields a channel",
                expected=f"one that the network has read ({old.fields}, fields by modality)",
            )
        model.population[modality].load_state_dict(old.population[modality].state_dict())
        model.reconstruction[modality].load_state_dict(old.reconstruction[modality].state_dict())
    model.blocks.load_state_dict(old.blocks.state_dict())
    model.fusion.load_state_dict(old.fusion.state_dict())
    row = {key: number for number, key in enumerate(trained.vocabulary.channels)}
    known = [(here, row[key]) for here, key in enumerate(feed.vocabulary.channels) if key in row]
    if known:
        here, there = map(list, zip(*known))
        model.channels.weight[here] = old.channels.weight[there]
    for name, task in data.items():
        if name not in trained.tasks:
            continue
        info = trained.tasks[name]
        if (info.kind, info.names) != (task.kind, task.names):
            raise ConfigError(
                f"task {name!r}",
                got=f"{task.kind} {task.names}",
                expected=f"{info.kind} {info.names}, as it was trained",
            )
        model.heads[model.rows_of_tasks[name]].load_state_dict(old.heads[old.rows_of_tasks[name]].state_dict())


def _no_linear(data: Mapping[str, TaskData]) -> LinearStart:
    """A linear path that says nothing."""
    offset = {
        (name, number): np.zeros((*windows.target_mask.shape, len(task.names)), dtype=np.float32)
        for name, task in data.items()
        for number, windows in enumerate(task.recordings)
    }
    return LinearStart(weight={}, bias={}, offset=offset, chosen={})
