"""What a loader draws from: weighted sources of recordings, the spans in which windows may lie, and the draw itself.

A draw is a function of (seed, number of the window, recordings found damaged) alone. Windows tile each span with a
phase of their own in every round over a source, so begins are free in time, every round covers nearly all time once,
and no window crosses the end of a span.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

import numpy as np

from neurofmx.errors import ConfigError, LakeCorrupt
from neurofmx.provenance import digest_of
from neurofmx.splits import GUARD, Block
from neurofmx.tokenize.cursor import Shares, mixed, permuted, unit
from neurofmx.types import clip_intervals

if TYPE_CHECKING:
    from neurofmx.lake import Lake

Spans = np.ndarray  # (K, 2) seconds


@dataclass(frozen=True, kw_only=True)
class Source:
    """Recordings that share one weight.

    Args:
        weight: share of the windows, relative to the other sources.
        sql: a query over the catalog with a column ``recording_id``; needs DuckDB.
        recordings: recording ids instead of a query.
    """

    weight: float = 1.0
    sql: str = ""
    recordings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.sql) == bool(self.recordings):
            raise ConfigError("source of a mixture", expected="sql or recordings, exactly one of them")


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Which windows a loader gives.

    Args:
        sources: where they come from.
        streams: names of streams, or modalities that a recording has one stream of.
        window_s: length of a window.
        batch: windows of a batch, on each rank.
        blocks: recording id -> blocks of a split; a recording that is not in it is left out. None for no split.
        folds: folds that may be read; all but guard gaps when None.
        gaps: ``avoid`` keeps windows where all the chosen streams have data; ``mask`` lets them cross gaps.
        values: ``float32`` gives physical units, ``stored`` the stored numbers with their scale and offset.
        on_damage: ``refuse`` goes on without a damaged recording and says so; ``stop`` raises.
        check_files: compare every shard's digest before its recording is used, which reads everything once.
        epoch: windows of an epoch, over all ranks; as many as tile the sources when 0.
        snapshot: name or digest of the snapshot in which ``sql`` is asked, the present catalog when empty.
    """

    sources: tuple[Source, ...]
    streams: tuple[str, ...]
    window_s: float
    batch: int
    blocks: Mapping[str, Sequence[Block]] | None = None
    folds: tuple[int, ...] | None = None
    gaps: Literal["avoid", "mask"] = "avoid"
    values: Literal["float32", "stored"] = "float32"
    on_damage: Literal["refuse", "stop"] = "refuse"
    check_files: bool = False
    epoch: int = 0
    snapshot: str = ""

    def __post_init__(self) -> None:
        if not self.sources or not self.streams or len(set(self.streams)) < len(self.streams):
            raise ConfigError("mixture", expected="at least one source and one stream, each stream once")
        if not self.window_s > 0 or self.batch < 1 or self.epoch < 0:
            raise ConfigError(
                "mixture", got=f"windows of {self.window_s} s, {self.batch} a batch, {self.epoch} an epoch",
                expected="positive seconds, at least one window, an epoch of 0 or more",
            )  # fmt: skip


def chosen(lake: Lake, mixture: Mixture) -> list[list[str]]:
    """The recording ids of each source, sorted; SQL is asked only where a source has it.

    Raises:
        ConfigError: a query without a column ``recording_id``, or a source without recordings.
    """
    found = []
    for source in mixture.sources:
        ids = list(source.recordings)
        if source.sql:
            from neurofmx import catalog

            table = catalog.query(lake, source.sql, mixture.snapshot)
            if "recording_id" not in table.column_names:
                raise ConfigError("SQL of a source", got=f"columns {table.column_names}", expected="recording_id")
            ids = [str(i) for i in table.column("recording_id").to_pylist()]
        if not ids:
            raise ConfigError("source of a mixture", got=f"no recording for {source.sql!r}", expected="at least one")
        found.append(sorted(set(ids)))
    return found


def spans_of(valid: Sequence[Spans], blocks: Sequence[Block] | None, mixture: Mixture) -> Spans:
    """Where windows of one recording may lie, by time.

    Args:
        valid: the chosen streams' spans of valid time, one entry a stream.
        blocks: the recording's blocks, None for no split.
        mixture: window, folds and what to do at gaps.

    Returns:
        (K, 2) seconds, each at least one window long and within one block.
    """
    if not valid or not any(len(v) for v in valid):
        return np.empty((0, 2))
    if mixture.gaps == "avoid":
        data = _common(valid)
    else:  # half a window beyond the data at gaps, so that none of it is out of reach and no window is empty
        data = np.concatenate(valid)
        margin, hull = np.array([-0.5, 0.5]) * mixture.window_s, (data[:, 0].min(), data[:, 1].max())
        data = clip_intervals(_union(data + margin), *hull)
    if blocks is not None:
        folds = {b.fold for b in blocks} - {GUARD} if mixture.folds is None else set(mixture.folds) - {GUARD}
        inside = [clip_intervals(data, b.start_s, b.stop_s) for b in blocks if b.fold in folds]
        data = np.concatenate([np.empty((0, 2)), *inside])
    data = data[data[:, 0] + mixture.window_s <= data[:, 1]]
    return data[np.argsort(data[:, 0], kind="stable")]


def _union(spans: Spans) -> Spans:
    """Spans in order, those that touch or overlap made one."""
    if len(spans) < 2:
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    ends = np.maximum.accumulate(spans[:, 1])
    new = np.flatnonzero(np.concatenate([[True], spans[1:, 0] > ends[:-1]]))
    return np.stack([spans[new, 0], ends[np.append(new[1:] - 1, len(spans) - 1)]], 1)


def _common(sets: Sequence[Spans]) -> Spans:
    """Time that every set of spans holds."""
    sets = [_union(spans) for spans in sets]
    if all(len(spans) == 1 for spans in sets):  # most recordings: no gap in any stream
        return clip_intervals(sets[0], max(s[0, 0] for s in sets), min(s[0, 1] for s in sets))
    edges = np.unique(np.concatenate([s.ravel() for s in sets]))
    middle = (edges[:-1] + edges[1:]) / 2
    held = np.ones(len(middle), bool)
    for spans in sets:
        at = np.searchsorted(spans[:, 0], middle, side="right") - 1
        held &= (at >= 0) & (middle < spans[np.maximum(at, 0), 1]) if len(spans) else False
    step = np.diff(np.concatenate([[0], held.astype(np.int8), [0]]))
    return np.stack([edges[np.flatnonzero(step == 1)], edges[np.flatnonzero(step == -1)]], 1)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The spans of one source, tiled by windows.

    Args:
        recording: (K,) row of the recording of each span.
        spans: (K, 2) seconds.
        tiles: (K + 1,) windows that fit before each span, cumulative.
    """

    recording: np.ndarray
    spans: Spans
    tiles: np.ndarray

    @classmethod
    def of(cls, spans: Mapping[int, Spans], window_s: float) -> Spread:
        """Tiles the spans of recordings, by row."""
        rows = np.concatenate([np.full(len(s), row, np.int64) for row, s in spans.items()] or [np.empty(0, np.int64)])
        flat = np.concatenate([np.empty((0, 2)), *spans.values()])
        fit = np.maximum(1, np.floor((flat[:, 1] - flat[:, 0]) / window_s + 1e-9).astype(np.int64))
        return cls(recording=rows, spans=flat, tiles=np.concatenate([[0], np.cumsum(fit)]))

    def __len__(self) -> int:
        return int(self.tiles[-1])


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Windows to read: (N,) number, row of the recording and begin in seconds, and the source that each is of."""

    number: np.ndarray
    recording: np.ndarray
    start_s: np.ndarray
    source: np.ndarray

    def taken(self, part: slice | np.ndarray) -> Draws:
        """Some of the windows."""
        return Draws(**{f.name: getattr(self, f.name)[part] for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Order:
    """The endless order of windows.

    Args:
        spreads: one a source.
        shares: in which order sources take turns.
        window_s: length of a window.
        seed: of everything.
    """

    spreads: tuple[Spread, ...]
    shares: Shares
    window_s: float
    seed: int
    _left: dict[frozenset[int], tuple[Spread, ...]] = field(default_factory=dict, repr=False)

    def draws(self, lo: int, hi: int, wanted: np.ndarray | None = None) -> Draws:
        """The windows with numbers in [lo, hi), or those of them that ``wanted`` ((hi - lo,) bool) marks."""
        wanted = np.ones(hi - lo, bool) if wanted is None else wanted
        source, before = self.shares.sources(lo, hi), self.shares.counts(lo)
        recording, start_s = np.empty(hi - lo, np.int64), np.empty(hi - lo)
        for s, spread in enumerate(self.spreads):
            own = np.flatnonzero(source == s)
            nth = before[s] + np.flatnonzero(wanted[own])
            own = own[wanted[own]]
            turn, number = np.divmod(nth, len(spread))
            tile = permuted(number, len(spread), mixed(self.seed, 2, s, turn))
            span = np.searchsorted(spread.tiles, tile, side="right") - 1
            first, last = spread.spans[span].T
            step = (tile - spread.tiles[span]) * self.window_s
            slack = last - first - np.diff(spread.tiles)[span] * self.window_s
            phase = unit(mixed(self.seed, 3, s, turn, span)) * np.maximum(slack, 0.0)
            recording[own], start_s[own] = spread.recording[span], self._inside(first + phase + step, first, last)
        number = np.arange(lo, hi)[wanted]
        return Draws(number=number, recording=recording[wanted], start_s=start_s[wanted], source=source[wanted])

    def elsewhere(self, draws: Draws, refused: frozenset[int]) -> Draws:
        """The same windows, those of refused recordings drawn from what is left of their source.

        Raises:
            LakeCorrupt: nothing of a source is left.
        """
        gone = np.isin(draws.recording, list(refused))
        if not gone.any():
            return draws
        recording, start_s = draws.recording.copy(), draws.start_s.copy()
        if refused not in self._left:
            self._left[refused] = tuple(self._without(spread, refused) for spread in self.spreads)
        for s in np.unique(draws.source[gone]):
            spread, own = self._left[refused][s], np.flatnonzero(gone & (draws.source == s))
            if not len(spread):
                raise LakeCorrupt(f"source {s} of the mixture", got="every recording damaged", expected="one to read")
            tile = (mixed(self.seed, 4, draws.number[own]) % np.uint64(len(spread))).astype(np.int64)
            span = np.searchsorted(spread.tiles, tile, side="right") - 1
            first, last = spread.spans[span].T
            free = unit(mixed(self.seed, 5, draws.number[own])) * (last - first - self.window_s)
            recording[own], start_s[own] = spread.recording[span], self._inside(first + free, first, last)
        return Draws(number=draws.number, recording=recording, start_s=start_s, source=draws.source)

    def digest(self) -> str:
        """Identity of the order: two loaders with the same digest give the same windows."""
        spreads = [[s.recording, s.spans] for s in self.spreads]
        return digest_of([spreads, list(map(str, self.shares.edges)), self.window_s, self.seed])[:16]

    def _without(self, spread: Spread, refused: frozenset[int]) -> Spread:
        keep = ~np.isin(spread.recording, list(refused))
        tiles = np.concatenate([[0], np.cumsum(np.diff(spread.tiles)[keep])])
        return Spread(recording=spread.recording[keep], spans=spread.spans[keep], tiles=tiles)

    def _inside(self, start_s: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Begins moved by less than the rounding of a sum, so that begin + window is no later than the span's end."""
        start_s = np.minimum(start_s, last - self.window_s)
        return np.maximum(np.where(start_s + self.window_s > last, np.nextafter(start_s, -np.inf), start_s), first)
