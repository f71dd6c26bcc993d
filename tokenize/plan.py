"""A mixture over a lake: its recordings, its streams opened as they are needed, and the order of its windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from neurofmx import parts, remote, shards, snapshots
from neurofmx.errors import ConfigError, LakeCorrupt, NotThere
from neurofmx.index import Index
from neurofmx.lake import Lake
from neurofmx.shards import ShardedArray
from neurofmx.tokenize import mixture as mix
from neurofmx.tokenize.cursor import Shares
from neurofmx.tokenize.mixture import Mixture, Order, Spread
from neurofmx.tokenize.streams import EventStream, SampleStream, matching, open_stream, read_valid


@dataclass(frozen=True, kw_only=True)
class Column:
    """One chosen stream over all recordings.

    Args:
        name: as the mixture names it.
        kind: ``samples`` or ``events``.
        dtype: of the delivered values (of the codes, for events).
        stream: name of the stream in each recording, by row; rows that lack it are left out.
        laws: (R, 4) float64, `SampleStream.law` of each recording that was opened; NaN elsewhere.
    """

    name: str
    kind: str
    dtype: np.dtype
    stream: Mapping[int, str]
    laws: np.ndarray
    _open: dict[int, SampleStream | EventStream] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a loader reads.

    Args:
        lake: where it reads.
        index: the packed index of the recordings.
        mixture: what was asked for.
        recordings: ids by row, sorted.
        columns: the streams.
        order: the order of windows.
        unused: recording -> why no window of it can be read, though nothing is wrong with it.
        refused: recording -> why it was found damaged when the plan was made.
    """

    lake: Lake
    index: Index
    mixture: Mixture
    recordings: tuple[str, ...]
    columns: tuple[Column, ...]
    order: Order
    unused: Mapping[str, str]
    refused: Mapping[str, str]

    @property
    def epoch(self) -> int:
        """Windows of an epoch over all ranks."""
        return self.mixture.epoch or sum(len(spread) for spread in self.order.spreads)

    def stream(self, column: Column, row: int) -> SampleStream | EventStream | None:
        """One recording's stream, opened at its first use; None where the recording lacks it.

        Raises:
            LakeCorrupt: it cannot be opened.
        """
        found = column._open.get(row)
        if found is None and row in column.stream:
            found = open_stream(self.lake, self.index, self.recordings[row], column.stream[row], column.kind)
            if isinstance(found, SampleStream):
                column.laws[row] = found.law
            column._open[row] = found  # two threads may both open it; either will do
        return found

    def channels(self, row: int, name: str) -> tuple[str, ...]:
        """Channel ids of one recording's stream, as the mixture names it; none where the recording lacks it."""
        column = next(column for column in self.columns if column.name == name)
        if row not in column.stream:
            return ()
        name = column.stream[row]
        group = self.index.row(self.recordings[row], f"{name}/valid")["group"]
        about = shards.read_attributes(self.lake.root / group)["neurofmx"]["streams"][name]
        return tuple(about["channels"]["ids"])

    def close(self) -> None:
        """Closes the files."""
        self.index.close()


def make_plan(lake: Lake, mixture: Mixture, seed: int) -> Plan:
    """Resolves a mixture: asks its queries, finds its streams, cuts its spans.

    Args:
        lake: where the recordings are.
        mixture: what is wanted.
        seed: of the order.

    Raises:
        ConfigError: a stream that no recording has, kinds or types that do not fit, or no window at all.
        NotThere: a recording that the lake does not have.
        LakeCorrupt: a damaged recording, where the mixture says ``stop``; or all of a source are.
    """
    sources = mix.chosen(lake, mixture)
    recordings = tuple(sorted(set().union(*sources)))
    row_of = {rid: row for row, rid in enumerate(recordings)}
    frozen = snapshots.find(lake, mixture.snapshot).catalog if mixture.snapshot else None
    index = Index.open(lake, recordings, frozen=frozen, random=True)
    about = _streams(lake, recordings, frozen)
    columns = tuple(_column(index, mixture, name, recordings, about) for name in mixture.streams)
    spans, unused, refused = {}, {}, {}
    for row, rid in enumerate(recordings):
        own = [column.stream[row] for column in columns if row in column.stream]
        blocks = None if mixture.blocks is None else mixture.blocks.get(rid, ())
        if not own or (blocks is not None and not blocks):
            unused[rid] = "no block of the split" if own else "none of the streams"
            continue
        try:
            if mixture.check_files:
                _check_files(lake, index, rid, own)
            found = mix.spans_of([read_valid(index, rid, name) for name in own], blocks, mixture)
        except LakeCorrupt as error:
            if mixture.on_damage == "stop":
                raise
            refused[rid] = str(error)
            continue
        if len(found):
            spans[row] = found
        else:
            unused[rid] = f"no span of {mixture.window_s} s"
    spreads = tuple(
        Spread.of({row: spans[row] for rid in ids if (row := row_of[rid]) in spans}, mixture.window_s)
        for ids in sources
    )
    for number, spread in enumerate(spreads):
        if not len(spread):
            gone = [f"{rid}: {(unused | refused)[rid]}" for rid in sources[number][:3]]
            raise (LakeCorrupt if set(sources[number]) <= set(refused) else ConfigError)(
                f"source {number} of the mixture", got=f"no window; {'; '.join(gone)}", expected="at least one window"
            )
    shares = Shares.of([source.weight for source in mixture.sources], seed)
    return Plan(
        lake=lake, index=index, mixture=mixture, recordings=recordings, columns=columns, unused=unused, refused=refused,
        order=Order(spreads=spreads, shares=shares, window_s=mixture.window_s, seed=seed),
    )  # fmt: skip


def _streams(
    lake: Lake, recordings: tuple[str, ...], frozen: Mapping[str, Sequence[str]] | None
) -> dict[str, list[tuple[str, str, str]]]:
    """Recording -> (name, kind, modality) of its streams."""
    found: dict[str, list[tuple[str, str, str]]] = {rid: [] for rid in recordings}
    names = ["recording_id", "stream", "kind", "modality"]
    table = parts.read(lake, "streams", names, frozen=None if frozen is None else frozen.get("streams", ()))
    for rid, stream, kind, modality in zip(*(table.column(name).to_pylist() for name in names)):
        if rid in found:
            found[rid].append((stream, kind, modality))
    return found


def _column(
    index: Index, mixture: Mixture, name: str, recordings: tuple[str, ...], about: Mapping[str, list]
) -> Column:
    found = {row: matching(about[rid], name, rid) for row, rid in enumerate(recordings)}
    there = {row: stream for row, stream in found.items() if stream is not None}
    kinds = {kind for _, kind in there.values()}
    if len(kinds) != 1:
        raise ConfigError(
            f"stream {name!r} of the mixture",
            got=f"{sorted(kinds)}" if kinds else "in none of its recordings",
            expected="samples, or events, in at least one recording",
            fix="Name a stream or a modality that `neurofmx sql 'from streams'` lists.",
        )
    streams, laws = {row: stream for row, (stream, _) in there.items()}, np.full((len(recordings), 4), np.nan)
    if kinds == {"events"}:
        return Column(name=name, kind="events", dtype=np.dtype(np.int32), stream=streams, laws=laws)
    types = {_values(index, recordings[row], stream).dtype for row, stream in streams.items()}
    if mixture.values == "stored" and len(types) > 1:
        raise ConfigError(
            f"stored values of {name!r}", got=str(sorted(map(str, types))), expected="one type",
            fix="Ask for float32.",
        )  # fmt: skip
    dtype = types.pop() if mixture.values == "stored" else np.dtype(np.float32)
    return Column(name=name, kind="samples", dtype=dtype, stream=streams, laws=laws)


def _values(index: Index, recording: str, stream: str) -> ShardedArray:
    try:
        return index.array(recording, f"{stream}/values")
    except NotThere as error:
        raise ConfigError(
            f"stream {stream!r} of {recording}", got="a video file", expected="samples that are stored as an array",
            fix="Store what you need of its frames as a stream.",
        ) from error  # fmt: skip


def _check_files(lake: Lake, index: Index, recording: str, streams: list[str]) -> None:
    """Raises `LakeCorrupt` when a shard of one of these streams has another digest than the catalog says."""
    for name in index.arrays(recording):
        if not any(name.startswith(f"{stream}/") for stream in streams):
            continue
        for file, digest in index.files(recording, name):
            if not digest:
                raise ConfigError(
                    f"digest of {file}", got="none in the catalog", expected="one a shard",
                    fix="Ingest the recording again, or leave check_files out.",
                )  # fmt: skip
            try:
                found = remote.digest(lake.root / file)
            except FileNotFoundError:
                found = "no file"
            if found != digest:
                raise LakeCorrupt(f"shard {file}", got=f"sha256 {found}", expected=digest)
