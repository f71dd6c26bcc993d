"""The loader: what it gives is what a recording's slice gives, in an order that only the seed decides."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofmx import catalog, handles, shards
from neurofmx.errors import ConfigError, LakeCorrupt, NotThere
from neurofmx.index import Index
from neurofmx.ingest import simulate
from neurofmx.ingest.formats import table
from neurofmx.ingest.sessions import Session
from neurofmx.ingest.simulate_spec import SimSpec
from neurofmx.lake import Lake
from neurofmx.scaled import Scaled
from neurofmx.splits import block_folds
from neurofmx.tokenize.batches import EventRows, SampleRows, WindowBatch
from neurofmx.tokenize.cursor import Cursor, Shares, permuted
from neurofmx.tokenize.loader import Loader
from neurofmx.tokenize.mixture import Mixture, Source, spans_of
from neurofmx.types import (
    Channels,
    Events,
    Intervals,
    Licence,
    Provenance,
    RawFile,
    Recording,
    RecordingId,
    Samples,
    Stream,
    Subject,
)

Row = dict[str, Any]


def made(name: str, *, width: int = 3, seed: int = 0, seconds: float = 30.0, gap: bool = False, lfp: bool = True):
    """Spikes, an LFP of some width and a position at stated times; a gap from 40 to 50 per cent of it."""
    rng = np.random.default_rng(seed)
    valid = np.array([[0.0, 0.4], [0.5, 1.0]] if gap else [[0.0, 1.0]]) * seconds
    n = int(seconds * 40)
    streams: dict[str, Stream] = {
        "spikes": Events(
            times_s=np.sort(rng.uniform(0, seconds, n)),
            codes=rng.integers(0, width, n).astype(np.int32),
            channels=Channels(ids=tuple(f"u{i}" for i in range(width))),
            modality="spikes",
            valid=valid,
        ),
        "tracker": Samples(
            values=rng.normal(size=(n, 2)),
            unit="px",
            channels=Channels(ids=("x", "y")),
            modality="position",
            valid=valid,
            times_s=np.sort(rng.uniform(0, seconds, n)),
        ),
        "trials": Intervals(
            start_s=np.arange(3.0), stop_s=np.arange(3.0) + 1, columns={}, modality="trials", valid=valid
        ),
    }
    if lfp:
        streams["lfp"] = Samples(
            values=rng.normal(size=(int(seconds * 99.7), width)).astype(np.float32),
            unit="uV",
            channels=Channels(ids=tuple(f"e{i}" for i in range(width))),
            modality="lfp",
            valid=valid,
            rate_hz=99.7,
            t0_s=0.013,
        )
    return Recording(
        id=RecordingId("a", "b", "1", name),
        streams=streams,
        subject=Subject(id="s1"),
        domain_s=(0.0, seconds),
        provenance=Provenance(files=(), reader="t@1"),
        licence=Licence(spdx="CC0-1.0"),
    )


RAGGED: dict[str, Row] = {
    "one": {"seed": 1},
    "two": {"width": 5, "seed": 2, "gap": True, "seconds": 50.0},
    "three": {"seed": 3, "lfp": False},
}


@pytest.fixture
def ragged(lake: Lake) -> Lake:
    """Three recordings: 3 channels; 5 channels with a gap; no LFP."""
    for name, made_of in RAGGED.items():
        lake.publish_recording(made(name, **made_of))
    return lake


@pytest.fixture(scope="module")
def s3() -> ModuleType:
    """The servers of S3, which are no package."""
    path = Path(__file__).resolve().parents[1] / "servers" / "s3.py"
    spec = importlib.util.spec_from_file_location("servers_s3", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    loaded = sys.modules.setdefault(spec.name, module)  # dataclasses look their own module up
    spec.loader.exec_module(loaded)
    return loaded


def mixture(lake: Lake, **changes: Any) -> Mixture:
    sources = (Source(recordings=tuple(lake.recording_ids())),)
    given: dict[str, Any] = {"sources": sources, "streams": ("spikes", "lfp", "position"), "window_s": 0.7, "batch": 4}
    return Mixture(**given | changes)


def taken(lake: Lake, mix: Mixture, n: int, cursor: Cursor | None = None, **settings: Any) -> list[WindowBatch]:
    with Loader(lake, mix, cursor=cursor or Cursor(seed=5), **settings) as loader:
        return [batch.copied() for _, batch in zip(range(n), loader)]


def names(lake: Lake, batches: Iterable[WindowBatch]) -> list[tuple[int, str, float]]:
    """(number, recording, begin) of every window, by number."""
    ids = lake.recording_ids()
    return sorted((int(n), ids[r], float(s)) for b in batches for n, r, s in zip(b.number, b.recording, b.start_s))


def assert_same(a: list[WindowBatch], b: list[WindowBatch]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b):
        assert one.cursor == other.cursor
        np.testing.assert_array_equal(one.number, other.number)
        np.testing.assert_array_equal(one.start_s, other.start_s)
        for name, rows in one.streams.items():
            for field in ("values", "offsets", "mask", "times_s", "codes", "n", "first_s", "valid_s"):
                mine, its = getattr(rows, field, None), getattr(other.streams[name], field, None)
                assert (mine is None) == (its is None)
                if mine is not None and its is not None:
                    np.testing.assert_array_equal(mine, its)


def assert_equals_slices(lake: Lake, ids: tuple[str, ...], batches: Iterable[WindowBatch]) -> int:
    """Every row of every stream is what `Recording.slice` gives; returns how many rows had data."""
    opened, seen = {rid: lake.recording(rid) for rid in ids}, 0
    for batch in batches:
        for i, (row, start_s) in enumerate(zip(batch.recording, batch.start_s)):
            part = opened[ids[row]].slice(start_s, start_s + batch.window_s)
            for name, rows in batch.streams.items():
                found = [s for n, s in part.streams.items() if name in (n, s.modality)]
                if not found:
                    assert not (rows.present[i] if isinstance(rows, EventRows) else rows.n[i])
                    continue
                seen += assert_row(rows, i, found[0], float(start_s))
    return seen


def assert_row(rows: SampleRows | EventRows, i: int, stream: Stream, start_s: float) -> int:
    if isinstance(rows, EventRows):
        assert isinstance(stream, Events)
        times, codes = rows.row(i)
        np.testing.assert_array_equal(times, (stream.times_s - start_s).astype(np.float32))
        np.testing.assert_array_equal(codes, stream.codes)
        return len(codes)
    assert isinstance(stream, Samples)
    np.testing.assert_array_equal(rows.row(i), np.asarray(stream.values).astype(rows.values.dtype))
    if rows.n[i]:
        assert rows.first_s[i] == stream.times()[0]
    if rows.times_s is not None:
        np.testing.assert_array_equal(rows.times_s[rows.part(i)], (stream.times() - start_s).astype(np.float32))
    return int(rows.n[i])


# what is in a batch


def test_rows_are_slices_ragged_and_missing(ragged: Lake) -> None:
    batches = taken(ragged, mixture(ragged), 60)
    assert assert_equals_slices(ragged, tuple(ragged.recording_ids()), batches) > 1000
    lfp = [b.samples("lfp") for b in batches]
    assert {shape for rows in lfp for shape in rows.shapes} == {(3,), (5,), ()}
    # not one element of padding
    assert all(len(r.values) == sum(int(n) * int(np.prod(s)) for n, s in zip(r.n, r.shapes)) for r in lfp)


def test_real_recordings_are_read_exactly(mirror: Path, lake: Lake) -> None:
    for reader, root, name in (
        ("nwb", mirror / "dandi/900001/sub-nelpyrat", ""),
        ("edf", mirror / "physionet/files/eegmmidb/1.0.0", "S001/S001R03.edf"),
    ):
        path = name or sorted(p.name for p in root.glob("*.nwb"))[0]
        rid = RecordingId("mirror", "real", "1", reader)
        session = Session(id=rid, files=(), reader=reader, subject=Subject(id="one"))
        lake.publish_recording(
            table.read(reader, root, session, (RawFile(path=path, url=path, sha256="0" * 64, size=0),))
        )
    for window_s in (1.0, 4.3):
        mix = mixture(lake, streams=("spikes", "position", "eeg"), window_s=window_s, batch=8)
        assert assert_equals_slices(lake, tuple(lake.recording_ids()), taken(lake, mix, 8)) > 5000


def test_a_simulated_recording_with_pauses_is_read_exactly(lake: Lake) -> None:
    spec = SimSpec(seed=4, duration_s=40.0, n_gaps=3, gap_s=1.5, lfp_channels=4)
    recording, _ = simulate.simulate(spec, RecordingId("simulated", "s", "1", "one"))
    lake.publish_recording(recording)
    for gaps in ("avoid", "mask"):
        mix = mixture(lake, streams=("spikes", "lfp"), gaps=gaps)
        assert assert_equals_slices(lake, tuple(lake.recording_ids()), taken(lake, mix, 12)) > 500


@settings(max_examples=10, deadline=None)
@given(window_s=st.floats(0.01, 9.0), seed=st.integers(0, 2**40), rate=st.floats(0.4, 3000.0), t0=st.floats(-3, 3))
def test_any_window_of_any_rate(
    tmp_path_factory: pytest.TempPathFactory, window_s: float, seed: int, rate: float, t0: float
) -> None:
    lake = Lake.open(tmp_path_factory.mktemp("lake"))
    base = made("one", seed=1, seconds=10.0)
    values = np.arange(int(rate * 10), dtype=np.float32)[:, None]
    lfp = replace(base.streams["lfp"], values=values, rate_hz=rate, t0_s=t0, channels=Channels(ids=("e",)))
    lake.publish_recording(replace(base, streams={**base.streams, "lfp": lfp}))
    assert_equals_slices(lake, ("a:b@1/one",), taken(lake, mixture(lake, window_s=window_s), 3, Cursor(seed=seed)))


def test_rows_of_one_shape_are_dense_without_a_copy(lake: Lake) -> None:
    base = made("one")
    lfp = replace(base.streams["lfp"], rate_hz=100.0, t0_s=0.0)
    lake.publish_recording(replace(base, streams={"lfp": lfp}))
    rows = taken(lake, mixture(lake, streams=("lfp",), window_s=0.5), 1)[0].samples("lfp")
    assert rows.dense().shape == (4, 50, 3)
    assert np.shares_memory(rows.dense(), rows.values)
    np.testing.assert_array_equal(rows.dense()[2], rows.row(2))


def test_ragged_rows_refuse_to_be_dense(ragged: Lake) -> None:
    rows = taken(ragged, mixture(ragged, batch=30), 1)[0].samples("lfp")
    with pytest.raises(ConfigError, match="one shape"):
        rows.dense()


def test_integers_come_in_their_unit_or_as_stored_with_their_law(lake: Lake) -> None:
    base, rng = made("one"), np.random.default_rng(0)
    integers = rng.integers(-2000, 2000, (3000, 3)).astype(np.int16)
    law = Scaled(integers, np.array([0.195, 0.1, 1 / 3]), np.array([0.0, 5.0, -1.0]))
    lake.publish_recording(replace(base, streams={"lfp": replace(base.streams["lfp"], values=law)}))
    physical = taken(lake, mixture(lake, streams=("lfp",)), 6)
    assert assert_equals_slices(lake, ("a:b@1/one",), physical) > 1000
    for batch, other in zip(taken(lake, mixture(lake, streams=("lfp",), values="stored"), 6), physical):
        rows = batch.samples("lfp")
        assert rows.values.dtype == np.int16
        for i in range(len(batch)):
            again = (rows.row(i) * rows.scale[i] + rows.offset[i]).astype(np.float32)
            np.testing.assert_array_equal(again, other.samples("lfp").row(i))


def test_compressed_shards_give_the_same_rows(ragged: Lake) -> None:
    plain = taken(ragged, mixture(ragged), 12)
    for rid in ragged.recording_ids():
        group = ragged.root / ragged._row(rid)["path"]
        arrays = {name: shards.open_array(group / name).read(0, len(shards.open_array(group / name)))
                  for name in shards.array_names(group)}  # fmt: skip
        attributes = shards.read_attributes(group)
        shutil.rmtree(group)
        shards.write_group(group, arrays, attributes, "lz4", chunk_bytes=2000)
        catalog.drop(ragged, "arrays", rid)  # so that the index reads the groups' own metadata
    handles.close_files()
    index = Index.open(ragged, ["a:b@1/one"])
    assert {index.row("a:b@1/one", name)["codec"] for name in index.arrays("a:b@1/one")} == {"lz4"}
    for threads in (1, 3):
        assert_same(plain, taken(ragged, mixture(ragged), 12, threads=threads))


@pytest.mark.slow
def test_a_lake_on_s3_gives_the_same_rows(
    ragged: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: ModuleType
) -> None:
    with s3.moto() as server:
        for machine in ("writer", "reader"):
            for name, value in server.environment(tmp_path / machine).items():
                monkeypatch.setenv(name, value)
            far = Lake.open(f"s3://{server.bucket}/loader")
            if machine == "writer":
                for name, made_of in RAGGED.items():
                    far.publish_recording(made(name, **made_of))
        mix = mixture(far, check_files=True)
        assert_same(taken(ragged, mix, 6), taken(far, mix, 6, threads=3))


def test_long_recordings_are_searched_without_their_index_in_memory(lake: Lake) -> None:
    base, n = made("one", seconds=30.0), 1_200_000
    spikes = replace(base.streams["spikes"], times_s=np.sort(np.random.default_rng(0).uniform(0, 30, n)),
                     codes=np.zeros(n, np.int32))  # fmt: skip
    lake.publish_recording(replace(base, streams={"spikes": spikes}))
    mix = mixture(lake, streams=("spikes",), window_s=0.01)
    assert assert_equals_slices(lake, ("a:b@1/one",), taken(lake, mix, 8)) > 5000


def test_a_snapshot_pins_what_is_read(ragged: Lake) -> None:
    digest = ragged.snapshot("then")
    mix = mixture(ragged, sources=(Source(sql="select recording_id from recordings"),), snapshot="then")
    before = taken(ragged, mix, 9)
    ragged.publish_recording(made("one", seed=77))
    ragged.publish_recording(made("four"))
    assert_same(before, taken(ragged, mix, 9))
    assert_same(before, taken(ragged, replace(mix, snapshot=digest), 9))
    with Loader(ragged, replace(mix, snapshot="")) as loader:
        assert len(loader.recordings) == 4


def test_channels_are_found_by_row(ragged: Lake) -> None:
    with Loader(ragged, mixture(ragged)) as loader:
        row = loader.recordings.index("a:b@1/two")
        assert loader.channels(row, "lfp") == tuple(f"e{i}" for i in range(5))
        assert loader.channels(row, "position") == ("x", "y")
        assert loader.channels(loader.recordings.index("a:b@1/three"), "lfp") == ()


# where windows lie


def test_windows_stay_in_blocks_of_their_fold_and_out_of_gaps(ragged: Lake) -> None:
    ids = ragged.recording_ids()
    valid = {rid: np.asarray(ragged.recording(rid).streams["spikes"].valid) for rid in ids}
    blocks = {rid: block_folds(rid, valid[rid], n_blocks=8, n_folds=4, guard_s=0.9) for rid in ids[:2]}
    mix = mixture(ragged, blocks=blocks, folds=(0, 2), batch=16)
    with Loader(ragged, mix, cursor=Cursor(seed=1)) as loader:
        assert loader.unused == {ids[2]: "no block of the split"}
        begins = names(ragged, (b.copied() for _, b in zip(range(40), loader)))
    assert {rid for _, rid, _ in begins} == set(ids[:2])
    for _, rid, start_s in begins:
        allowed = [b for b in blocks[rid] if b.fold in (0, 2)]
        assert any(b.start_s <= start_s and start_s + 0.7 <= b.stop_s for b in allowed)
        assert any(a <= start_s and start_s + 0.7 <= b for a, b in valid[rid])


def test_windows_cross_gaps_only_with_a_mask(ragged: Lake) -> None:
    mix = mixture(
        ragged, sources=(Source(recordings=("a:b@1/two",)),), gaps="mask", window_s=3.0, streams=("spikes", "lfp")
    )
    crossed = 0
    for batch in taken(ragged, mix, 20):
        lfp, spikes = batch.samples("lfp"), batch.events("spikes")
        for i, start_s in enumerate(batch.start_s):
            times = lfp.first_s[i] + np.arange(lfp.n[i]) / 99.7
            inside = (times <= 20.0 + 1e-9) | (times >= 25.0 - 1e-9)
            np.testing.assert_array_equal(lfp.mask[lfp.part(i)], inside)
            assert inside.any()
            crossed += not inside.all()
            spans = spikes.valid_s[spikes.valid_offsets[i] : spikes.valid_offsets[i + 1]]
            assert np.diff(spans).sum() == pytest.approx(
                max(0, min(20, start_s + 3) - start_s) + max(0, start_s + 3 - max(25, start_s))
            )
    assert crossed > 3
    assert all(b.samples("lfp").mask.all() for b in taken(ragged, mixture(ragged), 20))


def test_a_round_over_a_source_covers_its_time_once(ragged: Lake) -> None:
    mix = mixture(ragged, batch=1)
    with Loader(ragged, mix) as loader:
        n = loader.epoch
    begins = names(ragged, taken(ragged, mix, 2 * n))
    for turn in (begins[:n], begins[n:]):
        for rid in ragged.recording_ids():
            own = np.sort([s for _, r, s in turn if r == rid])
            assert (np.diff(own) >= 0.7 - 1e-9).all()
        assert len(turn) * 0.7 > 0.95 * (30 + 45 + 30)
    assert {s for *_, s in begins[:n]}.isdisjoint({s for *_, s in begins[n:]})


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.floats(0, 100), min_size=4, max_size=16, unique=True),
    window_s=st.floats(0.01, 20),
    how=st.sampled_from(("avoid", "mask")),
)
def test_spans_hold_windows_and_no_more(cuts: list[float], window_s: float, how: Any) -> None:
    edges = np.sort(cuts)[: len(cuts) // 4 * 4]
    one, other = edges[: len(edges) // 2].reshape(-1, 2), edges.reshape(-1, 2)
    mix = Mixture(sources=(Source(recordings=("r",)),), streams=("s",), window_s=window_s, batch=1, gaps=how)
    spans = spans_of([one, other], None, mix)
    assert (spans[:, 0] + window_s <= spans[:, 1]).all()
    assert (spans[1:, 0] >= spans[:-1, 1]).all()
    for a, b in spans:
        for start_s in np.linspace(a, b - window_s, 5):
            inside = [any(x <= start_s + 1e-9 and start_s + window_s <= y + 1e-9 for x, y in s) for s in (one, other)]
            touches = any(x <= start_s + window_s + 1e-9 and start_s <= y + 1e-9 for x, y in other)
            assert all(inside) if how == "avoid" else touches


# the order


def test_threads_change_nothing(ragged: Lake) -> None:
    one = taken(ragged, mixture(ragged), 30, threads=1, prefetch=1)
    assert_same(one, taken(ragged, mixture(ragged), 30, threads=2, prefetch=3))
    assert_same(one, taken(ragged, mixture(ragged), 30, threads=4, prefetch=6, held=2))
    assert names(ragged, one) != names(ragged, taken(ragged, mixture(ragged), 30, Cursor(seed=6)))


@pytest.mark.parametrize("at", [1, 7, 41])
def test_a_cursor_goes_on_exactly(ragged: Lake, at: int) -> None:
    whole = taken(ragged, mixture(ragged), 50)
    assert whole[40].cursor.epoch == 1
    assert_same(whole[at:], taken(ragged, mixture(ragged), 50 - at, whole[at - 1].cursor))


def test_a_cursor_of_another_order_is_refused(ragged: Lake) -> None:
    cursor = taken(ragged, mixture(ragged), 1)[0].cursor
    with pytest.raises(ConfigError, match="pin a snapshot"):
        Loader(ragged, mixture(ragged, window_s=0.8), cursor=cursor)


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_share_windows_without_overlap_and_leave_none(ragged: Lake, ranks: int) -> None:
    mix = mixture(ragged, epoch=97)
    alone = names(ragged, taken(ragged, mix, 1000, epochs=2))
    assert [n for n, *_ in alone] == list(range(194))
    shared = [taken(ragged, mix, 1000, epochs=2, rank=r, ranks=ranks) for r in range(ranks)]
    assert names(ragged, (b for batches in shared for b in batches)) == alone
    taken_together = min(len(batches) for batches in shared)
    assert max(len(batches) for batches in shared) - taken_together <= 1  # the last windows of all may be too few
    assert len({tuple(b.cursor for b in batches[:taken_together]) for batches in shared}) == 1


def test_a_run_goes_on_with_another_number_of_ranks(ragged: Lake) -> None:
    mix = mixture(ragged, epoch=120)
    first = [taken(ragged, mix, 3, rank=r, ranks=2) for r in range(2)]
    cursor = first[0][-1].cursor
    then = [taken(ragged, mix, 1000, cursor, rank=r, ranks=3, epochs=1) for r in range(3)]
    every = names(ragged, (b for batches in (*first, *then) for b in batches))
    assert every == names(ragged, taken(ragged, mix, 1000, epochs=1))


def test_workers_that_take_turns_give_the_order_of_one(ragged: Lake) -> None:
    whole = taken(ragged, mixture(ragged), 12)
    assert_same(whole[1::3], taken(ragged, mixture(ragged), 4, turn=(1, 3)))


def test_shares_are_kept_at_every_length(ragged: Lake) -> None:
    a, b, c = ragged.recording_ids()
    sources = (Source(recordings=(a,), weight=5), Source(recordings=(b,), weight=3), Source(recordings=(c,), weight=2))
    windows = names(ragged, taken(ragged, mixture(ragged, sources=sources, batch=50), 20))
    for n in (50, 500, 1000):
        found = Counter(rid for _, rid, _ in windows[:n])
        assert all(abs(found[rid] - share * n) < 4 for rid, share in ((a, 0.5), (b, 0.3), (c, 0.2)))


@settings(max_examples=30, deadline=None)
@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), seed=st.integers(0, 2**63), n=st.integers(0, 3000)
)
def test_counts_are_those_of_the_sequence(weights: list[float], seed: int, n: int) -> None:
    shares = Shares.of(weights, seed)
    sources = shares.sources(0, n)
    np.testing.assert_array_equal(shares.counts(n), np.bincount(sources, minlength=len(weights)))
    np.testing.assert_array_equal(shares.sources(n // 2, n), sources[n // 2 :])
    expected = np.array(weights) / sum(weights) * n
    assert np.abs(shares.counts(n) - expected).max() <= 8


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_an_order_visits_each_tile_once(size: int, key: int) -> None:
    order = permuted(np.arange(size), size, np.full(size, key, np.uint64))
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_queries_choose_recordings(ragged: Lake) -> None:
    sql = "select recording_id from streams where stream = 'lfp' and n_channels = 5"
    with Loader(ragged, mixture(ragged, sources=(Source(sql=sql),))) as loader:
        assert loader.recordings == ("a:b@1/two",)
        assert not next(loader).recording.any()


# memory, faults, ends


def test_a_batch_is_valid_as_long_as_it_is_held(ragged: Lake) -> None:
    handed: list[np.ndarray] = []

    def allocate(n_bytes: int) -> np.ndarray:
        handed.append(np.empty(n_bytes, np.uint8))
        return handed[-1]

    with Loader(ragged, mixture(ragged), held=3, prefetch=2, allocate=allocate, cursor=Cursor(seed=5)) as loader:
        kept: list[tuple[WindowBatch, WindowBatch]] = []
        for batch, _ in zip(loader, range(40)):
            kept = [*kept[-2:], (batch, batch.copied())]
            assert_same([one for one, _ in kept], [copy for _, copy in kept])
            assert any(np.shares_memory(batch.samples("position").values, block) for block in handed)
        before = len(handed)
        for _, _ in zip(loader, range(40)):
            pass
        assert len(handed) - before < 20  # buffers are used again, and grow now and then


def damage(lake: Lake, name: str) -> None:
    """Cuts the shards of one recording's LFP short."""
    folder = lake.root / lake._row(name)["path"] / "lfp" / "values" / "c"
    shards = [path for path in folder.rglob("*") if path.is_file()]
    for shard in shards:
        os.truncate(shard, shard.stat().st_size // 3)


def test_a_damaged_recording_is_refused_and_replaced_the_same_way_by_any_threads(ragged: Lake) -> None:
    damage(ragged, "a:b@1/two")
    runs = []
    for threads, prefetch in ((1, 1), (4, 6)):
        with Loader(ragged, mixture(ragged), cursor=Cursor(seed=5), threads=threads, prefetch=prefetch) as loader:
            runs.append([batch.copied() for batch, _ in zip(loader, range(30))])
            assert list(loader.refused) == ["a:b@1/two"]
            assert "shard" in loader.refused["a:b@1/two"]
            assert loader.cursor.refused == ("a:b@1/two",)
    assert_same(*runs)
    windows = names(ragged, runs[0])
    assert [n for n, *_ in windows] == list(range(120))
    assert "a:b@1/two" not in {rid for _, rid, _ in windows}
    assert_equals_slices(ragged, tuple(ragged.recording_ids()), runs[0])
    assert_same(runs[0][9:], taken(ragged, mixture(ragged), 21, runs[0][8].cursor))


def test_damage_stops_where_the_mixture_says_so(ragged: Lake) -> None:
    damage(ragged, "a:b@1/two")
    with Loader(ragged, mixture(ragged, on_damage="stop")) as loader:
        for _ in range(2):  # asked again, it says it again and leaves nothing out
            with pytest.raises(LakeCorrupt, match="shard"):
                for _, _ in zip(loader, range(30)):
                    pass


def test_a_source_with_nothing_left_is_an_error(ragged: Lake) -> None:
    damage(ragged, "a:b@1/two")
    sources = (Source(recordings=("a:b@1/one",)), Source(recordings=("a:b@1/two",)))
    with (
        Loader(ragged, mixture(ragged, sources=sources)) as loader,
        pytest.raises(LakeCorrupt, match="every recording"),
    ):
        for _, _ in zip(loader, range(30)):
            pass


def test_a_flipped_bit_is_found_before_its_recording_is_used(ragged: Lake) -> None:
    folder = ragged.root / ragged._row("a:b@1/two")["path"] / "lfp" / "values" / "c"
    shard = next(path for path in folder.rglob("*") if path.is_file())
    flipped = bytearray(shard.read_bytes())
    flipped[100] ^= 1
    shard.write_bytes(flipped)
    with Loader(ragged, mixture(ragged, check_files=True)) as loader:
        assert "sha256" in loader.refused["a:b@1/two"]
    with pytest.raises(LakeCorrupt, match="sha256"):
        Loader(ragged, mixture(ragged, check_files=True, on_damage="stop"))


def test_what_cannot_be_read_is_said(ragged: Lake) -> None:
    for changes, said in (
        ({"streams": ("calcium",)}, "in none of its recordings"),
        ({"streams": ("trials",)}, "intervals"),
        ({"window_s": 1000.0}, "no span of 1000"),
        ({"sources": (Source(sql="select recording_id from recordings where species = 'x'"),)}, "no recording"),
        ({"sources": (Source(sql="select subject_id from recordings"),)}, "recording_id"),
        ({"streams": ("lfp", "tracker"), "values": "stored", "window_s": -1.0}, "positive"),
    ):
        with pytest.raises(ConfigError, match=said):
            Loader(ragged, mixture(ragged, **changes))
    with pytest.raises(NotThere):
        Loader(ragged, mixture(ragged, sources=(Source(recordings=("a:b@1/nine",)),)))


def test_nothing_is_left_after_close(ragged: Lake) -> None:
    before, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    loader = Loader(ragged, mixture(ragged), threads=3)
    batch = next(loader)
    assert threading.active_count() > before
    loader.close()
    loader.close()
    assert threading.active_count() == before
    assert len(os.listdir("/proc/self/fd")) <= files
    assert batch.samples("lfp").mask.all()
    with pytest.raises(ConfigError, match="closed"):
        next(loader)


def test_numpy_and_pyarrow_are_enough(ragged: Lake) -> None:
    code = f"""
import sys
for name in ("torch", "zarr", "duckdb"):
    sys.modules[name] = None
from neurofmx.lake import Lake
from neurofmx.tokenize.loader import Loader
from neurofmx.tokenize.mixture import Mixture, Source
lake = Lake.open({str(ragged.root)!r})
mix = Mixture(sources=(Source(recordings=("a:b@1/one",)),), streams=("spikes", "lfp"), window_s=1.0, batch=4)
with Loader(lake, mix) as loader:
    print(sum(len(batch) for batch, _ in zip(loader, range(5))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "20", done.stderr
