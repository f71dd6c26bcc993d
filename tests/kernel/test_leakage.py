"""The leakage check: silent on a sound split, and failing by name for each kind of planted leak."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurofmx.errors import Leakage
from neurofmx.leakage import Promise, Windows, apart, crossing, judge, refuse
from neurofmx.splits import block_folds
from neurofmx.twins import FILE, RECORDING, STREAM, Link

SPLIT = "0123456789abcdef"
A, B, C = "arch:set@1/a", "arch:set@1/b", "arch:set@2/a"
SUBJECTS = {SPLIT: Promise(group="subject_id")}
BLOCKS = {SPLIT: Promise(group=None, gap_s=1.0)}


def whole(recording: str, subject: str, fold: int, group: str = "") -> dict[str, Any]:
    return {
        "split_id": SPLIT, "task": "t", "recording_id": recording, "subject_id": subject,
        "group_name": group or f"arch:set/{subject}", "unit": recording, "fold": fold, "start_s": 0.0, "stop_s": 60.0,
    }  # fmt: skip


def blocks(recording: str, dealer: str, gap_s: float = 1.0) -> list[dict[str, Any]]:
    cut = block_folds(dealer, np.array([[0.0, 100.0]]), n_blocks=10, n_folds=5, guard_s=gap_s)
    return [
        whole(recording, "s", b.fold) | {"group_name": "", "start_s": b.start_s, "stop_s": b.stop_s, "unit": b.unit}
        for b in cut
    ]


def failed(*given: Any, **more: Any) -> dict[str, str]:
    found = judge(*given, **more)
    assert all(check.severity == "block" for check in found)
    return {check.name: check.evidence for check in found if not check.passed}


def link(kind: str, *recordings: str) -> Link:
    return Link(kind=kind, what="f" * 64, recordings=recordings)


SOUND = [whole(A, "s1", 0), whole(B, "s2", 1), whole("arch:set@1/c", "s1", 0)]


def test_a_sound_split_passes_every_check() -> None:
    found = judge(SOUND, [link(STREAM, A, "arch:set@1/c")], SUBJECTS, {})
    assert [check.name for check in found] == [
        f"leakage.{name}" for name in ("blocks", "groups", "subjects", "content", "twins", "windows")
    ]
    assert all(check.passed for check in found)
    assert "3 rows of 1 splits" in found[0].evidence
    refuse(found)
    assert not failed(blocks(A, A), [], BLOCKS)


def test_a_group_in_two_folds_is_named() -> None:
    leak = [*SOUND, whole("arch:set@1/d", "s3", 2, group="arch:set/s1")]
    assert set(found := failed(leak, [], SUBJECTS)) == {"leakage.groups"}
    assert "group arch:set/s1" in found["leakage.groups"]
    assert A in found["leakage.groups"]
    assert "arch:set@1/d" in found["leakage.groups"]


def test_a_subject_in_two_folds_is_named_even_under_two_group_names() -> None:
    leak = [*SOUND, whole("arch:set@1/d", "s1", 2, group="arch:set/inherited")]
    assert set(found := failed(leak, [], SUBJECTS)) == {"leakage.subjects"}
    assert "subject arch:set/s1 is in folds 0" in found["leakage.subjects"]
    assert not failed(leak, [], {SPLIT: Promise(group="")})  # runs of one subject may be apart where the task says so


@pytest.mark.parametrize(
    ("kind", "name"),
    [(STREAM, "leakage.content"), (FILE, "leakage.content"), (RECORDING, "leakage.twins")],
)
def test_the_same_content_in_two_folds_is_named(kind: str, name: str) -> None:
    leak = [*SOUND, whole(C, "s4", 3)]
    assert set(found := failed(leak, [link(kind, A, C)], SUBJECTS)) == {name}
    assert A in found[name] and C in found[name]
    assert "folds 0 and 3" in found[name]
    with pytest.raises(Leakage, match=C):
        refuse(judge(leak, [link(kind, A, C)], SUBJECTS))


def test_inside_recordings_twins_leak_where_their_folds_differ_at_the_same_time() -> None:
    same, other = [*blocks(A, A), *blocks(C, A)], [*blocks(A, A), *blocks(C, C)]
    assert not failed(same, [link(RECORDING, A, C)], BLOCKS)
    found = failed(other, [link(RECORDING, A, C), link(STREAM, A, C)], BLOCKS)
    assert set(found) == {"leakage.twins", "leakage.content"}
    assert not failed(other, [], BLOCKS)
    twins = {A: (A, C), C: (A, C)}
    assert A in apart(C, blocks(C, C), {A: blocks(A, A)}, twins)
    assert not apart(C, blocks(C, A), {A: blocks(A, A)}, twins)
    assert not apart(B, blocks(B, B), {A: blocks(A, A)}, twins)


def test_blocks_that_overlap_or_lie_too_close_are_named() -> None:
    rows = blocks(A, A)
    order = sorted(rows, key=lambda r: r["start_s"])
    pair = next((a, b) for a, b in zip(order, order[1:]) if a["fold"] != b["fold"])
    pair[0]["stop_s"] = pair[1]["start_s"] - 0.5
    assert set(found := failed(rows, [], BLOCKS)) == {"leakage.blocks"}
    assert A in found["leakage.blocks"] and "1 s apart" in found["leakage.blocks"]
    pair[0]["stop_s"] = pair[1]["start_s"] + 0.5
    assert set(failed(rows, [], {SPLIT: Promise(group=None)})) == {"leakage.blocks"}


def windows(start: list[float], stop: list[float], fold: list[int]) -> dict[str, list[Windows]]:
    return {SPLIT: [Windows(recording=A, start_s=np.array(start), stop_s=np.array(stop), fold=np.array(fold))]}


def test_a_window_that_straddles_folds_is_named() -> None:
    rows = sorted(blocks(A, A), key=lambda r: r["start_s"])
    inside = windows([r["start_s"] for r in rows], [r["start_s"] + 1 for r in rows], [r["fold"] for r in rows])
    assert not failed(rows, [], BLOCKS, inside)
    first, fold = rows[0], rows[0]["fold"]
    over = windows([first["stop_s"] - 0.5], [first["stop_s"] + 0.5], [fold])
    assert "lies in no block" in failed(rows, [], BLOCKS, over)["leakage.windows"]
    wrong = windows([first["start_s"]], [first["start_s"] + 1], [(fold + 1) % 5])
    assert A in failed(rows, [], BLOCKS, wrong)["leakage.windows"]
    unused = windows([first["stop_s"] - 0.5], [first["stop_s"] + 0.5], [-1])
    assert not failed(rows, [], BLOCKS, unused)
    two = windows([0.0, 0.9], [1.0, 1.9], [0, 1])
    assert "reaches into" in failed((), [], BLOCKS, two)["leakage.windows"]


def test_rows_of_splits_that_no_task_uses_are_history() -> None:
    leak = [r | {"split_id": "old"} for r in [*SOUND, whole(C, "s1", 3)]]
    assert not failed(leak, [link(RECORDING, A, C)], SUBJECTS)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 9), st.integers(0, 3)), max_size=12))
def test_crossing_finds_what_comparing_all_pairs_finds(spans) -> None:
    start = np.array([s for s, _, _ in spans])
    stop, fold = start + np.array([n for _, n, _ in spans]), np.array([f for _, _, f in spans], dtype=int)
    slow = [
        (i, j)
        for i in range(len(spans))
        for j in range(len(spans))
        if fold[i] != fold[j] and start[i] <= start[j] and stop[i] > start[j] + 1e-6
    ]
    found = crossing(start, stop, fold)
    assert (found is not None) == bool(slow)
    assert found is None or found in slow
