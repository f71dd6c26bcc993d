"""Channels -> one token a bin: a sum over channels, so their order and number are free; O(C).

Two paths are added. The linear read-in weighs each channel's fields with its own vector (the "stitching" read-in
of LFADS, Pandarinath et al. 2018). The attention path has a few learned queries attend over channels, by who the
channel is and by what it carries (Jaegle et al. 2021, Perceiver; Azabou et al. 2023, POYO).

Legend: B batch, T time, C channels, P fields, E channel width, L latent queries, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurofmx.model.embeddings import over_channels


class Population(nn.Module):
    """Aggregates one modality's channels, whatever their order and number.

    Args:
        fields: P.
        channel_width: E.
        width: D.
        latents: L; 0 leaves the attention path out.
    """

    def __init__(self, fields: int, *, channel_width: int, width: int, latents: int) -> None:
        super().__init__()
        self.read_in = nn.Linear(fields * channel_width, width)
        self.modality = nn.Parameter(torch.randn(width) * 0.02)
        self.latents = latents
        if latents:
            self.query = nn.Parameter(torch.randn(channel_width, latents))
            self.content = nn.Parameter(torch.randn(fields, latents) * 0.1)
            self.mix = nn.Linear(latents * (fields + 1) * channel_width, width, bias=False)

    def forward(self, values_btcp: Tensor, mask_btc: Tensor, vectors: Tensor) -> Tensor:
        """Sums channels into tokens.

        Args:
            values_btcp: (B, T, C, P), zero where the mask is False.
            mask_btc: (B, T, C) bool.
            vectors: (C, E) or (B, C, E).

        Returns:
            (B, T, D); the modality's vector alone where no channel is real.
        """
        count = mask_btc.sum(-1).clamp(min=1).to(values_btcp.dtype)
        by_field = values_btcp.transpose(2, 3)  # (B, T, P, C)
        summed = over_channels(by_field, vectors) / count.sqrt()[..., None, None]
        token = self.read_in(summed.flatten(-2)) + self.modality
        if self.latents:
            token = token + self.mix(self._attend(by_field, values_btcp, mask_btc, vectors))
        return token

    def _attend(self, by_field: Tensor, values: Tensor, mask: Tensor, vectors: Tensor) -> Tensor:
        """(B, T, L (P + 1) E): each query's weighted mean of channel vectors, and of fields times vectors."""
        who = (vectors @ self.query).transpose(-1, -2)  # (L, C) or (B, L, C)
        who = who if who.dim() == 2 else who[:, None]
        scores = who + (values @ self.content).transpose(-1, -2)  # (B, T, L, C)
        scores = scores.masked_fill(~mask[:, :, None], torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1) * mask[:, :, None]
        carried = torch.cat([weights[:, :, :, None], weights[:, :, :, None] * by_field[:, :, None]], dim=3)
        return over_channels(carried, vectors).flatten(2)  # (B, T, L, P + 1, C) @ (C, E)
