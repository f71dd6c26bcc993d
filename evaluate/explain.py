"""Where a number came from, down to the raw bytes; and the same number derived again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofmx import catalog, remote_head
from neurofmx.config import from_plain
from neurofmx.errors import Mismatch, NotThere
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.lake import Lake
from neurofmx.provenance import plain
from neurofmx.splits import salt_of

if TYPE_CHECKING:
    from rich.tree import Tree

SHORTEST = 6
TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """A number derived again.

    Args:
        value: from the lake's recordings, stored checkpoints and baselines that were fitted anew.
        stored: as the table of scores has it.
        equal: whether they agree to 1e-9.
    """

    value: float
    stored: float
    equal: bool


def score_named(lake: Lake, score_id: str) -> dict[str, Any]:
    """The row of table ``scores`` whose id begins with some digits.

    Raises:
        NotThere: no score, or several; near ids are named.
    """
    rows = catalog.rows(lake, "scores")
    fits = [r for r in rows if len(score_id) >= SHORTEST and r["score_id"].startswith(score_id)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise NotThere(f"score {score_id}", got=f"{len(fits)} that begin so", fix=f"One of {_listed(fits)}.")
    near = sorted(rows, key=lambda r: (-_common(r["score_id"], score_id), r["score_id"]))[:5]
    raise NotThere(
        f"score {score_id}",
        expected=f"an id, or at least {SHORTEST} of its digits" + (f"; nearest: {_listed(near)}" if near else ""),
        fix='List them: neurofmx sql "select score_id, task, predictor, value from scores"',
    )


def explain(lake: Lake, score_id: str) -> dict[str, Any]:
    """The chain from a score to the raw files.

    Args:
        lake: holds the score.
        score_id: the id, or a prefix of at least six digits.

    Returns:
        score, task, split, predictor, runs, recordings (with digest, licence, citation and raw files) and code, as
        JSON types.

    Raises:
        NotThere: no such score.
    """
    score = score_named(lake, score_id)
    task, details = stored_task(lake, score), json.loads(score["details"])
    parents = {
        row["parent"]: json.loads(row["detail"])
        for row in catalog.rows(lake, "lineage", f"scores|{score['task']}")
        if row["child"] == score["score_id"] and row["parent_kind"] == "recording"
    }
    return plain(
        {
            "score": {k: v for k, v in score.items() if k not in ("details", "recordings")},
            "task": task,
            "split": _split(lake, task, score),
            "predictor": {"name": score["predictor"], "recipe": score["recipe"], "seed": score["seed"], **details},
            "runs": [_run(lake, fold, run) for fold, run in sorted(details["runs"].items())],
            "snapshot": score["snapshot"],
            "recordings": [_recording(lake, r, parents.get(r, {})) for r in score["recordings"]],
            "code": {"scored": score["code_version"], "at": score["scored_at"]},
        }
    )


@remote_head.reader(remote_head.TASKS)
def stored_task(lake: Lake, score: Mapping[str, Any]) -> TaskSpec:
    """The task that a score was made by, as it was then.

    Raises:
        NotThere: its spec is not kept in this lake.
    """
    rows = catalog.rows(lake, "lineage", f"scores|{score['task']}")
    digests = [r["parent"] for r in rows if r["child"] == score["score_id"] and r["parent_kind"] == "task"]
    path = lake.root / "manifests" / "tasks" / f"{digests[0] if digests else 'unknown'}.json"
    if not path.exists():
        raise NotThere(f"spec of task {score['task']}", got=f"no {path.name}", expected="the one that the score names",
                       fix="Score the task again: neurofmx evaluate")  # fmt: skip
    return from_plain(TaskSpec, json.loads(path.read_text()))


def rerun(lake: Lake, score_id: str) -> Rerun:
    """Derives a number again: windows from the lake, predictions by stored checkpoints or baselines fitted anew.

    Args:
        lake: holds the score, its recordings and its runs.
        score_id: the id, or a prefix of at least six digits.

    Raises:
        NotThere: no such score, or a run whose checkpoint is gone.
        Mismatch: a recording or a split is not what it was.
    """
    from neurofmx.evaluate.build import task_data
    from neurofmx.evaluate.evaluate import split_digest
    from neurofmx.evaluate.metrics import metric_named, value_of
    from neurofmx.evaluate.predict import scored_rows

    score = score_named(lake, score_id)
    task = stored_task(lake, score)
    for row in catalog.rows(lake, "lineage", f"scores|{score['task']}"):
        if row["child"] == score["score_id"] and row["parent_kind"] == "recording":
            was, is_now = json.loads(row["detail"])["digest"], lake.recording_digest(row["parent"])
            if was != is_now:
                raise Mismatch(f"recording {row['parent']}", got=is_now, expected=was, fix="Score the task again.")
    data = task_data(task, lake, recordings=score["recordings"])
    if split_digest(data) != score["split"]:
        raise Mismatch(f"split of {task.name}", got=split_digest(data), expected=score["split"])
    found = _predicted(lake, task, data, score)
    value = value_of(metric_named(task.metric), scored_rows(task, data, found.arrays)[0])
    equal = bool(np.isclose(value, score["value"], rtol=TOLERANCE, atol=TOLERANCE))
    return Rerun(value=value, stored=score["value"], equal=equal)


def _predicted(lake: Lake, task: TaskSpec, data: Any, score: Mapping[str, Any]) -> Any:
    from neurofmx.evaluate import predict
    from neurofmx.train.checkpoints import load_trained

    if score["predictor"] not in (predict.OURS, predict.UNTRAINED):
        opened = {w.recording: lake.recording(w.recording) for w in data.recordings}
        rows, _ = predict.task_designs(task, data, opened)
        return predict.classical(task, data, rows, score["predictor"])
    runs = json.loads(score["details"])["runs"]
    trained = {}
    for fold, run in runs.items():
        rows = catalog.rows(lake, "runs", run)
        if not rows:
            raise NotThere(f"run {run}", expected="a row of table runs", fix="Train it again: neurofmx train")
        trained[int(fold)] = load_trained(lake.at(rows[0]["path"]))
    if score["predictor"] == predict.UNTRAINED:
        return predict.random_network(task, data, trained)
    return predict.network(task, data, trained)


def render(tree: Mapping[str, Any]) -> Tree:
    """What `explain` returned, as a tree that a person reads."""
    from rich.tree import Tree

    score, task, split = tree["score"], tree["task"], tree["split"]
    root = Tree(
        f"[bold]{score['metric']} {score['value']:.4f}[/bold] ({score['ci_low']:.4f} to {score['ci_high']:.4f})  "
        f"{score['predictor']} on {score['task']}  [dim]{score['score_id']}[/dim]",
        highlight=True,
    )
    if score["verdict"]:
        root.add(f"verdict: {score['verdict']}, {score['delta']:+.4f} against {score['baseline']}")
    asked = root.add(f"task: {task['question']}")
    asked.add(
        f"{task['target']['kind']} target {split['target']} from {', '.join(task['inputs'])}, bins {task['bin_s']:g} s"
    )
    for caveat in task["caveats"]:
        asked.add(f"caveat: {caveat}")
    how = root.add(
        f"split {score['split']}: {task['split']}, {score['n_units']} units ({score['unit']}), n {score['n']}"
    )
    how.add("seconds a fold: " + ", ".join(f"{k}: {v:.0f}" for k, v in split["seconds"].items()))
    who = root.add(f"predictor {score['predictor']}, recipe {score['recipe']}, seed {score['seed']}")
    for name in ("what", "grid", "chosen"):
        if name in tree["predictor"]:
            who.add(f"{name}: {json.dumps(tree['predictor'][name])}")
    for run in tree["runs"]:
        who.add(f"fold {run['fold']}: run {run['run_id']}, {run['steps']} steps, code {run['code_version']}")
    root.add(f"snapshot {tree['snapshot']}")
    held = root.add(f"{len(tree['recordings'])} recordings")
    for recording in tree["recordings"]:
        one = held.add(f"{recording['recording_id']}  [dim]{recording['digest']}[/dim]")
        one.add(f"licence {recording['licence']}; {recording['citation']}; read by {recording['reader']}")
        for file in recording["files"]:
            one.add(f"sha256 {file['sha256']}  {file['path']}  [dim]{file['url'][:120]}[/dim]")
    root.add(f"code {tree['code']['scored']}, {tree['code']['at']}")
    return root


def _split(lake: Lake, task: TaskSpec, score: Mapping[str, Any]) -> dict[str, Any]:
    split_id = task.split_id(salt_of(lake))
    rows = [row for r in score["recordings"] for row in catalog.rows(lake, "splits", f"{task.name}|{split_id}|{r}")]
    seconds: Counter[str] = Counter()
    for row in rows:
        seconds[str(row["fold"])] += row["stop_s"] - row["start_s"]
    return {"digest": score["split"], "split_id": split_id, "rows": len(rows), "target": task.target_stream,
            "seconds": {k: float(v) for k, v in sorted(seconds.items())}}  # fmt: skip


def _run(lake: Lake, fold: str, run: str) -> dict[str, Any]:
    rows = catalog.rows(lake, "runs", run)
    if not rows:
        raise NotThere(
            f"run {run} of fold {fold}", expected="a row of table runs", fix="Train it again: neurofmx train"
        )
    wanted = ("run_id", "recipe", "recipe_digest", "recipe_json", "fold", "seed", "snapshot", "tasks", "recordings",
              "path", "steps", "code_version", "started_at")  # fmt: skip
    return {k: rows[0][k] for k in wanted}


def _recording(lake: Lake, recording: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    row = (catalog.rows(lake, "recordings", recording) or [None])[0]
    if row is None:
        raise NotThere(f"recording {recording}", expected="one that is in the lake", fix="Restore it from a snapshot.")
    files = [json.loads(r["detail"]) for r in catalog.rows(lake, "lineage", recording) if r["parent_kind"] == "raw"]
    wanted = ("recording_id", "subject_id", "species", "licence", "citation", "reader", "code_version")
    return {**{k: row[k] for k in wanted}, "digest": kept.get("digest", row["digest"]),
            "unchanged": kept.get("digest", row["digest"]) == row["digest"], "files": files}  # fmt: skip


def _common(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _listed(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{r['score_id']} ({r['predictor']} on {r['task']})" for r in rows)
