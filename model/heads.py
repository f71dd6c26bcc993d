"""Latents -> predictions: decoding a bin or a window, reconstructing channels, and the linear path beside them.

Legend: B batch, T time, C channels, P fields, E channel width, V vocabulary rows, K lags, W latent width, D target.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neurofmx.model.embeddings import over_channels, shared_rows
from neurofmx.model.ssm import RMSNorm


class BinHead(nn.Module):
    """D numbers a bin; starts at zero, so that a new model adds nothing to the linear path."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.norm, self.out = RMSNorm(width), nn.Linear(width, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, latents_btw: Tensor, real_bt: Tensor) -> Tensor:
        """(B, T, W), (B, T) -> (B, T, D)."""
        return self.out(self.norm(latents_btw))


class WindowHead(nn.Module):
    """D scores a window, from a mean over its real bins whose weights are learned; starts at zero."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.norm, self.weigh, self.out = RMSNorm(width), nn.Linear(width, 1), nn.Linear(width, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, latents_btw: Tensor, real_bt: Tensor) -> Tensor:
        """(B, T, W), (B, T) -> (B, D); a window without a real bin gives the bias alone."""
        latents = self.norm(latents_btw)
        scores = self.weigh(latents)[..., 0].masked_fill(~real_bt, torch.finfo(latents.dtype).min)
        weights = torch.softmax(scores, dim=-1) * real_bt
        return self.out((weights[..., None] * latents).sum(1))


class Reconstruction(nn.Module):
    """Every channel's fields from the latent of its bin and the channel's vector."""

    def __init__(self, width: int, *, channel_width: int, fields: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, fields * channel_width)
        self.fields = fields

    def forward(self, latents_btw: Tensor, vectors: Tensor) -> Tensor:
        """(B, T, W) and (C, E) or (B, C, E) -> (B, T, C, P)."""
        mixed = self.out(latents_btw).unflatten(-1, (self.fields, -1))  # (B, T, P, E)
        return over_channels(mixed, vectors.transpose(-1, -2)).transpose(2, 3)


class LinearPath(nn.Module):
    """A linear decoder per task beside the network: fitted in closed form on training folds, never by gradient.

    Channels, lags and fields each have their own weight, so on one recording this is ridge (or, per window,
    logistic) regression; the network learns what is left. Weights are buffers: saved, not optimised.

    Args:
        rows: V.
        recordings: number of recordings, each with its own offset.
        lags: bins relative to the decoded one; ignored for windows, which are averaged over time.
        fields: largest P.
        dim: D.
        per_bin: True for D numbers a bin, False for D scores a window.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, rows: int, recordings: int, *, lags: Sequence[int], fields: int, dim: int, per_bin: bool
    ) -> None:
        super().__init__()
        self.lags = tuple(lags) if per_bin else (0,)
        self.per_bin = per_bin
        self.register_buffer("weight", torch.zeros(rows, len(self.lags), fields, dim))
        self.register_buffer("bias", torch.zeros(recordings, dim))

    def forward(self, streams: Sequence[tuple[Tensor, Tensor, Tensor]], recording_b: Tensor) -> Tensor:
        """Decodes linearly.

        Args:
            streams: per modality the values (B, T, C, P), mask (B, T, C) and channel rows (B, C).
            recording_b: (B,) rows of recordings.

        Returns:
            (B, T, D), a lag beyond the window counting as 0 (the mean); or (B, D).
        """
        bias = self.bias[recording_b]
        total = bias[:, None] if self.per_bin else bias
        for values, mask, channel in streams:
            rows = shared_rows(channel)
            weight = self.weight[rows.clamp(min=0), :, : values.shape[-1]]  # (.., C, K, P, D)
            if not self.per_bin:
                seen = mask.sum(1).clamp(min=1).to(values.dtype)
                values = (values.sum(1) / seen[..., None])[:, None]  # (B, 1, C, P)
            for k, lag in enumerate(self.lags):
                part = weight[..., k, :, :].transpose(-3, -2).flatten(-3, -2)  # (.., P C, D)
                read = shifted(over_channels(values.transpose(2, 3).flatten(2), part), -lag)
                total = total + (read if self.per_bin else read[:, 0])
        return total


def shifted(values_bt: Tensor, by: int) -> Tensor:
    """Moves (B, T, ...) later by ``by`` bins (earlier if negative); what enters is 0."""
    if by == 0:
        return values_bt
    out = torch.zeros_like(values_bt)
    if by > 0:
        out[:, by:] = values_bt[:, :-by]
    else:
        out[:, :by] = values_bt[:, -by:]
    return out
