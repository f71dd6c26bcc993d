"""Sizes of the network: one frozen dataclass, part of a recipe and of its digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from neurofmx.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a `NeuroFMX`.

    Args:
        width: D, size of a latent token.
        channel_width: E, size of a channel's learned vector.
        latents: queries that attend over channels; 0 leaves only the linear read-in.
        blocks: Mamba-2 blocks in the backbone.
        state: N, state size of a head.
        head_width: channels of one state-space head; divides ``expand * width``.
        expand: inner width of a block over D.
        conv: taps of the causal convolution in a block.
        chunk: bins of one SSD chunk.
        bidirectional: whether every block also reads time backwards (offline only).
        fusion_latents: Perceiver latents of a bin where a recording has several modalities.
        fusion_past: bins that fusion looks back over, the present one included.
        lags: bins (negative is the past) that the linear path reads; empty leaves the path out.
        dropout: probability on the residual stream of every block.
    """

    width: int = 64
    channel_width: int = 32
    latents: int = 4
    blocks: int = 2
    state: int = 16
    head_width: int = 32
    expand: int = 2
    conv: int = 4
    chunk: int = 32
    bidirectional: bool = False
    fusion_latents: int = 4
    fusion_past: int = 4
    lags: tuple[int, ...] = (-4, -3, -2, -1, 0)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if (self.width * self.expand) % self.head_width:
            raise ConfigError(
                "model.head_width", got=self.head_width, expected=f"a divisor of {self.width * self.expand}"
            )
        if not self.bidirectional and any(lag > 0 for lag in self.lags):
            raise ConfigError(
                "model.lags",
                got=str(self.lags),
                expected="no future bin in a causal model",
                fix="Set model.bidirectional=true, or leave the positive lags out.",
            )


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """What a task's head gives out.

    Args:
        kind: ``continuous`` for D numbers a bin, ``class`` for D scores a window.
        dim: D.
    """

    kind: Literal["continuous", "class"]
    dim: int
