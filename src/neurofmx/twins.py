"""Which recordings of a lake hold the same thing: a stream's content, a raw file, or one recording published twice."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neurofmx import parts

if TYPE_CHECKING:
    import pyarrow as pa

    from neurofmx.lake import Lake

STREAM, FILE, RECORDING = "stream", "file", "recording"
LEAST = 32  # samples or events below which two streams may agree by chance
# what is shown to a subject, or is the same in every session of a rig: equal in recordings that have no signal in
# common, so it tells of a twin only where a recording holds nothing else
SHOWN = frozenset(("sound", "spectrogram", "stimulus", "status", "target", "reference"))


@dataclass(frozen=True, kw_only=True, order=True)
class Link:
    """Recordings that share one thing.

    Args:
        kind: ``stream`` (decoded values and times of a signal), ``file`` (the largest raw file) or ``recording``
            (the same dataset and name in another version or another archive).
        what: digest of the content, or dataset and name.
        recordings: text ids, sorted, at least two.
    """

    kind: str
    what: str
    recordings: tuple[str, ...]


def links(lake: Lake) -> tuple[Link, ...]:
    """Everything that recordings of a lake share, read from its catalog."""
    streams = parts.read(lake, "streams", ["recording_id", "kind", "modality", "n", "digest"])
    lineage = parts.read(lake, "lineage", ["child", "child_kind", "parent", "parent_kind", "detail"])
    return links_of(
        parts.read(lake, "recordings", ["recording_id", "dataset", "name"]).to_pylist(),
        _repeated(streams, "digest", "recording_id"),
        _repeated(lineage, "parent", "child"),
    )


def _repeated(table: pa.Table, what: str, owner: str) -> list[dict[str, Any]]:
    """All rows of those owners of which one row shares its ``what`` with another row."""
    import pyarrow.compute as pc

    counts = table[what].value_counts()
    often = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")  # pyright: ignore
    owners = table.filter(pc.is_in(table[what], often))[owner].unique()  # pyright: ignore
    return table.filter(pc.is_in(table[owner], owners)).to_pylist()  # pyright: ignore


def links_of(
    recordings: Iterable[Mapping[str, Any]], streams: Iterable[Mapping[str, Any]], lineage: Iterable[Mapping[str, Any]]
) -> tuple[Link, ...]:
    """What recordings share, from rows of the three tables.

    Args:
        recordings: recording_id, dataset and name.
        streams: recording_id, kind, modality, n and digest. Intervals, streams of fewer than `LEAST` samples or
            events, and what is `SHOWN` beside other signals are no sign of a twin.
        lineage: edges from recordings to raw files. Of a recording's files the largest counts: sidecars are shared.
    """
    held: dict[tuple[str, str], set[str]] = defaultdict(set)
    there = set()
    for row in recordings:
        there.add(row["recording_id"])
        held[RECORDING, f"{row['dataset'].casefold()}/{row['name']}"].add(row["recording_id"])
    signals = defaultdict(list)
    for row in streams:
        if row["kind"] != "intervals" and (row["n"] or 0) >= LEAST and row["recording_id"] in there:
            signals[row["recording_id"]].append(row)
    for recording, rows in signals.items():
        own = [row for row in rows if row["modality"] not in SHOWN] or rows
        for row in own:
            held[STREAM, row["digest"]].add(recording)
    main: dict[str, tuple[int, str]] = {}
    for row in lineage:
        if row["child_kind"] == "recording" and row["parent_kind"] == "raw" and row["child"] in there:
            file = (int(json.loads(row["detail"])["size"]), row["parent"])
            main[row["child"]] = max(file, main.get(row["child"], file))
    for recording, (_, sha256) in main.items():
        held[FILE, sha256].add(recording)
    return tuple(
        sorted(Link(kind=k, what=w, recordings=tuple(sorted(ids))) for (k, w), ids in held.items() if len(ids) > 1)
    )


def components(found: Iterable[Link]) -> dict[str, tuple[str, ...]]:
    """Recording -> it and all that it is linked to, directly or through others; those without a twin are left out."""
    joined = Joined()
    for link in found:
        joined.join(*link.recordings)
    return joined.sets()


class Joined:
    """Names that belong together: disjoint sets with union by path halving."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def join(self, *names: str) -> None:
        """Puts the sets of these names together."""
        roots = [self._root(name) for name in names]
        for root in roots[1:]:
            self._above[self._root(root)] = self._root(roots[0])

    def sets(self) -> dict[str, tuple[str, ...]]:
        """Name -> all names of its set, sorted."""
        held: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._above):
            held[self._root(name)].append(name)
        return {name: tuple(names) for names in held.values() for name in names}

    def _root(self, name: str) -> str:
        above = self._above
        above.setdefault(name, name)
        while above[name] != name:
            above[name] = above[above[name]]
            name = above[name]
        return name
