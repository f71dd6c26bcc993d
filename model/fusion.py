"""Modalities -> one token a bin: Perceiver-IO over (recent bins, modalities); one modality passes unchanged.

Jaegle et al. 2022, "Perceiver IO". A few latents of each bin read that bin and a bounded past of every modality;
the bin's mean token then reads the latents. Nothing reads the future, so fusion can stream.

Legend: B batch, T time, M modalities, R bins of past, D width, L latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurofmx.model.ssm import RMSNorm


class CrossAttention(nn.Module):
    """Multi-head attention of queries over keys, of width D."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_key = RMSNorm(width), RMSNorm(width)
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, query_nqd: Tensor, key_nkd: Tensor, mask_nk: Tensor | None = None) -> Tensor:
        """(N, Q, D) over (N, K, D) -> (N, Q, D); zero for a row in which no key is real."""
        query = self.to_query(self.norm_query(query_nqd)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        pair = self.to_key_value(self.norm_key(key_nkd)).unflatten(-1, (2, self.heads, -1))
        key, value = pair.permute(2, 0, 3, 1, 4)
        if mask_nk is None:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            some = mask_nk.any(-1)
            allowed = mask_nk | ~some[:, None]  # a row without keys would be NaN; it is zeroed below
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed[:, None, None])
            mixed = mixed * some[:, None, None, None]
        return self.out(mixed.transpose(1, 2).flatten(-2))


class Fusion(nn.Module):
    """Perceiver-IO fusion, residual on the mean of the modalities.

    Args:
        width: D.
        latents: L.
        past: R, bins read, the present one included.
    """

    def __init__(self, width: int, *, latents: int, past: int) -> None:
        super().__init__()
        self.past = past
        self.latents = nn.Parameter(torch.randn(latents, width) * 0.5)
        self.lag = nn.Parameter(torch.randn(past, width) * 0.02)
        self.encode, self.decode = CrossAttention(width), CrossAttention(width)
        self.mlp = nn.Sequential(RMSNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens_mbtd: Tensor, mask_mbt: Tensor) -> Tensor:
        """Joins modalities.

        Args:
            tokens_mbtd: (M, B, T, D).
            mask_mbt: (M, B, T) bool, True where the modality has a real channel.

        Returns:
            (B, T, D): the token itself where M is 1, else the mean of the real modalities plus what fusion adds.
        """
        modalities, batch, steps, width = tokens_mbtd.shape
        if modalities == 1:
            return tokens_mbtd[0]
        weight = mask_mbt.to(tokens_mbtd.dtype)[..., None]
        mean = (tokens_mbtd * weight).sum(0) / weight.sum(0).clamp(min=1)
        padded = F.pad(tokens_mbtd, (0, 0, self.past - 1, 0)).unfold(2, self.past, 1)  # (M, B, T, D, R)
        keys = padded.permute(1, 2, 4, 0, 3) + self.lag[:, None]  # (B, T, R, M, D)
        real = F.pad(mask_mbt, (self.past - 1, 0)).unfold(2, self.past, 1).permute(1, 2, 3, 0)
        keys, real = keys.reshape(batch * steps, -1, width), real.reshape(batch * steps, -1)
        latents = self.latents.expand(batch * steps, -1, -1)
        latents = latents + self.encode(latents, keys, real)
        latents = latents + self.mlp(latents)
        return mean + self.decode(mean.reshape(batch * steps, 1, width), latents).view(batch, steps, width)
