"""Splits: append-only, covering, disjoint, guarded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurofmx.errors import ConfigError, Leakage
from neurofmx.splits import Block, block_folds, check_blocks, group_fold


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
