"""Windows and folds: append-only, never straddling, with reasons for what is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofmx import catalog
from neurofmx.errors import Leakage, NotThere
from neurofmx.evaluate.build import add_split_rows, build, deal_groups, task_data, task_data_of, with_phases
from neurofmx.evaluate.spec import Phase, TaskSpec
from neurofmx.lake import Lake
from neurofmx.splits import group_fold
from neurofmx.tokenize.catalog import spec as token_spec
from neurofmx.tokenize.grid import tokenize
from neurofmx.tokenize.windows import SHARED
from neurofmx.types import Recording

Planted = Callable[..., Recording]


def test_windows_of_a_fold_lie_inside_its_blocks(planted: Planted, task: TaskSpec) -> None:
    built = build(task, [planted()])
    (windows,) = built.data.recordings
    rows = built.splits[windows.recording]
    length = 10 * windows.dt_s
    inside = [
        any(r["start_s"] - 1e-6 <= s and s + known - 1e-6 <= r["stop_s"] and r["fold"] == f for r in rows)
        for s, f, known in zip(windows.start_s, windows.fold, windows.target_mask.sum(axis=1) * windows.dt_s)
    ]
    assert all(inside)
    assert length == pytest.approx(1.0)
    assert {r["fold"] for r in rows} == set(range(5))
    stops, starts = sorted(r["stop_s"] for r in rows)[:-1], sorted(r["start_s"] for r in rows)[1:]
    assert np.allclose(np.array(starts) - stops, 0.4)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True), st.integers(0, 3))
def test_new_recordings_move_no_old_row(planted: Planted, task: TaskSpec, trials: TaskSpec, more, which: int) -> None:
    subjects = replace(task, split="recordings", group="subject_id", unit="subject", n_folds=7)
    spec = (task, trials, subjects, replace(subjects, group="", unit="recording"))[which]
    made = [planted(f"r{i}", seed=i, duration_s=30.0, subject=f"s{i % 4}") for i in more]
    first = build(spec, made[:1])
    both = build(spec, made)
    key = str(made[0].id)
    assert both.splits[key] == first.splits[key]
    old, new = first.data.recordings[0], both.data.recordings[0]
    assert np.array_equal(old.fold, new.fold)
    assert np.array_equal(old.unit, new.unit)


@given(st.sets(st.text("abcdef", min_size=1), min_size=1, max_size=30), st.integers(2, 6))
def test_groups_are_dealt_evenly_by_name(groups: set[str], folds: int) -> None:
    dealt = deal_groups("r", groups, folds)
    count = np.bincount(list(dealt.values()), minlength=folds)
    assert count.max() - count.min() <= 1
    assert deal_groups("r", sorted(groups, reverse=True), folds) == dealt


def test_whole_recordings_fall_by_hash_of_their_subject(planted: Planted, task: TaskSpec) -> None:
    spec = replace(task, split="recordings", group="subject_id", unit="subject", n_folds=7, standardise=True)
    data = task_data_of(spec, [planted(f"r{i}", seed=i, duration_s=30.0, subject=f"s{i // 2}") for i in range(6)])
    for i, windows in enumerate(data.recordings):
        assert set(windows.fold) == {group_fold(f"test:planted/s{i // 2}", n_folds=7)}
        assert set(windows.unit) == {f"test:planted/s{i // 2}"}
        name = f"calcium{SHARED}"
        real = windows.values[name][windows.mask[name].all(axis=2)]
        assert np.allclose(real.std(axis=0), 1, atol=0.1)


def test_split_rows_are_stored_once_and_never_change(lake: Lake, planted: Planted, task: TaskSpec) -> None:
    lake.publish_recording(planted("r0"))
    task_data(task, lake)
    before = catalog.rows(lake, "splits")
    lake.publish_recording(planted("r1", seed=1))
    task_data(task, lake)
    after = catalog.rows(lake, "splits")
    assert [r for r in after if r["recording_id"].endswith("r0")] == before
    assert {r["recording_id"] for r in after} == {"test:planted@1/r0", "test:planted@1/r1"}
    moved = [r | {"fold": (r["fold"] + 1) % 5} for r in before]
    with pytest.raises(Leakage, match="would change"):
        add_split_rows(lake, f"{task.name}|{task.split_id()}|test:planted@1/r0", moved)
    assert catalog.rows(lake, "splits") == after


def test_a_changed_recording_may_not_move_its_split(lake: Lake, planted: Planted, task: TaskSpec) -> None:
    lake.publish_recording(planted("r0"))
    task_data(task, lake)
    lake.publish_recording(planted("r0", duration_s=60.0))
    with pytest.raises(Leakage, match="new dataset version"):
        task_data(task, lake)


def test_overlapping_trials_of_two_folds_leak(planted: Planted, trials: TaskSpec) -> None:
    wide = replace(trials, target=replace(trials.target, duration_s=1.5, group=""))
    with pytest.raises(Leakage):
        task_data_of(wide, [planted()])


def test_what_does_not_fit_is_left_out_with_a_reason(lake: Lake, planted: Planted, task: TaskSpec) -> None:
    good, bare, short = planted("good"), planted("bare"), planted("short", duration_s=3.0)
    bare = replace(bare, streams={k: v for k, v in bare.streams.items() if k != "behaviour"})
    for recording in (good, bare, short):
        lake.publish_recording(recording)
    data = task_data(task, lake)
    assert [w.recording for w in data.recordings] == [str(good.id)]
    said = {r["recording_id"]: r["evidence"] for r in catalog.rows(lake, "checks") if r["stage"] == "task"}
    assert "behaviour" in said[str(bare.id)]
    assert "longer than the guard" in said[str(short.id)]
    with pytest.raises(NotThere, match="behaviour"):
        task_data_of(task, [bare])


def test_stored_tokens_are_read_and_equal_to_fresh_ones(lake: Lake, planted: Planted, task: TaskSpec) -> None:
    recording = planted("r0")
    lake.publish_recording(recording)
    fresh = task_data(task, lake)
    spec = token_spec("calcium")
    doubled = replace(tokenize(recording, spec), values=2 * tokenize(recording, spec).values)
    lake.publish_tokens(recording.id, spec, doubled)
    stored = task_data(task, lake)
    for a, b in zip(fresh.recordings, stored.recordings):
        assert np.allclose(2 * a.values["calcium"], b.values["calcium"])


def test_phases_label_two_times_of_the_same_trials(planted: Planted, trials: TaskSpec) -> None:
    phases = (
        Phase(label="before", align="start_s", offset_s=-0.4),
        Phase(label="after", align="start_s", offset_s=0.0),
    )
    target = replace(
        trials.target, stream="phases", column="phase", classes=("before", "after"), duration_s=0.4, group="trial"
    )
    spec = replace(trials, phases=phases, phases_of="trials", target=target)
    recording = planted()
    assert len(with_phases(recording, spec).stream("phases").start_s) == 2 * len(recording.streams["trials"].start_s)  # type: ignore[union-attr]
    (windows,) = task_data_of(spec, [recording]).recordings
    assert np.bincount(windows.target).tolist() == [117, 117]
    for unit in set(windows.unit):
        assert len(set(windows.fold[windows.unit == unit])) == 1
