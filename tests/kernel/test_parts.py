"""Parts and bases: what was put is what is read, whatever merges, kills and readers do meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from neurofmx import bases, catalog, merging, parts
from neurofmx.errors import ConfigError, Denied, LakeCorrupt
from neurofmx.lake import Lake

KEYS = st.sampled_from(["a:b@1/r1", "a:b@1/r2", "a:b@1/r3", "plain", "x/y", "x:y", "base-0123456789abcdef"])


def channels(key: str, values: list[int]) -> list[dict]:
    return [{"recording_id": key, "row": v, "channel": str(v)} for v in values]


def held(lake: Lake, frozen: list[str] | None = None) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in parts.read(lake, "channels", frozen=frozen).to_pylist():
        found.setdefault(row["recording_id"], []).append(row["row"])
    return found


class PutsAndMerges(RuleBasedStateMachine):
    """Every rule beside a dict; small limits, so that merges, growth and clearing all happen."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.lake = Lake.open(Path(self.folder.name) / "lake")
        self.reader = catalog.Reader(self.lake)
        self.truth: dict[str, list[int]] = {}
        self.frozen: list[tuple[list[str], dict[str, list[int]]]] = []

    @rule(key=KEYS, values=st.lists(st.integers(0, 9), max_size=4))
    def put(self, key: str, values: list[int]) -> None:
        catalog.put(self.lake, "channels", key, channels(key, values))
        self.truth[key] = values

    @rule(key=KEYS)
    def drop(self, key: str) -> None:
        catalog.drop(self.lake, "channels", key)
        self.truth.pop(key, None)

    @rule(many=st.dictionaries(KEYS, st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1))
    def put_table(self, many: dict[str, list[int]]) -> None:
        listed = [(key, row) for key, values in many.items() for row in channels(key, values)]
        rows = pa.Table.from_pylist([row for _, row in listed])
        catalog.put_table(self.lake, "channels", [key for key, _ in listed], rows)
        self.truth |= many

    @rule()
    def compact(self) -> None:
        parts.compact(self.lake, "channels")

    @rule()
    def freeze(self) -> None:
        names = parts.freeze(self.lake).get("channels", [])
        self.frozen.append((names, {key: list(values) for key, values in self.truth.items() if values}))

    @precondition(lambda self: self.frozen)
    @rule()
    def forget_and_collect(self) -> None:
        self.frozen.pop(0)
        parts.collect(self.lake, {name for names, _ in self.frozen for name in names}, grace_s=0.0)

    @invariant()
    def reads_what_was_put(self) -> None:
        truth = {key: values for key, values in self.truth.items() if values}
        assert held(self.lake) == truth
        assert parts.count(self.lake, "channels") == sum(map(len, truth.values()))
        for key, values in self.truth.items():
            assert [r["row"] for r in catalog.rows(self.lake, "channels", key)] == values
        told = self.reader.query("select recording_id as k, list(row) as v from channels group by all").to_pylist()
        assert {row["k"]: sorted(row["v"]) for row in told} == {key: sorted(v) for key, v in truth.items()}
        for names, then in self.frozen:
            assert held(self.lake, names) == then

    def teardown(self) -> None:
        self.reader.__exit__()
        self.folder.cleanup()


@pytest.mark.parametrize("growth", [0, 4])  # 0: bases are never merged along, so all hide in one another
def test_any_sequence_reads_as_a_dict_would(monkeypatch: pytest.MonkeyPatch, growth: int) -> None:
    monkeypatch.setattr(parts, "LOOSE", 3)
    monkeypatch.setattr(merging, "GROWTH", growth)
    monkeypatch.setattr(merging, "HIDDEN", 4)
    monkeypatch.setattr(merging, "LARGEST", 12)
    monkeypatch.setattr(merging, "GRACE_S", 0.0)
    monkeypatch.setattr(bases, "ROW_GROUP", 2)
    run = PutsAndMerges.TestCase
    run.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)
    run().runTest()


def test_merging_is_triggered_and_geometric(lake: Lake) -> None:
    for i in range(400):
        catalog.put(lake, "channels", f"k{i}", channels(f"k{i}", [i]))
    folder = lake.root / "catalog" / "channels"
    pointer = bases.read_pointer(folder)
    assert len(merging.loose_names(folder)) <= parts.LOOSE
    assert 1 <= len(pointer.bases) <= 3
    assert sorted(r["row"] for r in catalog.rows(lake, "channels")) == list(range(400))
    written = len(list(folder.glob("base-*.parquet")))
    assert written <= 400 // parts.LOOSE + 1


def test_a_point_lookup_reads_one_row_group(lake: Lake) -> None:
    keys = [f"r{i:05d}" for i in range(3000) for _ in range(10)]
    rows = pa.table({"recording_id": keys, "row": [i % 10 for i in range(30_000)]})
    catalog.put_table(lake, "channels", keys, rows)
    folder = lake.root / "catalog" / "channels"
    base = bases.open_base(folder / bases.read_pointer(folder).bases[0])
    assert base.footer.num_row_groups == 4
    assert len(base.groups({"r01500"})) == 1
    assert [r["row"] for r in catalog.rows(lake, "channels", "r01500")] == list(range(10))
    assert catalog.rows(lake, "channels", "r99999") == []


def test_a_lake_of_loose_parts_alone_and_of_fewer_columns_still_reads(lake: Lake) -> None:
    folder = lake.root / "catalog" / "datasets"
    folder.mkdir()
    for i in range(100):  # as they were before there were bases, and before there was a column `citation`
        pq.write_table(pa.table({"dataset_id": [f"d{i}"], "n_listed": [i]}), folder / f"d{i}.parquet")
    want = {f"d{i}": None for i in range(100)}
    assert {r["dataset_id"]: r["citation"] for r in catalog.rows(lake, "datasets")} == want
    catalog.put(lake, "datasets", "new", [{"dataset_id": "new", "citation": "c"}])
    assert len(merging.loose_names(folder)) == 0
    assert {r["dataset_id"]: r["citation"] for r in catalog.rows(lake, "datasets")} == want | {"new": "c"}
    told = catalog.query(lake, "select sum(n_listed) as n, max(citation) as c from datasets").to_pylist()
    assert told == [{"n": 4950, "c": "c"}]


def test_a_base_that_lacks_a_new_column_reads_as_null(lake: Lake) -> None:
    folder = lake.root / "catalog" / "datasets"
    old = pa.table({"dataset_id": ["d"], bases.PART: ["d"]})
    bases.write_pointer(folder, bases.Pointer(bases=(bases.write_base(folder, old, set()),)))
    assert catalog.rows(lake, "datasets", "d")[0]["licence"] is None
    assert catalog.query(lake, "select licence, dataset_id from datasets").to_pylist() == [
        {"licence": None, "dataset_id": "d"}
    ]


def test_a_frozen_state_survives_what_comes_after(lake: Lake) -> None:
    catalog.put(lake, "channels", "a", channels("a", [1]))
    catalog.put(lake, "channels", "b", channels("b", [2]))
    first = parts.freeze(lake)
    assert first == parts.freeze(lake)
    catalog.put(lake, "channels", "a", channels("a", [3]))
    catalog.drop(lake, "channels", "b")
    second = parts.freeze(lake)
    assert held(lake, first["channels"]) == {"a": [1], "b": [2]}
    assert held(lake, second["channels"]) == held(lake) == {"a": [3]}
    assert parts.collect(lake, {*first["channels"], *second["channels"]}, grace_s=0.0) == []
    parts.collect(lake, set(second["channels"]), grace_s=0.0)
    with pytest.raises(LakeCorrupt, match=first["channels"][0]):
        held(lake, first["channels"])
    assert held(lake) == {"a": [3]}


def test_garbage_is_what_nobody_needs(lake: Lake) -> None:
    catalog.put(lake, "channels", "a", channels("a", [1]))
    parts.compact(lake, "channels")
    folder = lake.root / "catalog" / "channels"
    leftover, orphan = folder / "a.parquet.0.tmp", folder / "base-0123456789abcdef.parquet"
    leftover.write_bytes(b"half")
    orphan.write_bytes(b"half")
    assert set(parts.garbage(lake, set())) == {leftover, orphan}
    assert parts.garbage(lake, {orphan.name}) == [leftover]
    before = bases.read_pointer(folder).bases[0]
    catalog.put(lake, "channels", "a", channels("a", [2]))
    parts.compact(lake, "channels")
    assert folder / before not in parts.garbage(lake, set())  # a reader may still be in it
    assert folder / before in parts.garbage(lake, set(), grace_s=0.0)
    assert set(parts.collect(lake, set(), grace_s=0.0)) == {leftover, orphan, folder / before}
    assert parts.garbage(lake, set(), grace_s=0.0) == []
    assert held(lake) == {"a": [2]}


def test_damage_is_named(lake: Lake) -> None:
    path = catalog.put(lake, "channels", "a", channels("a", [1]))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(LakeCorrupt, match=str(path)):
        catalog.rows(lake, "channels")
    path.unlink()
    (path.parent / "current.json").write_text("[]")
    with pytest.raises(LakeCorrupt, match="current.json"):
        catalog.query(lake, "select * from channels")
    with pytest.raises(ConfigError, match="columns"):
        catalog.put_table(lake, "channels", ["a"], pa.table({"nope": [1]}))


def test_a_folder_that_may_not_be_written_is_named(lake: Lake) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    folder = lake.root / "catalog" / "channels"
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(Denied, match="channels"):
        catalog.put(lake, "channels", "a", channels("a", [1]))


WRITER = """
import sys
from pathlib import Path
from neurofmx import catalog
from neurofmx.lake import Lake
lake, name, rounds = Lake(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
for turn in range(rounds):
    for i in range(20):
        key = f"{name}-{i}"
        row = {"recording_id": key, "row": turn, "stream": "s"}
        catalog.put(lake, "channels", key, [row, row])
"""
READER = """
import sys
from collections import Counter
from pathlib import Path
from neurofmx import catalog, parts
from neurofmx.lake import Lake
lake, reads, by_sql = Lake(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3] == "sql"
reader = catalog.Reader(lake)
seen = Counter()
for _ in range(reads):
    asked = reader.query("select recording_id, row from channels") if by_sql else parts.read(lake, "channels")
    rows = asked.to_pylist()
    now = Counter((r["recording_id"], r["row"]) for r in rows)
    keys = Counter(r["recording_id"] for r in rows)
    assert set(now.values()) <= {2}, now      # a key's rows are whole, and of one turn
    assert set(keys.values()) <= {2}, keys
    assert set(seen) <= set(keys), set(seen) - set(keys)   # what was there once stays
    latest = {r["recording_id"]: r["row"] for r in rows}
    assert all(latest[key] >= turn for key, turn in seen.items()), (seen, latest)   # and never goes back
    seen = Counter(latest)
print(reads)
"""


def start(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | environment,
    )  # fmt: skip


def test_many_readers_and_writers_lose_and_double_nothing(lake: Lake) -> None:
    small = "from neurofmx import parts\nparts.LOOSE = 8\n"
    writers = [start(small + WRITER, lake.root, f"w{i}", 12) for i in range(2)]
    readers = [start(READER, lake.root, 120, how) for how in ("arrow", "sql")]
    for process in (*writers, *readers):
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert held(lake) == {f"w{w}-{i}": [11, 11] for w in range(2) for i in range(20)}


MERGER = """
import sys
from pathlib import Path
import pyarrow as pa
from neurofmx import catalog, merging, parts
from neurofmx.lake import Lake
lake = Lake(Path(sys.argv[1]))
parts.LOOSE, merging.GRACE_S = 4, 0.0
print("ready", flush=True)
turn = max([0, *(r["row"] for r in catalog.rows(lake, "channels"))])
while True:
    turn += 1
    for i in range(6):
        catalog.put(lake, "channels", f"k{i}", [{"recording_id": f"k{i}", "row": turn}] * 3)
    catalog.put(lake, "channels", "gone", [{"recording_id": "gone", "row": turn}])
    catalog.drop(lake, "channels", "gone")
    catalog.put(lake, "channels", "t0", [{"recording_id": "t0", "row": 2 * turn}] * 3)
    keys = ["t0", "t1", "t2"] * 3
    many = pa.table({"recording_id": keys, "row": [2 * turn + 1] * 9})
    catalog.put_table(lake, "channels", keys, many)
    parts.freeze(lake)
"""


def killed_leaves_it_whole(lake: Lake, chance: random.Random) -> None:
    before = held(lake)
    process = start(MERGER, lake.root)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(chance.uniform(0.0, 0.25))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    after = held(lake)
    gone = after.pop("gone", [1])
    assert len(gone) == 1
    assert before.keys() - {"gone"} <= after.keys()
    assert all(len(rows) == 3 and len(set(rows)) == 1 for rows in after.values())
    if "t1" in after:  # what is put at once is there at once
        assert after["t1"] == after["t2"]
        assert after["t0"][0] - after["t1"][0] == 0 or after["t0"][0] % 2 == 0
    told = catalog.query(lake, "select recording_id as k, list(row) as v from channels group by all").to_pylist()
    assert {row["k"]: row["v"] for row in told if row["k"] != "gone"} == after
    parts.collect(lake, set(bases.read_pointer(lake.root / "catalog" / "channels").frozen), grace_s=0.0)
    assert not list((lake.root / "catalog").rglob("*.tmp"))
    catalog.drop(lake, "channels", "gone")
    assert held(lake) == after


def test_a_merge_that_is_killed_leaves_the_old_state_or_the_new(lake: Lake) -> None:
    chance = random.Random(3)
    for _ in range(5):
        killed_leaves_it_whole(lake, chance)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_merges_killed_again_and_again_leave_the_old_state_or_the_new(lake: Lake, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        killed_leaves_it_whole(lake, chance)
