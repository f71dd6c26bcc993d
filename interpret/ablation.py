"""What a network's answer loses when a part of it says what it said of another window: channels, and blocks.

Resample ablation (Chan et al. 2022; Conmy et al. 2023) keeps every part inside what it does on real data; mean
ablation is shown beside it. All passes through networks are made here once and kept as predictions, so that nulls
and intervals cost none.

Legend: N rows, T bins, C channels, K target columns or classes, G channel groups, R exchanges, S surrogates, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neurofmx.interpret.activations import Part, fewer_windows
from neurofmx.interpret.runner import Data, Measured
from neurofmx.interpret.surrogates import sign_flips
from neurofmx.interpret.terms import Metric, chance_level, score_terms
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import Trained
from neurofmx.types import Batch, Check

MAX_BINS = 800  # bins of the windows that are read
STACK = 4000  # bins of one pass through a network
MAX_GROUPS = 12
EXCHANGES = 2  # with different partners, averaged
TURNS = 39  # random directions of a block's null: each costs a pass through every network

Channel = tuple[str, str, str]  # recording, modality, id


@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels that are ablated together.

    Args:
        name: what a figure calls it.
        channels: of every recording.
    """

    name: str
    channels: frozenset[Channel]


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


def channel_groups(data: TaskData, regions: Mapping[Channel, str]) -> list[Group]:
    """At most 12 groups of channels, declared by names alone: no value is looked at.

    Of each modality: its regions where they are known and two at least; else each channel where there are few and
    they are the same in all recordings; else stretches of the channel table of equal length.

    Args:
        data: the task.
        regions: channel -> region, ``""`` or absent where unknown.
    """
    modalities = sorted({m for w in data.recordings for m in w.channels})
    most, groups = max(1, MAX_GROUPS // max(1, len(modalities))), []
    for modality in modalities:
        tables = {w.recording: w.channels[modality] for w in data.recordings if modality in w.channels}
        listed = [(r, modality, c) for r, ids in tables.items() for c in ids]
        known = sorted({regions.get(channel, "") for channel in listed} - {""})
        same = len(set(tables.values())) == 1
        first = next(iter(tables.values()))
        if 2 <= len(known) <= most:
            names = {channel: regions.get(channel, "") or "no region" for channel in listed}
        elif same and len(first) <= most:
            names = {channel: channel[2] for channel in listed}
        else:
            names = {}
            for recording, ids in tables.items():
                for number, part in enumerate(np.array_split(np.arange(len(ids)), min(most, len(ids)))):
                    span = f"{ids[part[0]]} to {ids[part[-1]]}" if same else f"stretch {number + 1}"
                    names |= {(recording, modality, ids[i]): span for i in part}
        for name in dict.fromkeys(names.values()):
            held = frozenset(channel for channel, own in names.items() if own == name)
            groups.append(Group(name=f"{modality} {name}", channels=held))
    return groups


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


def random_groups(groups: Sequence[Group], rng: np.random.Generator) -> list[Group]:
    """The channels of each recording and modality dealt anew to groups of the same sizes."""
    moved: dict[Channel, Channel] = {}
    every = sorted(channel for group in groups for channel in group.channels)
    for key in sorted({channel[:2] for channel in every}):
        own = [channel for channel in every if channel[:2] == key]
        moved |= {a: own[b] for a, b in zip(own, rng.permutation(len(own)))}
    return [replace(group, channels=frozenset(moved[channel] for channel in group.channels)) for group in groups]


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
        said = _pushed(network, data.name, batch, sites[1], pushes)  # (n, pushes, ...)
        without, mean, turned = np.split(said, [EXCHANGES, EXCHANGES + 1], axis=1)
        return {"without": without, "mean": mean[:, 0], "turned": turned}

    return _collect(data, trained, parts, passes, seed)


def channel_ablation(data: Data, rng: np.random.Generator, n_null: int, *, metric: Metric) -> Measured:
    """How much of the score hangs on the channel group that matters most.

    Args:
        data: what `ablate_channels` gives.
        rng: draws swaps.
        n_null: how many.
        metric: the score.

    Returns:
        The largest drop; the null swaps intact and ablated in resampling units, the same units for all groups, and
        takes the largest drop again (Westfall and Young 1993), so the p of each group, in the array ``p``, is
        corrected for their number.
    """
    score = _scorer(data, metric)
    intact = score("intact")
    drop = intact[:, None] - score("without").mean(2)
    units, row = np.unique(data.unit, return_inverse=True)
    per_unit = np.stack([np.bincount(row, weights=d, minlength=len(units)) for d in drop.T], axis=1)
    total = per_unit.sum(0)
    if n_null == 0 or not np.all(np.isfinite(total)):
        return Measured(value=float(total.max()), null=np.empty(0))
    null = (sign_flips(len(units), rng, n_null) @ per_unit).max(1)
    p = (1 + (null[:, None] >= total - 1e-12).sum(0)) / (len(null) + 1)
    arrays = {"drop": total, "drop_mean": intact.sum() - score("mean").sum(0), "p": p}
    scalars = {"intact": float(intact.sum()), "groups": float(len(total))}
    if "random" in data.arrays:
        arrays["drop_random"] = intact.sum() - score("random").sum(0)
        scalars["largest_of_random_groups"] = float(arrays["drop_random"].max())
    return Measured(
        value=float(total.max()),
        null=null,
        scalars=scalars,
        arrays=arrays,
        checks=(_acts(data), _informed(data, metric, intact)),
    )


def block_ablation(data: Data, rng: np.random.Generator, n_null: int, *, metric: Metric) -> Measured:
    """How much of the score hangs on what one block adds.

    Args:
        data: what `ablate_block` gives.
        rng: not used; the directions were drawn with the passes.
        n_null: how many directions are taken, of those that there are.
        metric: the score.

    Returns:
        The drop when the block says what it said of another window; the null pushes the residual stream as far, in
        random directions.
    """
    score = _scorer(data, metric)
    intact, without = score("intact"), score("without")
    value = float(intact.sum() - without.sum(0).mean())
    if n_null == 0:
        return Measured(value=value, null=np.empty(0))
    return Measured(
        value=value,
        null=intact.sum() - score("turned")[:, :n_null].sum(0),
        scalars={"intact": float(intact.sum()), "mean_ablation": float(intact.sum() - score("mean").sum())},
        checks=(_acts(data), _informed(data, metric, intact)),
    )


def _scorer(data: Data, metric: Metric) -> Callable[[str], np.ndarray]:
    """Name of predictions (N, ..., K) -> what each row adds to the score of each variant (N, ...)."""
    y, recording = data.arrays["y"], np.unique(data.session, return_inverse=True)[1]

    def score(name: str) -> np.ndarray:
        said = data.arrays[name]
        flat = said.reshape(len(said), -1, said.shape[-1])
        terms = [score_terms(metric, y, flat[:, v], recording) for v in range(flat.shape[1])]
        return np.stack(terms, axis=1).reshape(said.shape[:-1])

    return score


def _acts(data: Data) -> Check:
    intact, without = data.arrays["intact"], data.arrays["without"]
    apart = float(np.abs(without - intact.reshape(len(intact), *[1] * (without.ndim - 2), -1)).max())
    return Check(
        name="acts",
        passed=apart > 1e-5 * float(np.abs(intact).max()),  # passes of other sizes round otherwise
        severity="block",
        evidence="Nothing that is ablated reaches the answer.",
    )


def _informed(data: Data, metric: Metric, intact: np.ndarray) -> Check:
    chance, value = chance_level(metric, data.arrays["y"]), float(intact.sum())
    return Check(
        name="above_chance",
        passed=value > chance,
        severity="warn",
        evidence=f"The intact network scores {value:.3f}, not above the {chance:.3f} of a constant answer: "
        "there is little to lose.",
    )


def _collect(
    data: TaskData,
    trained: Mapping[int, Trained],
    parts: list[Part],
    passes: Callable[[Trained, Part, Batch], dict[str, np.ndarray]],
    seed: int,
) -> Predictions:
    rng = np.random.default_rng([seed, 1])  # every ablation reads the same windows
    blocks = []
    for part in fewer_windows(parts, MAX_BINS, rng, trials=data.kind == "class"):
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


def _pushed(network: Trained, task: str, batch: Batch, site: str, pushes: Sequence[Sequence[Tensor]]) -> np.ndarray:
    """(n, pushes, ...) answers with what a site holds moved by one (n, T, D) a modality."""
    said = []
    for some in _stacks(batch, len(pushes)):
        moves = iter([torch.cat([pushes[i][m] for i in some]) for m in range(len(batch.streams))])

        def edit(tokens: Tensor, moves: Iterator[Tensor] = moves) -> Tensor:  # one call a modality, in their order
            return tokens + next(moves)

        stacked = _repeated(batch, len(some))
        said.append(_unstacked(_decode(network, task, stacked, {site: edit}), len(batch.recording)))
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
def _decode(
    network: Trained, task: str, batch: Batch, edits: Mapping[str, Callable[[Tensor], Tensor]] | None = None
) -> np.ndarray:
    """(n, T, K) in the target's units, or (n, K) class probabilities; float32."""
    decoded = network.model(batch, task, edits=edits).decode
    if network.tasks[task].kind == "class":
        return torch.softmax(decoded, dim=-1).cpu().numpy()
    norm = network.normalisation
    return decoded.cpu().numpy() * norm.target_std[task] + norm.target_mean[task]
