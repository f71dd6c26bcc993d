"""Windows and folds: append-only, never straddling, with reasons for what is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofmx import catalog
from neurofmx.clock import identity
from neurofmx.errors import Leakage, NotThere
from neurofmx.evaluate.build import build, task_data, task_data_of, with_phases
from neurofmx.evaluate.evaluate import evaluate_task
from neurofmx.evaluate.leaks import judge_task
from neurofmx.evaluate.spec import Phase, TaskSpec
from neurofmx.evaluate.split_rows import add_split_rows, deal_groups
from neurofmx.lake import Lake
from neurofmx.pipeline import training_sets
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
    assert np.allclose(np.array(starts) - stops, 1.0)  # the window, longer than the guard of 0.4 s


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


@pytest.mark.parametrize("more", [5, pytest.param(49, marks=pytest.mark.slow)])
def test_more_recordings_and_a_twin_leave_every_old_row(
    lake: Lake, planted: Planted, task: TaskSpec, trials: TaskSpec, more: int
) -> None:
    subjects = replace(task, name="planted-subjects", split="recordings", group="subject_id", unit="subject", n_folds=7)
    specs = (task, trials, subjects)
    for i in range(4):
        lake.publish_recording(planted(f"r{i}", seed=i, duration_s=20.0, subject=f"s{i % 4}"))
    for spec in specs:
        task_data(spec, lake)
    before = catalog.rows(lake, "splits")
    olds = {r["recording_id"] for r in before}
    for i in range(more):
        name, subject = (f"a{i}", f"n{i % 20}") if i % 2 else (f"z{i}", f"s{i % 4}")
        lake.publish_recording(planted(name, seed=100 + i, duration_s=20.0, subject=subject))
    # signals of r3 under another name and of another subject
    same = planted("r3", seed=3, duration_s=20.0, subject="somebody")
    lake.publish_recording(replace(same, id=replace(same.id, name="0-copy")))
    said = ("split_id", "start_s", "stop_s", "fold", "unit", "group_name")
    for spec in specs:
        data = task_data(spec, lake)
        assert len(data.recordings) == 5 + more
        assert all(check.passed for check in judge_task(spec, data, lake))
    after = catalog.rows(lake, "splits")

    def known(rows: list[dict]) -> list[tuple]:
        return sorted((r["recording_id"], *(r[k] for k in said)) for r in rows)

    assert known([r for r in after if r["recording_id"] in olds]) == known(before)
    old, new = (known([r for r in after if r["recording_id"].endswith(name)]) for name in ("/r3", "/0-copy"))
    assert [r[1:] for r in new] == [r[1:] for r in old]


def test_a_twin_on_another_clock_is_left_out_with_its_reason(lake: Lake, planted: Planted, task: TaskSpec) -> None:
    one = planted("r0", duration_s=40.0)
    longer = planted("r1", seed=1, duration_s=60.0)
    streams = {**longer.streams, "calcium_copy": replace(one.streams["calcium"], modality="copy")}
    lake.publish_recording(replace(one, streams={**one.streams, "calcium_copy": streams["calcium_copy"]}))
    lake.publish_recording(replace(longer, streams=streams))
    data = task_data(task, lake)
    assert [w.recording for w in data.recordings] == [str(one.id)]
    (said,) = (r["evidence"] for r in catalog.rows(lake, "checks") if r["stage"] == "task")
    assert str(one.id) in said


def test_tasks_that_deal_the_same_content_apart_are_not_learned_together(planted: Planted, task: TaskSpec) -> None:
    one, copy = planted("r0"), planted("r0", dataset="again")
    tasks = {"first": task_data_of(task, [one]), "second": task_data_of(task, [copy])}
    assert [set(together) for together in training_sets(tasks)] == [{"first", "second"}]
    ids = (str(copy.id), str(one.id))
    assert [set(together) for together in training_sets(tasks, dict.fromkeys(ids, ids))] == [{"first"}, {"second"}]


def test_nothing_is_scored_that_leaks(lake: Lake, planted: Planted, task: TaskSpec) -> None:
    for i in range(2):
        lake.publish_recording(planted(f"r{i}", seed=i))
    data = task_data(task, lake)
    copied = replace(planted("r1", seed=0))  # the content of r0 comes in under r1, whose rows are dealt already
    lake.publish_recording(copied)
    assert {c.name for c in judge_task(task, data, lake) if not c.passed} == {"leakage.content"}
    with pytest.raises(Leakage, match="r1"):
        evaluate_task(task, data, {}, seed=0, snapshot="", lake=lake, checkpoints={})
    first = data.recordings[0]
    moved = replace(first, start_s=first.start_s + 0.7)
    shifted = replace(data, recordings=(moved,))
    assert {c.name for c in judge_task(task, shifted, lake) if not c.passed} == {"leakage.windows"}
    bad = replace(first, start_s=np.zeros(len(first)))
    with pytest.raises(Leakage, match=r"windows.*r0"):
        evaluate_task(task, replace(data, recordings=(bad,)), {}, seed=0, snapshot="", lake=None, checkpoints={})


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


def test_a_clock_too_blurred_for_the_bins_is_left_out(lake: Lake, planted: Planted, task: TaskSpec) -> None:
    good, blurred = planted("good"), replace(planted("blurred"), clock_error_s=0.06)
    other = planted("other")  # its spikes are off, which this task does not read
    other = replace(other, clocks={"spikes": identity(0.3), "calcium": identity(0.04)})
    unknown = replace(planted("unknown"), clock_error_s=float("nan"))
    for recording in (good, blurred, other, unknown):
        lake.publish_recording(recording)
    data = task_data(task, lake)
    assert [w.recording for w in data.recordings] == [str(good.id), str(other.id)]
    said = {r["recording_id"]: r["evidence"] for r in catalog.rows(lake, "checks") if r["stage"] == "task"}
    assert set(said) == {str(blurred.id), str(unknown.id)}
    assert "stated error of 0.06 s; expected at most 0.05 s for bins of 0.1 s" in said[str(blurred.id)]
    assert task_data_of(replace(task, max_clock_error_s=0.1), [blurred]).recordings
    with pytest.raises(NotThere, match="max_clock_error_s"):
        task_data_of(replace(task, max_clock_error_s=0.01), [blurred])


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
