"""Splits: append-only, covering, disjoint, guarded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurofmx.errors import ConfigError, LakeCorrupt, Leakage
from neurofmx.lake import Lake
from neurofmx.splits import (
    SALT,
    Block,
    Place,
    block_folds,
    check_blocks,
    group_fold,
    held_together,
    keep_salt,
    places,
    salt_of,
    salt_path,
)
from neurofmx.twins import FILE, RECORDING, STREAM, components, links_of


def test_new_groups_move_no_old_one() -> None:
    old = {f"s{i}": group_fold(f"s{i}", n_folds=5) for i in range(100)}
    new = {f"s{i}": group_fold(f"s{i}", n_folds=5) for i in range(150)}
    assert {k: new[k] for k in old} == old
    assert set(new.values()) == set(range(5))


@given(
    st.lists(st.tuples(st.floats(0.5, 50), st.floats(0, 10)), min_size=1, max_size=6),
    st.integers(5, 20),
    st.floats(0, 0.01),
)
def test_blocks_cover_the_valid_time_but_the_guards(parts, n_blocks: int, guard: float) -> None:
    spans, at = [], 0.0
    for length, gap in parts:
        spans.append((at, at + length))
        at += length + gap
    blocks = block_folds("r", np.array(spans), n_blocks=n_blocks, n_folds=5, guard_s=guard)
    check_blocks(blocks, what="r")
    used = sum(b.stop_s - b.start_s for b in blocks)
    assert used == pytest.approx(sum(p[0] for p in parts) - guard * (n_blocks - 1), abs=1e-6)
    assert {b.fold for b in blocks} == set(range(5))
    for b in blocks:
        assert any(lo - 1e-9 <= b.start_s and b.stop_s <= hi + 1e-9 for lo, hi in spans)


def test_blocks_of_neighbouring_folds_keep_the_guard() -> None:
    blocks = block_folds("r", np.array([[0.0, 100.0]]), n_blocks=10, n_folds=5, guard_s=1.0)
    gaps = [b.start_s - a.stop_s for a, b in zip(blocks, blocks[1:])]
    assert np.allclose(gaps, 1.0)
    assert np.unique([b.fold for b in blocks], return_counts=True)[1].tolist() == [2] * 5


def test_too_many_blocks_for_the_guard_is_refused() -> None:
    with pytest.raises(ConfigError, match="guard"):
        block_folds("r", np.array([[0.0, 10.0]]), n_blocks=20, n_folds=5, guard_s=1.0)


def test_overlap_between_folds_is_leakage() -> None:
    blocks = [Block(start_s=0, stop_s=2, fold=0, unit="a"), Block(start_s=1, stop_s=3, fold=1, unit="b")]
    with pytest.raises(Leakage, match="fold 0"):
        check_blocks(blocks, what="r")


def test_a_block_that_spans_others_is_found_though_none_of_them_is_its_neighbour() -> None:
    spans = ((0, 10, 0), (1, 2, 0), (3, 4, 1))
    with pytest.raises(Leakage, match="fold 1 from 3"):
        check_blocks([Block(start_s=a, stop_s=b, fold=f, unit="u") for a, b, f in spans], what="r")


# salt


def test_a_salt_is_written_once_and_moves_folds(lake: Lake) -> None:
    assert salt_of(lake) == SALT
    assert not salt_path(lake).exists()
    assert keep_salt(lake) == SALT
    written = salt_path(lake).read_bytes()
    salt_path(lake).write_text('{"salt": "another"}')
    assert keep_salt(lake) == salt_of(lake) == "another"
    assert written != salt_path(lake).read_bytes()
    names = [f"s{i}" for i in range(40)]
    assert [group_fold(n, n_folds=5) for n in names] != [group_fold(n, n_folds=5, salt="another") for n in names]
    assert not list(salt_path(lake).parent.glob("*.tmp"))


@pytest.mark.parametrize("text", ["", "[]", '{"salt": ""}', '{"salt": 3}', '{"pepper": "x"}'])
def test_a_damaged_salt_is_said(lake: Lake, text: str) -> None:
    salt_path(lake).write_text(text)
    with pytest.raises(LakeCorrupt, match="salt"):
        salt_of(lake)


# groups and twins


def row(name: str, subject: str = "", session: str = "", archive: str = "a", dataset: str = "d", version: str = "1"):
    return {
        "recording_id": f"{archive}:{dataset}@{version}/{name}", "archive": archive, "dataset": dataset, "name": name,
        "subject_id": subject, "session": session,
    }  # fmt: skip


def dealt(rows, stored=(), twins=None, group: str | None = "subject_id"):
    """Rows of table splits, as whole recordings that are held out would have them."""
    found, refused = places(rows, stored, twins or {}, group=group, n_folds=5)
    return {
        r["recording_id"]: {
            "recording_id": r["recording_id"], "group_name": place.group, "unit": place.recording,
            "fold": group_fold(place.group, n_folds=5),
        }
        for r in rows
        if (place := found.get(r["recording_id"]))
    }, refused  # fmt: skip


def test_groups_are_the_subject_where_known_else_the_session() -> None:
    assert held_together(row("x", "s1", "m"), "subject_id") == "a:d/s1"
    assert held_together(row("x", "", "m"), "subject_id") == held_together(row("x", "", "m"), "session") == "a:d/m"
    assert held_together(row("x", "s1", "m"), "session") == "a:d/s1/m"
    assert held_together(row("x", "s1", "m"), "") == "a:d/x"
    with pytest.raises(ConfigError, match="sibling"):
        held_together(row("x"), "sibling")


@pytest.mark.parametrize("group", ["subject_id", "session", "", None])
def test_fifty_new_recordings_and_a_twin_move_no_old_row(group: str | None) -> None:
    old = [row(f"r{i:02d}", f"s{i % 8}", f"m{i % 3}") for i in range(30)]
    first, _ = dealt(old, group=group)
    new = [row(f"a{i:02d}", f"n{i % 9}", f"m{i}") for i in range(25)]  # their ids come first
    new += [row(f"z{i:02d}", f"s{i % 8}", f"new{i}") for i in range(24)] + [row("0-twin", "else", archive="b")]
    pair = ("a:d@1/r07", "b:d@1/0-twin")
    again, refused = dealt([*new, *old], list(first.values()), dict.fromkeys(pair, pair), group=group)
    assert not refused
    assert {key: again[key] for key in first} == first
    assert len(again) == 80
    assert again[pair[1]]["unit"] == pair[0]
    assert again[pair[1]]["group_name"] == first[pair[0]]["group_name"]
    if group == "subject_id":
        by_subject = {r["subject_id"]: again[r["recording_id"]]["fold"] for r in old}
        assert all(again[r["recording_id"]]["fold"] == by_subject[r["subject_id"]] for r in new[25:49])


@given(st.data())
def test_whatever_the_order_of_arrival_no_group_and_no_content_is_in_two_folds(data: st.DataObject) -> None:
    rows = [row(f"r{i}", f"s{data.draw(st.integers(0, 5))}") for i in range(12)]
    ids = [r["recording_id"] for r in rows]
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(ids), st.sampled_from(ids)), max_size=6))
    links = [(a, b) for a, b in pairs if a != b]
    streams = [
        {"recording_id": r, "kind": "samples", "modality": "eeg", "n": 99, "digest": f"{i}"}
        for i, pair in enumerate(links)
        for r in pair
    ]
    arrival = data.draw(st.permutations(rows))
    stored: dict = {}
    for upto in (3, 7, 12):
        here = arrival[:upto]
        there = {r["recording_id"] for r in here}
        twins = components(links_of(here, [s for s in streams if s["recording_id"] in there], []))
        found, refused = dealt(here, list(stored.values()), twins)
        assert {key: found[key] for key in stored} == stored
        assert set(found) | set(refused) == there
        for a, b in links:
            if a in found and b in found:
                assert found[a]["fold"] == found[b]["fold"]
        folds: dict = {}
        for r in here:
            if r["recording_id"] in found:
                folds.setdefault(r["subject_id"], set()).add(found[r["recording_id"]]["fold"])
        assert all(len(f) == 1 for f in folds.values())
        stored = found


def test_what_would_tie_two_folds_together_is_refused_and_nothing_else() -> None:
    names = [f"s{i}" for i in range(20)]
    one = names[0]
    other = next(n for n in names if group_fold(f"a:d/{n}", n_folds=5) != group_fold(f"a:d/{one}", n_folds=5))
    old = [row("r0", one), row("r1", other)]
    stored, _ = dealt(old)
    three = ("a:d@1/bridge", "a:d@1/r0", "a:d@1/r1")
    new = [row("bridge", "third"), row("later", one), row("sibling", "third")]
    found, refused = dealt([*old, *new], list(stored.values()), dict.fromkeys(three, three))
    assert set(refused) == {"a:d@1/bridge", "a:d@1/sibling"}
    assert "two folds" in refused["a:d@1/bridge"]
    assert found["a:d@1/later"]["fold"] == stored["a:d@1/r0"]["fold"]


def test_inside_recordings_a_twin_is_dealt_under_the_name_of_the_first_to_be_stored() -> None:
    rows = [row("a"), row("b"), row("c")]
    ids = tuple(r["recording_id"] for r in rows)
    stored = [{"recording_id": ids[1], "group_name": "", "unit": f"{ids[1]}#004", "fold": 2}]
    found, refused = places(rows, stored, dict.fromkeys(ids, ids), group=None, n_folds=5)
    assert not refused
    assert set(found.values()) == {Place(recording=ids[1], group="")}
    apart = [*stored, {"recording_id": ids[2], "group_name": "", "unit": f"{ids[2]}#000", "fold": 0}]
    found, refused = places(rows, apart, dict.fromkeys(ids, ids), group=None, n_folds=5)
    assert set(found) == {ids[1], ids[2]}
    assert "dealt apart" in refused[ids[0]]


def stream(recording: str, digest: str, modality: str = "eeg", kind: str = "samples", n: int = 1000):
    return {"recording_id": recording, "kind": kind, "modality": modality, "n": n, "digest": digest}


def raw(recording: str, sha256: str, size: int):
    return {
        "child": recording, "child_kind": "recording", "parent": sha256, "parent_kind": "raw",
        "detail": f'{{"size": {size}}}',
    }  # fmt: skip


def test_twins_are_found_by_stream_by_largest_file_and_by_name() -> None:
    rows = [row(n) for n in "abcdef"] + [row("f", version="2"), row("g", dataset="D"), row("g", archive="b")]
    ids = {n: f"a:d@1/{n}" for n in "abcdef"}
    streams = [
        stream(ids["a"], "one"), stream(ids["b"], "one"),
        stream(ids["c"], "short", n=8), stream(ids["d"], "short", n=8),
        stream(ids["c"], "trials", kind="intervals"), stream(ids["d"], "trials", kind="intervals"),
        stream(ids["c"], "played", "sound"), stream(ids["d"], "played", "sound"),
        stream(ids["c"], "c"), stream(ids["d"], "d"),
        stream(ids["e"], "song", "sound"), stream(ids["f"], "song", "sound"),
    ]  # fmt: skip
    lineage = [raw(ids["b"], "big", 99), raw(ids["c"], "big", 99)]
    lineage += [raw(ids[n], "sidecar", 5) for n in "abcdef"] + [raw(ids[n], n, 50) for n in "adef"]
    found = links_of(rows, streams, lineage)
    assert {(link.kind, link.recordings) for link in found} == {
        (STREAM, (ids["a"], ids["b"])), (STREAM, (ids["e"], ids["f"])), (FILE, (ids["b"], ids["c"])),
        (RECORDING, ("a:D@1/g", "b:d@1/g")), (RECORDING, (ids["f"], "a:d@2/f")),
    }  # fmt: skip
    joined = components(found)
    assert joined[ids["a"]] == joined[ids["c"]] == (ids["a"], ids["b"], ids["c"])
    assert joined["a:d@2/f"] == (ids["e"], ids["f"], "a:d@2/f")
    assert ids["d"] not in joined
