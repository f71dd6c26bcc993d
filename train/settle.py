"""What is settled once the gradient has done its work: how much of the network is kept, the linear path, a readout.

Everything here uses training and validation windows only. Legend: B batch, T time, W latent width, D target.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from neurofmx.model.heads import BinHead, WindowHead
from neurofmx.model.network import NeuroFMX
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import Trained
from neurofmx.train.feed import Feed, make_feed
from neurofmx.train.linear import logistic, ridge

SHARES = tuple(i / 10 for i in range(11))
READOUT_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@torch.no_grad()
def validation_losses(model: NeuroFMX, feed: Feed, device: torch.device | str = "cpu") -> dict[str, np.ndarray]:
    """Decode loss of each task over its validation windows, with each of `SHARES` of the network's correction.

    Args:
        model: in evaluation mode, on ``device``.
        feed: its validation windows.
        device: where batches go.

    Returns:
        task -> (11,) float64 summed losses; the first is that of the linear path alone. Tasks without a validation
        window are left out.
    """
    losses: dict[str, np.ndarray] = {}
    for name, number, rows in feed.validation():
        batch = feed.batch(name, number, rows, device)
        out, target = model(batch, name), batch.targets[name]
        correction = out.decode - out.linear
        tried = [_loss(out.linear + share * correction, target.values, target.mask) for share in SHARES]
        losses[name] = losses.get(name, np.zeros(len(SHARES))) + tried
    return losses


def validation_loss(model: NeuroFMX, feed: Feed, device: torch.device | str = "cpu") -> float:
    """What is left of the linear path's loss, mean over tasks, each with the share of the network that serves it best.

    At most 1: a task on which the network does harm keeps its linear path, and so cannot end the others' training.
    """
    losses = validation_losses(model, feed, device).values()
    return float(np.mean([loss.min() / max(loss[0], 1e-12) for loss in losses]))


@torch.no_grad()
def keep_what_validates(model: NeuroFMX, feed: Feed) -> dict[str, float]:
    """Scales each task's head by the share of the network's correction that serves its validation windows best.

    Args:
        model: with the linear path that it was trained beside; its heads are scaled in place.
        feed: its validation windows.

    Returns:
        task -> share between 0 and 1; 1 where a task has no validation window.
    """
    losses, kept = validation_losses(model.eval(), feed), {}
    for name, row in model.rows_of_tasks.items():
        kept[name] = SHARES[int(np.argmin(losses[name]))] if name in losses else 1.0
        head = model.heads[row]
        assert isinstance(head, (BinHead, WindowHead))
        head.out.weight.mul_(kept[name])
        head.out.bias.mul_(kept[name])
    return kept


def _loss(predicted: Tensor, values: Tensor, mask: Tensor) -> float:
    if values.dim() == 1:
        return float(F.cross_entropy(predicted[mask], values[mask], reduction="sum")) if mask.any() else 0.0
    return float((predicted - values)[mask].square().sum())


@torch.no_grad()
def with_readout(trained: Trained, data: Mapping[str, TaskData], *, fold: int) -> Trained:
    """Fits the heads of a network in closed form to what its core gives, and changes nothing else.

    With an untrained network this is the control that shows what training the core adds: random features, read out
    as well as a linear map can (echo state networks, Jaeger 2001).

    Args:
        trained: its heads are replaced in place.
        data: task -> windows.
        fold: fold that is not touched; the next that holds windows chooses the penalty.

    Returns:
        The same network.
    """
    model, recipe = trained.model, trained.recipe
    feed = make_feed(data, fold=fold, config=recipe.feed, seed=recipe.seed)
    for name, task in data.items():
        head = model.heads[model.rows_of_tasks[name]]
        assert isinstance(head, (BinHead, WindowHead))
        x, y = _read(model, head, feed, name, feed.train_rows)
        tried_x, tried_y = _read(model, head, feed, name, feed.valid_rows)
        solve = ridge if task.kind == "continuous" else logistic
        best = None
        for weight, bias in solve(x, y, len(task.names), READOUT_PENALTIES):
            guess, known = torch.from_numpy(tried_x @ weight + bias), np.ones(len(tried_x), dtype=bool)
            loss = _loss(guess, torch.from_numpy(tried_y), torch.from_numpy(known))
            if best is None or loss < best[0]:
                best = (loss, weight, bias)
        assert best is not None
        head.out.weight.copy_(torch.from_numpy(best[1].T))
        head.out.bias.copy_(torch.from_numpy(best[2]))
    return trained


def _read(
    model: NeuroFMX, head: BinHead | WindowHead, feed: Feed, name: str, rows: Mapping[tuple[str, int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(S, W) what the head's last layer reads and (S, D) or (S,) targets, over known samples."""
    features, targets = [np.empty((0, head.out.in_features))], []
    held: list[Tensor] = []
    hook = head.out.register_forward_pre_hook(lambda module, inputs: held.append(inputs[0]))
    try:
        for (task, number), chosen in rows.items():
            for part in np.array_split(chosen, max(1, -(-len(chosen) // 64))) if task == name else ():
                if not len(part):
                    continue
                batch = feed.batch(name, number, part)
                model(batch, name)
                target = batch.targets[name]
                features.append(held.pop()[target.mask].double().numpy())
                targets.append(target.values[target.mask].numpy())
    finally:
        hook.remove()
    shape = (0,) if isinstance(head, WindowHead) else (0, head.out.out_features)
    return np.concatenate(features), np.concatenate([*targets]) if targets else np.empty(shape)
