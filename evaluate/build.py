"""From a task and recordings to windows with folds: every border is a pure function of names, so none ever moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neurofmx import catalog, groups
from neurofmx.errors import ConfigError, NotThere
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.evaluate.split_rows import Dealt, deal, deal_groups, split_row, store
from neurofmx.ingest.formats import spans
from neurofmx.lake import Lake
from neurofmx.leakage import apart
from neurofmx.splits import Block, Place, block_folds, check_blocks, group_fold, held_together, keep_salt
from neurofmx.tokenize.catalog import spec as token_spec
from neurofmx.tokenize.grid import stream_of, tokenize
from neurofmx.tokenize.targets import kept_rows, target_names, trial_target
from neurofmx.tokenize.windows import RecordingWindows, TaskData, continuous_windows, trial_windows
from neurofmx.twins import components, links
from neurofmx.types import Intervals, Recording, TokenGrid, TokenSpec

Grids = Callable[[Recording, TokenSpec, str], TokenGrid]
PHASES = "phases"


@dataclass(frozen=True, kw_only=True)
class Built:
    """A task's windows and what became of the recordings that do not fit.

    Args:
        data: the windows.
        splits: recording -> its rows of table ``splits``.
        left_out: recording -> why it has no windows.
    """

    data: TaskData
    splits: Mapping[str, list[dict[str, Any]]]
    left_out: Mapping[str, str]


def task_data(task: TaskSpec, lake: Lake, *, recordings: Iterable[str] | None = None) -> TaskData:
    """The windows of a task over the recordings of a lake; its split rows are stored, old ones stay as they are.

    A recording that does not fit is left out, with the reason in table ``checks`` (stage ``task``).

    Args:
        task: what to build.
        lake: holds the recordings and their tokens.
        recordings: only these ids; all that the task chooses if None.

    Raises:
        NotThere: no recording of the lake fits.
        Leakage: a stored split row would change, or two folds would overlap.
    """
    rows = [r for r in catalog.rows(lake, "recordings") if task.where.holds(r)]
    wanted = {r["recording_id"] for r in rows} if recordings is None else set(recordings)
    ids = sorted(r["recording_id"] for r in rows if r["recording_id"] in wanted)
    settled = deal(task, lake, rows, components(links(lake)), keep_salt(lake))

    def grid(recording: Recording, spec: TokenSpec, stream: str) -> TokenGrid:
        only = spec.stored and [s.modality for s in recording.streams.values()].count(spec.modality) == 1
        if only and lake.has_tokens(recording.id, spec):
            return lake.tokens(recording.id, spec)
        return tokenize(recording, spec, stream=stream)

    built = build(task, (lake.recording(i) for i in ids), grid, settled)
    for recording in ids:
        rows = built.left_out.get(recording) or built.splits[recording]
        store(lake, task, recording, rows, settled.salt)
    return built.data


def task_data_of(task: TaskSpec, recordings: Sequence[Recording]) -> TaskData:
    """The windows of a task over open recordings, without a lake.

    Raises:
        NotThere: none of them fits.
    """
    return build(task, recordings).data


def build(
    task: TaskSpec, recordings: Iterable[Recording], grid: Grids | None = None, dealt: Dealt | None = None
) -> Built:
    """Windows, split rows and reasons of a task over recordings.

    Args:
        task: what to build.
        recordings: open recordings, read one after the other.
        grid: makes or reads the tokens of one stream; tokenizes on the fly if None.
        dealt: where they go; each by its own name if None.

    Raises:
        NotThere: none of the recordings fits; the message says why each does not.
        Leakage: two folds would overlap.
    """
    windows, splits, left_out = [], {}, {}
    dealt = dealt or Dealt()
    settled = dict(dealt.stored)
    names: tuple[str, ...] = ()
    fields: dict[str, tuple[str, ...]] = {}
    for recording in recordings:
        rid = str(recording.id)
        try:
            if rid in dealt.refused:
                raise ConfigError(f"split of {rid}", got=dealt.refused[rid], expected="content that is in one fold")
            phased = with_phases(recording, task)
            check_clocks(task, recording)
            grids = _grids(task, phased, grid or (lambda r, s, stream: tokenize(r, s, stream=stream)))
            own, splits[rid] = _windows(task, phased, grids, _place(task, recording, dealt), dealt.salt)
            clash = apart(rid, splits[rid], settled, dealt.twins)
            if clash and rid not in dealt.stored:  # what is stored stays; the leakage check refuses to score it
                raise ConfigError(f"split of {rid}", got=clash, expected="the same folds at the same times")
            found = target_names(phased, task.target)
            if names and found != names:
                raise ConfigError(f"target of {rid}", got=str(found[:8]), expected=str(names[:8]))
        except ConfigError as error:  # a stream, channel, class or length that this recording lacks
            splits.pop(rid, None)
            left_out[rid] = str(error)
            continue
        settled.setdefault(rid, splits[rid])
        names, fields = found, {m: g.fields for m, g in grids.items()}
        windows.append(own)
    if not windows:
        raise NotThere(
            f"recordings for task {task.name}", got="; ".join(f"{k}: {v}" for k, v in left_out.items()) or "none"
        )
    data = TaskData(name=task.name, kind=task.target.kind, names=names, recordings=tuple(windows), fields=fields)
    return Built(data=data, splits=splits, left_out=left_out)


def with_phases(recording: Recording, task: TaskSpec) -> Recording:
    """The recording with the stream ``phases``: one row for each phase of each trial, other columns repeated."""
    if not task.phases:
        return recording
    trials = recording.stream(task.phases_of)
    if not isinstance(trials, Intervals):
        raise ConfigError(f"stream {task.phases_of!r} of {recording.id}", got="no Intervals", expected="trials")
    starts, labels = [], []
    for phase in task.phases:
        if phase.align in ("start_s", "stop_s"):
            at = getattr(trials, phase.align)
        elif phase.align in trials.columns:
            at = np.asarray(trials.columns[phase.align], dtype=np.float64)
        else:
            raise ConfigError(
                f"column {phase.align!r} of {task.phases_of!r}", expected=f"one of {sorted(trials.columns)}"
            )
        starts.append(at + phase.offset_s)
        labels.append(np.full(len(at), phase.label))
    n = len(task.phases)
    columns = {k: np.tile(np.asarray(v), n) for k, v in trials.columns.items()} | {"phase": np.concatenate(labels)}
    columns |= {"trial": np.tile(np.arange(len(trials.start_s)), n)}
    start = np.concatenate(starts)
    known = np.isfinite(start)
    phases = Intervals(
        start_s=start[known],
        stop_s=start[known] + task.target.duration_s,
        columns={k: v[known] for k, v in columns.items()},
        modality=PHASES,
        valid=trials.valid,
    )
    return replace(recording, streams={**recording.streams, PHASES: phases})


def check_clocks(task: TaskSpec, recording: Recording) -> None:
    """Refuses a recording whose streams are not aligned as exactly as the task needs.

    Raises:
        ConfigError: the stated error of an input or of the target is larger, or unknown.
    """
    used = [s if s in recording.streams else stream_of(recording, token_spec(row)) for s, row in task.inputs.items()]
    for stream in [*used, task.target_stream]:
        error_s = recording.clock_error_of(stream)
        if not error_s <= task.clock_limit_s:
            raise ConfigError(
                f"clock of {stream!r} in {recording.id}", got=f"a stated error of {error_s:.3g} s",
                expected=f"at most {task.clock_limit_s:.3g} s for bins of {task.bin_s:g} s",
                fix="Align it better, use wider bins, or state max_clock_error_s of the task.",
            )  # fmt: skip


def _grids(task: TaskSpec, recording: Recording, grid: Grids) -> dict[str, TokenGrid]:
    """Input as the network calls it -> tokens on the task's bins."""
    found = {}
    for (name, row), key in zip(task.inputs.items(), task.spec_of):
        spec = token_spec(row, bin_s=task.bin_s)
        stream = name if name in recording.streams else stream_of(recording, spec)
        tokens = grid(recording, spec, stream)
        if task.standardise:
            tokens = standardised(tokens)
        found[key] = tokens
    return found


def standardised(grid: TokenGrid) -> TokenGrid:
    """Every channel and field with mean 0 and deviation 1 over its real bins: no label is looked at."""
    real = grid.mask[..., None]
    n = np.maximum(real.sum(axis=0), 1)
    values = grid.values.astype(np.float64)
    mean = (values * real).sum(axis=0) / n
    deviation = np.sqrt((np.square(values - mean) * real).sum(axis=0) / n)
    scaled = (values - mean) / np.where(deviation > 1e-9, deviation, 1.0)
    return replace(grid, values=np.where(real, scaled, 0.0).astype(np.float32))


def _place(task: TaskSpec, recording: Recording, dealt: Dealt) -> Place:
    rid = str(recording.id)
    group = held_together(groups.recording_row(recording), task.group) if task.split == "recordings" else ""
    return dealt.places.get(rid, Place(recording=rid, group=group))


def _windows(
    task: TaskSpec, recording: Recording, grids: dict[str, TokenGrid], place: Place, salt: str
) -> tuple[RecordingWindows, list[dict[str, Any]]]:
    rid, target = str(recording.id), task.target
    if task.split == "recordings":
        unit = place.recording
        if task.unit == "subject":
            subject = held_together(groups.recording_row(recording), "subject_id")
            unit = place.group if task.group == "subject_id" else subject
        fold = group_fold(place.group, n_folds=task.n_folds, salt=salt)
        blocks = [Block(start_s=recording.domain_s[0], stop_s=recording.domain_s[1], fold=fold, unit=unit)]
    elif task.split == "blocks":
        blocks = block_folds(
            place.recording, used_time(task, recording), n_blocks=task.n_blocks, n_folds=task.n_folds,
            guard_s=task.gap_s, salt=salt,
        )  # fmt: skip
    elif target.kind == "continuous":
        raise ConfigError(f"split of task {task.name}", got="trial_groups", expected="blocks for a continuous target")
    else:
        return _grouped(task, recording, grids, place, salt)
    check_blocks(blocks, what=rid)
    if target.kind == "continuous":
        bins = max(1, round(task.window_s / task.bin_s))
        windows = continuous_windows(grids, target, recording, blocks, window_bins=bins)
    else:
        windows = trial_windows(grids, target, recording, blocks)
    if not np.any(windows.fold >= 0):
        raise ConfigError(f"windows of {rid}", got="none inside a fold with a known target", expected="at least one")
    rows = [(b.start_s, b.stop_s, b.fold, b.unit, place.group) for b in blocks]
    return windows, [split_row(task, recording, salt, *row) for row in rows]


def _grouped(
    task: TaskSpec, recording: Recording, grids: dict[str, TokenGrid], place: Place, salt: str
) -> tuple[RecordingWindows, list[dict[str, Any]]]:
    rid = str(recording.id)
    folds = deal_groups(place.recording, trial_target(recording, task.target)[3].tolist(), task.n_folds, salt)
    windows = trial_windows(grids, task.target, recording, folds=folds)
    own = np.array([f"{place.recording}{unit.removeprefix(rid)}" for unit in windows.unit.tolist()], dtype=str)
    windows = replace(windows, unit=own)
    if not len(windows):
        raise ConfigError(f"windows of {rid}", got="none inside the recording", expected="at least one")
    length = windows.dt_s * next(iter(windows.values.values())).shape[1]
    rows = [
        split_row(task, recording, salt, float(s), float(s) + length - 1e-9, int(f), str(u), str(u))
        for s, f, u in zip(windows.start_s, windows.fold, windows.unit)
    ]
    check_blocks(
        [Block(start_s=r["start_s"], stop_s=r["stop_s"], fold=r["fold"], unit=r["unit"]) for r in rows], what=rid
    )
    return windows, rows


def used_time(task: TaskSpec, recording: Recording) -> np.ndarray:
    """(K, 2) seconds that blocks are cut from: inputs and target are valid there, or first to last trial."""
    target = task.target
    if target.kind == "class":
        start = trial_target(recording, target)[0]
        # half a bin on either side: a window begins at the nearest edge of a bin
        return np.array([[start[0] - task.bin_s, start[-1] + target.duration_s + task.bin_s]])
    sets = [recording.stream(target.stream).valid]
    for name, row in task.inputs.items():
        spec = token_spec(row)
        sets.append(recording.stream(name if name in recording.streams else stream_of(recording, spec)).valid)
    if target.within:
        epochs = recording.stream(target.within)
        if not isinstance(epochs, Intervals):
            raise ConfigError(f"stream {target.within!r} of {recording.id}", got="no Intervals", expected="epochs")
        keep = kept_rows(epochs, target.where, target.within)
        sets.append(spans.merged(np.stack([epochs.start_s[keep], epochs.stop_s[keep]], axis=1)))
    owner = np.repeat(np.arange(len(sets)), [len(s) for s in sets])
    used = spans.common(np.concatenate(sets), owner, len(sets))
    if not len(used):
        raise ConfigError(
            f"time of {recording.id}", got="no second in which inputs and target are valid", expected="some"
        )
    return used
