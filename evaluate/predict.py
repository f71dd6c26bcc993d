"""Predictions of held-out windows by every predictor of a task, each fold by a fit that never saw it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.evaluate.baselines import Baseline, Tuned, baseline_named, control, tune
from neurofmx.evaluate.controls import control_features
from neurofmx.evaluate.design import Design, designs
from neurofmx.evaluate.metrics import Metric, Rows, metric_named, value_of
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.provenance import digest_of
from neurofmx.tokenize.catalog import SPECS
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import Trained
from neurofmx.train.loop import untrained
from neurofmx.train.settle import with_readout
from neurofmx.types import Recording

CHANCE, OURS, UNTRAINED = "chance", "neurofmx", "neurofmx untrained"
VERSION = 1  # raised by hand when the same data and grid would give another prediction


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """One predictor's out-of-fold answers.

    Args:
        name: as in the table of scores.
        arrays: for each recording (N, T, D) or (N, K); NaN where nothing is scored.
        recipe: digest of the recipe, or of the baseline's grid.
        inner: score inside the training folds, NaN where it has none: what the best baseline is chosen by.
        details: setting, grid and choice, for the table.
    """

    name: str
    arrays: Sequence[np.ndarray]
    recipe: str
    inner: float
    details: Mapping[str, Any]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order whatever the machine's cores, so that a number derived again is the same."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


def folds_of(data: TaskData) -> list[int]:
    """The folds in which windows are tested, ascending."""
    return sorted({int(f) for w in data.recordings for f in np.unique(w.fold) if f >= 0})


def baseline_names(task: TaskSpec, controls: Mapping[str, Any]) -> list[str]:
    """Chance, the task's baselines and its controls, in the order of the table."""
    return [CHANCE, *task.baselines, *controls]


def task_designs(
    task: TaskSpec, data: TaskData, recordings: Mapping[str, Recording]
) -> tuple[list[Design], dict[str, list[np.ndarray]]]:
    """What classical decoders of a task read, and the features of its controls."""
    controls = control_features(task, data, recordings) if task.controls else {}
    return designs(data, joint=task.split == "recordings", raw=_raw(task), controls=controls), controls


def classical(task: TaskSpec, data: TaskData, rows: Sequence[Design], name: str) -> Predicted:
    """Tunes one baseline or control and predicts every fold with it.

    Raises:
        ConfigError: there is no such baseline, or it does not fit the target.
    """
    baseline = control(name) if any(name in d.controls for d in rows) else baseline_named(name)
    if baseline.kind not in ("any", data.kind):
        raise ConfigError(f"baseline {name!r} of task {task.name}", got=data.kind, expected=f"a {baseline.kind} target")
    with one_thread():
        tuned = tune(baseline, rows)
    return Predicted(
        name=name,
        arrays=_scattered(data, rows, tuned.predicted),
        recipe=digest_of([VERSION, baseline.name, list(baseline.grid)])[:16],
        inner=_inner(metric_named(task.metric), rows, tuned),
        details={"what": baseline.says, "grid": _printed(baseline), "chosen": tuned.chosen},
    )


def network(task: TaskSpec, data: TaskData, trained: Mapping[int, Trained], name: str = OURS) -> Predicted:
    """Predicts every fold with the network that did not see it.

    Raises:
        ConfigError: no network for a fold, or one that never met a recording's channels.
    """
    missing = sorted(set(folds_of(data)) - set(trained))
    if missing:
        raise ConfigError(f"networks for task {task.name}", got=f"none for folds {missing}", expected="one a fold")
    arrays = []
    for windows in data.recordings:
        shape = windows.target.shape if data.kind == "continuous" else (len(windows), len(data.names))
        out = np.full(shape, np.nan)
        for fold in np.unique(windows.fold[windows.fold >= 0]):
            rows = np.flatnonzero(windows.fold == fold)
            with one_thread():
                out[rows] = trained[int(fold)].predict(task.name, windows, rows)
        arrays.append(out)
    recipe = next(iter(trained.values())).recipe
    return Predicted(
        name=name,
        arrays=arrays,
        recipe=recipe.digest(),
        inner=float("nan"),
        details={"recipe": recipe.name, "settings_tried": 1},
    )


def random_network(task: TaskSpec, data: TaskData, trained: Mapping[int, Trained]) -> Predicted:
    """The same networks with random weights and a fitted readout: what the architecture gives before it is trained."""
    one, blank = {task.name: data}, {}
    for fold in folds_of(data):
        with one_thread():
            blank[fold] = with_readout(untrained(trained[fold].recipe, one, fold=fold), one, fold=fold)
    return network(task, data, blank, UNTRAINED)


def scored_rows(task: TaskSpec, data: TaskData, arrays: Sequence[np.ndarray]) -> tuple[Rows, list[str]]:
    """Truth and prediction of everything that is scored, and the names of its resampling units."""
    truth, predicted, units, recordings, fits = [], [], [], [], []
    for number, (windows, array) in enumerate(zip(data.recordings, arrays)):
        used = windows.fold >= 0
        mask = windows.target_mask & (used[:, None] if data.kind == "continuous" else used)
        names = np.array(unit_names(task, windows.recording, windows.unit), dtype=str)
        fold = windows.fold.astype(int)
        if mask.ndim == 2:
            names, fold = (np.repeat(a[:, None], mask.shape[1], axis=1) for a in (names, fold))
        truth.append(windows.target[mask])
        predicted.append(array[mask])
        units.append(names[mask])
        fits.append(fold[mask])
        recordings.append(np.full(int(mask.sum()), number))
    names, unit = np.unique(np.concatenate(units), return_inverse=True)
    joined = np.concatenate(truth)
    rows = Rows(
        truth=joined.astype(np.int64 if data.kind == "class" else np.float64),
        predicted=np.concatenate(predicted).astype(np.float64),
        unit=unit,
        recording=np.concatenate(recordings),
        fit=np.concatenate(fits),
        n_units=len(names),
    )
    return rows, names.tolist()


def unit_names(task: TaskSpec, recording: str, units: np.ndarray) -> list[str]:
    """Resampling unit of each window: the split's own, or the whole recording."""
    if task.unit == "recording" and task.split != "recordings":
        return [recording] * len(units)
    return [str(u) for u in units]


def _raw(task: TaskSpec) -> tuple[str, float] | None:
    """The input that holds waveforms, and their sampling rate."""
    for key, row in task.spec_of.items():
        patches = [op.kwargs["samples"] for op in SPECS[row].ops if op.name == "patch"]
        if patches:
            return key, patches[0] / task.bin_s
    return None


def _scattered(data: TaskData, rows: Sequence[Design], predicted: Sequence[np.ndarray]) -> list[np.ndarray]:
    """From rows back to one array a recording, shaped as its windows."""
    out = []
    for windows in data.recordings:
        shape = windows.target.shape if data.kind == "continuous" else (len(windows), len(data.names))
        out.append(np.full(shape, np.nan))
    for design, values in zip(rows, predicted):
        for number in np.unique(design.at[:, 0]):
            mine = design.at[:, 0] == number
            where = design.at[mine, 1:]
            out[number][tuple(where.T) if data.kind == "continuous" else where[:, 0]] = values[mine]
    return out


def _inner(metric: Metric, rows: Sequence[Design], tuned: Tuned) -> float:
    """Mean over folds of the metric inside the training data."""
    found = []
    for held in tuned.inner.values():
        parts = [(d, p, d.known & np.isfinite(p).all(axis=1)) for d, p in zip(rows, held)]
        truth = np.concatenate([d.y[k] for d, _, k in parts])
        if len(truth):
            found.append(
                value_of(
                    metric,
                    Rows(
                        truth=truth,
                        predicted=np.concatenate([p[k] for _, p, k in parts]),
                        unit=np.zeros(len(truth), dtype=int),
                        recording=np.concatenate([d.at[k, 0] for d, _, k in parts]),
                        fit=np.concatenate([d.cell[k] for d, _, k in parts]),
                        n_units=1,
                    ),
                )
            )
    return float(np.mean(found)) if found else float("nan")


def _printed(baseline: Baseline) -> dict[str, list[Any]]:
    """Parameter -> the values that were tried."""
    names = dict.fromkeys(name for setting in baseline.grid for name in setting)
    return {name: list(dict.fromkeys(s[name] for s in baseline.grid if name in s)) for name in names}
