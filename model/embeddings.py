"""Who a channel is and what it carries: learned channel vectors, modality vectors.

Legend: B batch, T time, C channels, P fields, E channel width, V vocabulary rows, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurofmx.errors import ConfigError


class ChannelTable(nn.Module):
    """One learned vector for each channel of the vocabulary.

    Args:
        rows: V.
        width: E.
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, width) * width**-0.5)

    def forward(self, channel_bc: Tensor) -> Tensor:
        """(B, C) rows -> (B, C, E), or (C, E) where the batch shares one row of channels; padding (-1) gives 0."""
        rows = shared_rows(channel_bc)
        found = self.weight[rows.clamp(min=0)]
        return found * (rows >= 0).unsqueeze(-1)


def shared_rows(channel_bc: Tensor) -> Tensor:
    """(B, C) -> (C,) if the batch is one row expanded (one recording), else as it is: spares B gathers."""
    return channel_bc[0] if channel_bc.stride(0) == 0 or len(channel_bc) == 1 else channel_bc


def over_channels(values: Tensor, vectors: Tensor) -> Tensor:
    """Sums values over channels against their vectors.

    Args:
        values: (B, ..., C).
        vectors: (C, E) or (B, C, E).

    Returns:
        (B, ..., E).
    """
    if vectors.dim() == 2:
        return values @ vectors
    flat = values.flatten(1, -2) @ vectors
    return flat.unflatten(1, values.shape[1:-1])


def real_values(values_btcp: Tensor, mask_btc: Tensor, channel_bc: Tensor, *, rows: int) -> tuple[Tensor, Tensor]:
    """Zeroes what is not real, so that nothing there (NaN included) can reach an output.

    Returns:
        Values (B, T, C, P) and mask (B, T, C), False at padding channels too.

    Raises:
        ConfigError: a channel row beyond the vocabulary.
    """
    top = int(channel_bc.max()) if channel_bc.numel() else -1
    if top >= rows:
        raise ConfigError("channel row", got=top, expected=f"less than {rows}, the rows of this model's vocabulary")
    mask = mask_btc & (channel_bc >= 0)[:, None]
    return torch.where(mask[..., None], values_btcp, values_btcp.new_zeros(())), mask
