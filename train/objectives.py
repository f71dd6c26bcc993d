"""What is minimised: decoding and masked reconstruction, over what is real. Legend: B batch, T time, D target."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurofmx.model.network import NeuroFMX
from neurofmx.train.recipes import ObjectiveConfig
from neurofmx.types import Batch, Target


def decode_loss(
    predicted: Tensor, target: Target, *, loss: str = "mse", smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Summed loss over known bins or windows, and how many numbers it sums.

    Args:
        predicted: (B, T, D) in z-scored units, or (B, D) logits.
        target: values of the same shape, or (B,) classes, with their mask.
        loss: ``mse`` or ``huber`` for continuous targets.
        smoothing: label smoothing of the cross-entropy.

    Returns:
        Two scalars, the sum and the count (of bins times D, or of windows).
    """
    known = target.mask.to(predicted.dtype)
    if target.kind == "class":
        each = F.cross_entropy(predicted, target.values, reduction="none", label_smoothing=smoothing)
        return (each * known).sum(), known.sum()
    error = F.mse_loss if loss == "mse" else F.huber_loss
    each = error(predicted, target.values, reduction="none")
    return (each * known[..., None]).sum(), known.sum() * predicted.shape[-1]


def reconstruction_loss(recon: Mapping[str, Tensor], batch: Batch, hidden: Mapping[str, Tensor]) -> Tensor:
    """Mean squared error over what was hidden, in normalised units; 0 where nothing was.

    Args:
        recon: modality -> (B, T, C, P).
        batch: the whole batch, before anything was hidden.
        hidden: modality -> (B, T, C) bool.
    """
    total = torch.zeros((), device=next(iter(recon.values())).device)
    for modality, predicted in recon.items():
        weight = hidden[modality][..., None].to(predicted.dtype)
        error = (predicted - batch.streams[modality].values).square() * weight
        total = total + error.sum() / (weight.sum() * predicted.shape[-1]).clamp(min=1)
    return total / len(recon)


class TrainStep(nn.Module):
    """Network and objective as one module, so that a strategy wraps the pass that makes the loss.

    Args:
        network: the model.
        config: losses and their weights.
    """

    def __init__(self, network: NeuroFMX, config: ObjectiveConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, whole: Batch, shown: Batch, hidden: Mapping[str, Tensor], task: str, offset: Tensor) -> Tensor:
        """The loss of one batch.

        Args:
            whole: everything that is real.
            shown: what the network sees.
            hidden: modality -> (B, T, C), the difference.
            task: the batch's task.
            offset: the linear path's prediction by a fit that did not see these windows.
        """
        out = self.network(shown, task)
        predicted = offset + (out.decode - out.linear)
        total, count = decode_loss(
            predicted, whole.targets[task], loss=self.config.loss, smoothing=self.config.label_smoothing
        )
        loss = total / count.clamp(min=1)
        if self.config.reconstruction:
            loss = loss + self.config.reconstruction * reconstruction_loss(out.recon, whole, hidden)
        return loss
