"""Which channels are ablated together: groups declared by names alone, before any value is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from neurofmx import catalog
from neurofmx.tokenize.windows import SHARED, TaskData

if TYPE_CHECKING:
    from neurofmx.lake import Lake

MAX_GROUPS = 8

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


def channel_groups(data: TaskData, regions: Mapping[Channel, str]) -> list[Group]:
    """At most 8 groups of channels, declared by names alone: no value is looked at.

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


def random_groups(groups: Sequence[Group], rng: np.random.Generator) -> list[Group]:
    """The channels of each recording and modality dealt anew to groups of the same sizes."""
    moved: dict[Channel, Channel] = {}
    every = sorted(channel for group in groups for channel in group.channels)
    for key in sorted({channel[:2] for channel in every}):
        own = [channel for channel in every if channel[:2] == key]
        moved |= {a: own[b] for a, b in zip(own, rng.permutation(len(own)))}
    return [replace(group, channels=frozenset(moved[channel] for channel in group.channels)) for group in groups]


def regions_of(lake: Lake, data: TaskData) -> dict[Channel, str]:
    """Regions that the catalog knows of a task's channels, by the names that the task's inputs give them."""
    found = {}
    for windows in data.recordings:
        modality = {row["stream"]: row["modality"] for row in catalog.rows(lake, "streams", windows.recording)}
        known = {}
        for row in catalog.rows(lake, "channels", windows.recording):
            for key in (row["stream"], modality.get(row["stream"], "")):
                known[key, row["channel"]] = row["region"] or ""
        for name, ids in windows.channels.items():
            modality_name = name.removesuffix(SHARED)
            for channel in ids:
                found[windows.recording, name, channel] = known.get((modality_name, channel), "")
    return found
