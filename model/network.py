"""The network: streams -> population -> state-space backbone -> fusion -> heads, each part replaceable by config.

Legend: B batch, T time, C channels, P fields, E channel width, D width, M modalities, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neurofmx.errors import ConfigError
from neurofmx.model.config import HeadSpec, ModelConfig
from neurofmx.model.embeddings import ChannelTable, real_values
from neurofmx.model.fusion import Fusion
from neurofmx.model.heads import BinHead, LinearPath, Reconstruction, WindowHead
from neurofmx.model.population import Population
from neurofmx.model.ssm import Bidirectional, Block, Mamba2
from neurofmx.types import Batch

Edit = Callable[[Tensor], Tensor]
GROUPS = ("channels", "core", "head")


@dataclass(frozen=True, kw_only=True)
class Output:
    """What one pass gives.

    Args:
        decode: (B, T, K) or (B, K): linear path plus network, in normalised units or as logits.
        linear: the linear path's part of it.
        recon: modality -> (B, T, C, P), in normalised units.
        latents: (B, T, D), what the heads read.
    """

    decode: Tensor
    linear: Tensor
    recon: Mapping[str, Tensor]
    latents: Tensor


class NeuroFMX(nn.Module):
    """A small multimodal model of population recordings.

    Args:
        config: sizes.
        fields: modality -> P.
        n_channels: V, rows of the channel vocabulary.
        heads: task -> its head.
        n_recordings: rows of recordings, for the linear path's offsets.

    Raises:
        ConfigError: no modality or no task.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        fields: Mapping[str, int],
        n_channels: int,
        heads: Mapping[str, HeadSpec],
        n_recordings: int = 1,
    ) -> None:
        super().__init__()
        if not fields or not heads:
            raise ConfigError("model", got=f"modalities {sorted(fields)}, tasks {sorted(heads)}", expected="some")
        self.config, self.fields, self.heads_by_task = config, dict(fields), dict(heads)
        self.n_channels, self.n_recordings = n_channels, n_recordings
        width, channel_width = config.width, config.channel_width
        self.channels = ChannelTable(n_channels, channel_width)
        self.population = nn.ModuleDict(
            {
                modality: Population(p, channel_width=channel_width, width=width, latents=config.latents)
                for modality, p in fields.items()
            }
        )
        self.blocks = nn.ModuleList(Block(_mixer(config), width, config.dropout) for _ in range(config.blocks))
        self.fusion = Fusion(width, latents=config.fusion_latents, past=config.fusion_past)
        # task names may hold dots, module names may not: heads are numbered in the order of the tasks
        self.rows_of_tasks = {task: row for row, task in enumerate(heads)}
        self.heads = nn.ModuleList(
            BinHead(width, spec.dim) if spec.kind == "continuous" else WindowHead(width, spec.dim)
            for spec in heads.values()
        )
        self.linear = nn.ModuleList(
            LinearPath(
                n_channels,
                n_recordings,
                lags=config.lags,
                fields=max(fields.values()),
                dim=spec.dim,
                per_bin=spec.kind == "continuous",
            )
            for spec in heads.values()
        )
        self.reconstruction = nn.ModuleDict(
            {m: Reconstruction(width, channel_width=channel_width, fields=p) for m, p in fields.items()}
        )

    def sites(self) -> tuple[str, ...]:
        """Names of the places that `features` reads and ``edits`` can change, in the order of the computation."""
        return ("population", *(f"block.{i}" for i in range(len(self.blocks))), "fusion")

    def group(self, name: str) -> list[nn.Parameter]:
        """The parameters of one of ``GROUPS``: what adaptation may train or leave alone.

        Raises:
            ConfigError: no such group.
        """
        if name == "channels":
            return list(self.channels.parameters())
        if name == "head":
            return list(self.heads.parameters())
        if name == "core":
            parts = (self.population, self.blocks, self.fusion, self.reconstruction)
            return [p for part in parts for p in part.parameters()]
        raise ConfigError("parameter group", got=name, expected=f"one of {GROUPS}")

    def forward(self, batch: Batch, task: str, *, edits: Mapping[str, Edit] | None = None) -> Output:
        """Runs one batch of one task.

        Args:
            batch: tokens by modality, all on the same T bins, in normalised units.
            task: whose head decodes.
            edits: site -> function of (B, T, D) (at ``fusion`` and, one modality at a time, before it) that
                replaces what the site holds; for ablation and for reading.

        Returns:
            The output; changing what the masks mark False changes no bit of it.

        Raises:
            ConfigError: a task or modality that the model does not have, or a channel row beyond its vocabulary.
        """
        if task not in self.rows_of_tasks:
            raise ConfigError("task", got=task, expected=f"one of {sorted(self.rows_of_tasks)}")
        latents, real_bt, streams, vectors = self._encode(batch, edits or {})
        row = self.rows_of_tasks[task]
        linear = self.linear[row](list(streams.values()), batch.recording)
        recon = {m: self.reconstruction[m](latents, vectors[m]) for m in streams}
        return Output(decode=linear + self.heads[row](latents, real_bt), linear=linear, recon=recon, latents=latents)

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """What every site holds: site -> (B, T, D), the mean over modalities before fusion."""
        held: dict[str, list[Tensor]] = {site: [] for site in self.sites()}

        def keep(site: str) -> Edit:
            def edit(tokens: Tensor) -> Tensor:
                held[site].append(tokens)
                return tokens

            return edit

        self._encode(batch, {site: keep(site) for site in held})
        return {site: torch.stack(tokens).mean(0) for site, tokens in held.items()}

    def _encode(
        self, batch: Batch, edits: Mapping[str, Edit]
    ) -> tuple[Tensor, Tensor, dict[str, tuple[Tensor, Tensor, Tensor]], dict[str, Tensor]]:
        unknown = sorted(set(edits) - set(self.sites()))
        missing = sorted(set(batch.streams) - set(self.population))
        if unknown or missing or not batch.streams:
            raise ConfigError(
                "batch",
                got=f"modalities {sorted(batch.streams)}, edits at {unknown or 'known sites'}",
                expected=f"modalities out of {sorted(self.population)}, sites out of {self.sites()}",
            )
        streams, vectors, tokens = {}, {}, []
        for modality, stream in batch.streams.items():
            values, mask = real_values(stream.values, stream.mask, stream.channel, rows=self.n_channels)
            streams[modality] = (values, mask, stream.channel)
            vectors[modality] = self.channels(stream.channel)
            tokens.append(self.population[modality](values, mask, vectors[modality]))
        count = len(tokens)
        hidden = torch.cat(tokens)  # modalities share the backbone: (M B, T, D)
        hidden = _edited(hidden, edits.get("population"), count)
        for i, block in enumerate(self.blocks):
            hidden = _edited(block(hidden), edits.get(f"block.{i}"), count)
        real_mbt = torch.stack([mask.any(-1) for _, mask, _ in streams.values()])
        latents = self.fusion(hidden.unflatten(0, (count, -1)), real_mbt)
        return _edited(latents, edits.get("fusion"), 1), real_mbt.any(0), streams, vectors


def _edited(hidden: Tensor, edit: Edit | None, count: int) -> Tensor:
    return hidden if edit is None else torch.cat([edit(part) for part in hidden.chunk(count)])


def _mixer(config: ModelConfig) -> Mamba2 | Bidirectional:
    def one() -> Mamba2:
        return Mamba2(
            config.width,
            state=config.state,
            head_width=config.head_width,
            expand=config.expand,
            conv=config.conv,
            chunk=config.chunk,
        )

    return Bidirectional(one(), one()) if config.bidirectional else one()
