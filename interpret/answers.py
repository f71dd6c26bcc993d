"""What networks answer when a part of them says what it said of another window: channels, and blocks.

Resample ablation (Chan et al. 2022; Conmy et al. 2023) keeps every part inside what it does on real data; mean
ablation is shown beside it. All passes through networks are made here once and kept as predictions, so that nulls
and intervals cost none.

Legend: N rows, n windows, T bins, K target columns or classes, G channel groups, R exchanges, S surrogates, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neurofmx.interpret.activations import Part, fewer_windows
from neurofmx.interpret.channels import Group, random_groups
from neurofmx.interpret.runner import Data
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import Trained
from neurofmx.types import Batch

MAX_BINS = 1000  # bins of the windows that are read
LEAST_TRIALS = 48  # windows of a task of classes, where each gives one row: read even if they have more bins
STACK = 4000  # bins of one pass through a network
EXCHANGES = 2  # with different partners, averaged
TURNS = 39  # random directions of a block's null


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What networks say of the same rows, intact and ablated.

    Args:
        arrays: ``y``; ``intact`` (N, K); ablated ones (N, ..., K).
        unit: (N,) str.
        session: (N,) str, recording.
        model: (N,) int, fold of the network.
    """

    arrays: Mapping[str, np.ndarray]
    unit: np.ndarray
    session: np.ndarray
    model: np.ndarray

    def as_data(self, subject: str, *, confirmatory: bool, provenance: Mapping[str, str]) -> Data:
        """The same as input of an analysis; nothing is fitted, so each network is one fold."""
        return Data(
            subject=subject,
            arrays=self.arrays,
            unit=self.unit,
            session=self.session,
            fold=self.model.astype(str),
            model=self.model,
            ordered=True,
            confirmatory=confirmatory,
            provenance=provenance,
        )


def ablate_channels(
    data: TaskData, trained: Mapping[int, Trained], parts: list[Part], groups: Sequence[Group], *, seed: int
) -> Predictions:
    """Predictions with each group's channels taken from another window of the same recording and fold.

    Args:
        data: the task.
        trained: fold -> the network that held it out.
        parts: windows to read.
        groups: G groups.
        seed: of windows, partners and random groups.

    Returns:
        ``without`` (N, G, R, K), ``mean`` (N, G, K): channels at their training means; and, where a group has more
        than one channel, ``random`` (N, G, K): channels dealt at random to groups of the same sizes.
    """
    rng = np.random.default_rng([seed, 2])
    by_chance = random_groups(groups, rng) if any(len(g.channels) > len(data.recordings) for g in groups) else []

    def passes(network: Trained, part: Part, batch: Batch) -> dict[str, np.ndarray]:
        partners = _partners(len(part.rows), EXCHANGES, rng)
        swaps = [(_columns(g, part), partner) for g in groups for partner in partners]
        swaps += [(_columns(g, part), None) for g in groups]
        swaps += [(_columns(g, part), partners[0]) for g in by_chance]
        said = _swapped(network, data.name, batch, swaps)  # (n, swaps, ...)
        without, mean, random = np.split(said, [len(groups) * EXCHANGES, len(groups) * (EXCHANGES + 1)], axis=1)
        found = {"without": without.reshape(len(said), len(groups), EXCHANGES, *said.shape[2:]), "mean": mean}
        return found | ({"random": random} if by_chance else {})

    return _collect(data, trained, parts, passes, seed)


def ablate_block(
    data: TaskData, trained: Mapping[int, Trained], parts: list[Part], block: int, *, seed: int
) -> Predictions:
    """Predictions with what one block adds to the residual stream replaced.

    Args:
        data: the task.
        trained: fold -> the network that held it out.
        parts: windows to read.
        block: its number.
        seed: of windows, partners and directions.

    Returns:
        ``without`` (N, R, K): what it adds in another window of the recording; ``mean`` (N, K): what it adds on
        average; ``turned`` (N, S, K): the same change as the first exchange makes, turned to a random direction of
        the residual stream, one rotation a surrogate, so that the size in every bin stays.
    """
    rng = np.random.default_rng([seed, 3, block])
    width = next(iter(trained.values())).model.config.width
    turns = [
        torch.from_numpy(np.linalg.qr(rng.standard_normal((width, width)))[0].astype(np.float32)) for _ in range(TURNS)
    ]
    sites = ("population" if block == 0 else f"block.{block - 1}", f"block.{block}")

    def passes(network: Trained, part: Part, batch: Batch) -> dict[str, np.ndarray]:
        before, after = _held(network, data.name, batch, sites)
        added = [b - a for a, b in zip(before, after)]
        partners = _partners(len(part.rows), EXCHANGES, rng)
        exchanged = [[one[partner] - one for one in added] for partner in partners]
        average = [one.mean((0, 1)) - one for one in added]
        pushes = [*exchanged, average, *([one @ turn for one in exchanged[0]] for turn in turns)]
        said = _pushed(network, data.name, batch, block, after, pushes)  # (n, pushes, ...)
        without, mean, turned = np.split(said, [EXCHANGES, EXCHANGES + 1], axis=1)
        return {"without": without, "mean": mean[:, 0], "turned": turned}

    return _collect(data, trained, parts, passes, seed)


def _collect(
    data: TaskData,
    trained: Mapping[int, Trained],
    parts: list[Part],
    passes: Callable[[Trained, Part, Batch], dict[str, np.ndarray]],
    seed: int,
) -> Predictions:
    rng = np.random.default_rng([seed, 1])  # every ablation reads the same windows
    blocks = []
    trials = data.kind == "class"
    for part in fewer_windows(parts, MAX_BINS, rng, trials=trials, least=LEAST_TRIALS if trials else 0):
        if len(part.rows) < 2:  # no other window to exchange with
            continue
        network, windows, rows = trained[part.fold], part.windows, part.rows
        batch = network.batch(data.name, windows, rows)
        said = {"intact": _decode(network, data.name, batch)} | passes(network, part, batch)
        known = windows.target_mask[rows]
        window = np.nonzero(known)[0]
        arrays = {"y": windows.target[rows]} | said
        labels = {"unit": windows.unit[rows][window], "session": np.full(len(window), windows.recording)}
        labels["model"] = np.full(len(window), part.fold)
        blocks.append({k: _known(a, known) for k, a in arrays.items()} | labels)
    joined = {k: np.concatenate([b[k] for b in blocks]) for k in (blocks[0] if blocks else ())}
    none = np.empty(0)
    labels = [joined.pop(k, none) for k in ("unit", "session", "model")]
    return Predictions(arrays=joined, unit=labels[0], session=labels[1], model=labels[2])


def _known(array: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Rows of windows, or of their scored bins: (n, ..., T, K) -> (N, ..., K)."""
    if known.ndim == 1:
        return array[known]
    return np.moveaxis(array, -2, 1)[known]


def _partners(n: int, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Orders of n windows in which none keeps its place: shifts by different, drawn numbers of windows."""
    by = 1 + rng.permutation(n - 1)
    return [np.roll(np.arange(n), int(by[i % len(by)])) for i in range(count)]


def _columns(group: Group, part: Part) -> dict[str, list[int]]:
    return {
        m: [i for i, c in enumerate(ids) if (part.windows.recording, m, c) in group.channels]
        for m, ids in part.windows.channels.items()
    }


def _swapped(
    network: Trained, task: str, batch: Batch, swaps: Sequence[tuple[Mapping[str, list[int]], np.ndarray | None]]
) -> np.ndarray:
    """(n, swaps, ...) answers with some columns of another window, mask and all; or at their training means (None)."""
    n, said = len(batch.recording), []
    for some in _stacks(batch, len(swaps)):
        stacked = _repeated(batch, len(some))
        for modality, tokens in batch.streams.items():
            values, mask = stacked.streams[modality].values, stacked.streams[modality].mask
            for place, number in enumerate(some):
                columns, partner = swaps[number]
                own, chosen = slice(place * n, (place + 1) * n), columns[modality]
                if partner is None:
                    values[own, :, chosen] = 0
                else:
                    other = torch.from_numpy(partner)
                    values[own, :, chosen] = tokens.values[other][:, :, chosen]
                    mask[own, :, chosen] = tokens.mask[other][:, :, chosen]
        said.append(_unstacked(_decode(network, task, stacked), n))
    return np.concatenate(said, axis=1)


@torch.no_grad()
def _pushed(
    network: Trained, task: str, batch: Batch, block: int, held: Sequence[Tensor], pushes: Sequence[Sequence[Tensor]]
) -> np.ndarray:
    """(n, pushes, ...) answers with what a block leaves moved; only what comes after the block is computed again.

    Args:
        network: the network.
        task: whose head answers.
        batch: its input.
        block: number of the block.
        held: what the block leaves, (n, T, D) a modality.
        pushes: what is added to that, (n, T, D) a modality.
    """
    model, n = network.model, len(batch.recording)
    linear = model(batch, task).linear
    real = torch.stack([tokens.mask.any(-1) for tokens in batch.streams.values()])
    said = []
    for some in _stacks(batch, len(pushes)):
        hidden = torch.cat([one + pushes[i][m] for m, one in enumerate(held) for i in some])
        for later in model.blocks[block + 1 :]:
            hidden = later(hidden)
        again = real.repeat(1, len(some), 1)
        latents = model.fusion(hidden.unflatten(0, (len(held), -1)), again)
        decoded = model.heads[model.rows_of_tasks[task]](latents, again.any(0))
        decoded = decoded + linear.repeat(len(some), *[1] * (linear.dim() - 1))
        said.append(_unstacked(_in_units(network, task, decoded), n))
    return np.concatenate(said, axis=1)


def _stacks(batch: Batch, count: int) -> list[range]:
    """Numbers of variants that share a pass of about `STACK` bins: small passes are all overhead."""
    bins = next(iter(batch.streams.values())).mask.shape[:2].numel()
    size = max(1, STACK // bins)
    return [range(i, min(i + size, count)) for i in range(0, count, size)]


def _repeated(batch: Batch, times: int) -> Batch:
    streams = {
        m: replace(
            t,
            values=t.values.repeat(times, 1, 1, 1),
            time_s=t.time_s.repeat(times, 1),
            mask=t.mask.repeat(times, 1, 1),
            channel=t.channel[:1].expand(times * len(t.channel), -1),
        )
        for m, t in batch.streams.items()
    }
    return Batch(streams=streams, targets={}, recording=batch.recording.repeat(times))


def _unstacked(said: np.ndarray, n: int) -> np.ndarray:
    return np.moveaxis(said.reshape(-1, n, *said.shape[1:]), 0, 1)


@torch.no_grad()
def _held(network: Trained, task: str, batch: Batch, sites: Sequence[str]) -> list[list[Tensor]]:
    """What sites hold: one list of (n, T, D) a site, one entry a modality."""
    held: dict[str, list[Tensor]] = {site: [] for site in sites}

    def keep(site: str) -> Callable[[Tensor], Tensor]:
        def edit(tokens: Tensor) -> Tensor:
            held[site].append(tokens)
            return tokens

        return edit

    network.model(batch, task, edits={site: keep(site) for site in sites})
    return [held[site] for site in sites]


@torch.no_grad()
def _decode(network: Trained, task: str, batch: Batch) -> np.ndarray:
    """(n, T, K) in the target's units, or (n, K) class probabilities; float32."""
    return _in_units(network, task, network.model(batch, task).decode)


def _in_units(network: Trained, task: str, decoded: Tensor) -> np.ndarray:
    if network.tasks[task].kind == "class":
        return torch.softmax(decoded, dim=-1).cpu().numpy()
    norm = network.normalisation
    return decoded.cpu().numpy() * norm.target_std[task] + norm.target_mean[task]
