"""Scores of one task: every predictor on the same folds, an interval over units, a verdict on the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from neurofmx import catalog, leakage, remote_head
from neurofmx.evaluate.leaks import judge_task
from neurofmx.evaluate.metrics import Interval, Value, draws, interval, metric_named, paired, verdict
from neurofmx.evaluate.predict import (
    CHANCE,
    OURS,
    UNTRAINED,
    Predicted,
    baseline_names,
    classical,
    folds_of,
    network,
    random_network,
    scored_rows,
    task_designs,
)
from neurofmx.evaluate.scores import score_row
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.lake import Lake
from neurofmx.provenance import canonical_json, digest_array, digest_of
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import Trained
from neurofmx.types import Recording, Score

DRAWS = 2000
NAN = float("nan")


def evaluate_task(
    task: TaskSpec,
    data: TaskData,
    trained: Mapping[int, Trained],
    *,
    seed: int,
    snapshot: str,
    lake: Lake | None,
    checkpoints: Mapping[int, str],
    recordings: Mapping[str, Recording] | None = None,
) -> list[Score]:
    """Scores chance, tuned baselines, controls, the trained and the untrained network on the same folds.

    The best baseline is the one that does best inside the training folds; test data choose nothing.

    Args:
        task: the task.
        data: its windows.
        trained: fold -> the network that did not see it; empty scores the baselines alone.
        seed: of the bootstrap, and part of the scores' identity.
        snapshot: digest of the lake's snapshot.
        lake: where rows of ``scores`` and ``lineage`` go, or None for nowhere.
        checkpoints: fold -> run id.
        recordings: id -> open recording, for controls where there is no lake.

    Returns:
        One score a predictor: chance, baselines, controls, the network, the network untrained.

    Raises:
        ConfigError: a fold has no network, or a network never met the channels of a recording.
        Leakage: something of a test fold would have been seen in training.
    """
    leakage.refuse(judge_task(task, data, lake))
    found = predictions(task, data, trained, _opened(task, data, lake, recordings))
    scores = judged(task, data, found, seed=seed, snapshot=snapshot, lake=lake, checkpoints=checkpoints)
    if lake is not None:
        keep(lake, task, scores, checkpoints)
    return scores


def predictions(
    task: TaskSpec, data: TaskData, trained: Mapping[int, Trained], recordings: Mapping[str, Recording]
) -> list[Predicted]:
    """Out-of-fold answers of every predictor of a task, in the order of the table."""
    rows, controls = task_designs(task, data, recordings)
    found = [classical(task, data, rows, name) for name in baseline_names(task, controls)]
    if trained:
        found += [network(task, data, trained), random_network(task, data, trained)]
    return found


def judged(
    task: TaskSpec,
    data: TaskData,
    found: list[Predicted],
    *,
    seed: int,
    snapshot: str,
    lake: Lake | None,
    checkpoints: Mapping[int, str],
) -> list[Score]:
    """Values, intervals and verdicts of predictions that were made on the same folds."""
    metric = metric_named(task.metric)
    values: dict[str, Value] = {}
    n = n_units = 0
    for one in found:
        rows, units = scored_rows(task, data, one.arrays)
        values[one.name] = metric.prepare(rows)
        n, n_units = len(rows.truth), len(units)
    weights = draws(n_units, n=DRAWS, seed=seed)
    best = best_baseline(found, higher=metric.higher)
    split, scored = split_digest(data), tuple(w.recording for w in data.recordings)
    content = recording_digests(data, lake)
    scores = []
    for one in found:
        own = interval(values[one.name], weights)
        compared = one.name in (OURS, UNTRAINED)
        gain = paired(values[one.name], values[best], weights) if compared else Interval(value=NAN, low=NAN, high=NAN)
        # the network without training is made from the recipes of the same runs
        runs = {str(f): checkpoints[f] for f in folds_of(data) if f in checkpoints} if compared else {}
        details = {**one.details, "inner": one.inner, "runs": runs, "margin": task.margin, "draws": DRAWS}
        scores.append(
            Score(
                score_id=score_id(task, one, split, content, seed),
                task=task.name,
                predictor=one.name,
                metric=task.metric,
                value=own.value,
                ci95=(own.low, own.high),
                n=n,
                n_units=n_units,
                unit=task.unit,
                split=split,
                recordings=scored,
                checkpoint=",".join(dict.fromkeys(runs.values())) if one.name == OURS else "",
                snapshot=snapshot,
                seed=seed,
                baseline=best if compared else "",
                delta=gain.value,
                delta_ci95=(gain.low, gain.high),
                verdict=verdict(gain, n_units=n_units, margin=task.margin, higher=metric.higher) if compared else "",
                recipe=one.recipe,
                details=canonical_json(details),
            )
        )
    return scores


def best_baseline(found: list[Predicted], *, higher: bool) -> str:
    """The tuned baseline or control with the best score inside the training folds; chance where there is no other."""
    tuned = [p for p in found if p.name not in (CHANCE, OURS, UNTRAINED) and p.inner == p.inner]
    if not tuned:
        return CHANCE
    return max(tuned, key=lambda p: p.inner if higher else -p.inner).name


def split_digest(data: TaskData) -> str:
    """Identity of which windows are tested in which fold and resampled with which unit (16 hex digits)."""
    rows = [
        [w.recording, digest_array(w.start_s.round(6)), digest_array(w.fold), digest_array(w.unit)]
        for w in data.recordings
    ]
    return digest_of(sorted(rows))[:16]


def recording_digests(data: TaskData, lake: Lake | None) -> dict[str, str]:
    """Recording -> digest of its content: the lake's, or of its windows where there is no lake."""
    if lake is not None:
        return {w.recording: lake.recording_digest(w.recording) for w in data.recordings}
    return {
        w.recording: digest_of([[m, digest_array(v)] for m, v in sorted(w.values.items())] + [digest_array(w.target)])
        for w in data.recordings
    }


def score_id(task: TaskSpec, one: Predicted, split: str, content: Mapping[str, str], seed: int) -> str:
    """16 hex digits of everything that determines a number, and not of the number."""
    return digest_of([task.digest(), one.name, split, dict(content), one.recipe, seed])[:16]


def task_path(lake: Lake, digest: str) -> Path:
    """Where the spec of a task that was scored is kept."""
    return lake.root / "manifests" / "tasks" / f"{digest}.json"


@remote_head.transaction
def keep_task(lake: Lake, task: TaskSpec) -> Path:
    """Keeps a task's spec as JSON under its digest, so that its scores can be explained when the table has changed."""
    path = task_path(lake, task.digest())
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(canonical_json(task))
        partial.replace(path)
    return path


def _opened(
    task: TaskSpec, data: TaskData, lake: Lake | None, recordings: Mapping[str, Recording] | None
) -> Mapping[str, Recording]:
    if recordings is not None or lake is None or not task.controls:
        return recordings or {}
    return {w.recording: lake.recording(w.recording) for w in data.recordings}


def keep(lake: Lake, task: TaskSpec, scores: list[Score], checkpoints: Mapping[int, str]) -> None:
    """Stores the scores of a task, what they come from, and the task's spec; older scores of the task are replaced."""
    keep_task(lake, task)
    catalog.put(lake, "scores", task.name, [score_row(s) for s in scores])
    spec = {"parent": task.digest(), "parent_kind": "task", "detail": "{}"}
    parents = [
        {"parent": r, "parent_kind": "recording", "detail": canonical_json({"digest": lake.recording_digest(r)})}
        for r in scores[0].recordings
    ]
    runs = [
        {"parent": run, "parent_kind": "run", "detail": canonical_json({"fold": fold})}
        for fold, run in sorted(checkpoints.items())
    ]
    rows = [
        {"child": s.score_id, "child_kind": "score", **parent}
        for s in scores
        for parent in [spec, *parents, *(runs if s.predictor == OURS else [])]
    ]
    catalog.put(lake, "lineage", f"scores|{task.name}", rows)
