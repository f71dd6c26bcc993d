"""What else could tell the answer: features of trials or streams that are not the neurons that a task reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.evaluate.build import with_phases
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.tokenize.catalog import spec as token_spec
from neurofmx.tokenize.grid import tokenize
from neurofmx.tokenize.targets import trial_target
from neurofmx.tokenize.windows import RecordingWindows, TaskData
from neurofmx.types import Recording

TRIALS = "control: trials"


def control_features(
    task: TaskSpec, data: TaskData, recordings: Mapping[str, Recording]
) -> dict[str, list[np.ndarray]]:
    """Control -> one (N, J) array for each recording of the task's data.

    Columns of the trials make one control together; each stream makes one of its own.

    Args:
        task: names its controls.
        data: the windows.
        recordings: id -> open recording.

    Raises:
        ConfigError: a control is neither a stream nor a column.
    """
    found: dict[str, list[np.ndarray]] = {}
    for windows in data.recordings:
        recording = with_phases(recordings[windows.recording], task)
        streams = [c for c in task.controls if c in recording.streams]
        columns = [c for c in task.controls if c not in recording.streams]
        if columns:
            values = [_column(task, recording, windows, column) for column in columns]
            found.setdefault(TRIALS, []).append(np.stack(values, axis=1))
        for stream in streams:
            found.setdefault(f"control: {stream}", []).append(_stream(task, recording, windows, stream))
    short = [name for name, held in found.items() if len(held) < len(data.recordings)]
    if short:
        raise ConfigError(f"controls of {task.name}", got=f"{short[0]} in some recordings", expected="in all of them")
    return found


def _column(task: TaskSpec, recording: Recording, windows: RecordingWindows, column: str) -> np.ndarray:
    """(N,) value of a column at the trial of each window, 0 where it is unknown."""
    asked = replace(task.target, column=column, minus="", classes=())
    start, label, values, _ = trial_target(recording, asked)
    order = np.argsort(start, kind="stable")
    near = np.clip(np.searchsorted(start[order], windows.start_s - 0.5001 * windows.dt_s), 0, len(start) - 1)
    at = order[near]
    known = np.abs(start[at] - windows.start_s) <= 0.501 * windows.dt_s
    return np.where(known, np.array([float(v) for v in values])[label[at]], 0.0)


def _stream(task: TaskSpec, recording: Recording, windows: RecordingWindows, stream: str) -> np.ndarray:
    """(N, T C P) tokens of another stream in each window, made as those of the task's first input are."""
    grid = tokenize(recording, token_spec(next(iter(task.inputs.values())), bin_s=task.bin_s), stream=stream)
    bins = next(iter(windows.values.values())).shape[1]
    first = np.round((windows.start_s - grid.t0_s) / grid.dt_s).astype(int)
    at = np.clip(first[:, None] + np.arange(bins), 0, len(grid.mask) - 1)
    return grid.values[at].reshape(len(at), -1).astype(np.float64)
