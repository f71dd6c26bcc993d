"""One's own recording to a table of scores with baselines and intervals, in a minute."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofmx import catalog
from neurofmx.errors import ConfigError, Refused
from neurofmx.evaluate.decode_task import decode_task
from neurofmx.evaluate.scores import scores_table
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.lake import Lake, now
from neurofmx.provenance import canonical_json, code_version
from neurofmx.types import Events, Intervals, Recording, Score

if TYPE_CHECKING:
    from rich.table import Table

    from neurofmx.tokenize.windows import TaskData
    from neurofmx.train.loop import RunResult
    from neurofmx.train.recipes import Recipe

Progress = Callable[[str], None]
EXAMPLE_S, EXAMPLE_UNITS = 600.0, 50


def quiet(text: str) -> None:
    """Shows nothing."""


@dataclass(frozen=True, kw_only=True)
class DecodeResult:
    """What `decode` found.

    Args:
        recording: what was decoded.
        task: the task that was made for it.
        scores: every predictor's score.
        names: target dimensions, or classes.
        times_s: (n,) session time of each scored bin or trial, ascending.
        truth: (n, D) target, or (n,) class rows.
        predicted: (n, D) or (n, K) probabilities by the network that did not see that stretch.
        lake: root of the lake that holds it all, or None.
    """

    recording: Recording
    task: TaskSpec
    scores: tuple[Score, ...]
    names: tuple[str, ...]
    times_s: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    lake: Path | None

    @property
    def preview(self) -> Table:
        """A table of the recording's streams."""
        from rich.table import Table

        start, stop = self.recording.domain_s
        table = Table(title=f"{self.recording.id}, {stop - start:.0f} s", title_justify="left", header_style="bold")
        for name in ("stream", "kind", "modality", "channels", "samples, events or rows", "rate"):
            table.add_column(name, overflow="fold")
        for name, stream in sorted(self.recording.streams.items()):
            if isinstance(stream, Intervals):
                row = ("-", str(len(stream.start_s)), ", ".join(sorted(stream.columns)))
            elif isinstance(stream, Events):
                row = (str(len(stream.channels)), f"{len(stream.times_s):,}", "")
            else:
                rate = f"{stream.rate_hz:.5g} Hz" if stream.rate_hz else "stated times"
                row = (str(len(stream.channels)), f"{len(stream.values):,}", rate)
            role = " (input)" if name in self.task.inputs else " (target)" if name == self.task.target.stream else ""
            table.add_row(f"{name}{role}", type(stream).__name__, stream.modality, *row)
        return table

    def table(self) -> Table:
        """The scores as a table."""
        return scores_table(self.scores)


def decode(
    path: str | Path | Recording,
    *,
    target: str | None = None,
    seed: int = 0,
    lake: Lake | None = None,
    progress: Progress = quiet,
) -> DecodeResult:
    """Decodes one recording: opens and judges it, trains a small network a fold, scores it beside tuned baselines.

    Args:
        path: a file or folder that holds one recording, or an open one.
        target: a stream, or ``intervals.column``; a sensible one is chosen if None.
        seed: of the network and the bootstrap.
        lake: keeps recording, runs and scores, so that `explain` works on them; None keeps nothing.
        progress: told what is being done.

    Raises:
        Refused: a blocking check failed.
        NotThere: nothing is there.
        ConfigError: the target does not exist or nothing is left to read it from; the choices are named.
    """
    from dataclasses import replace

    from neurofmx.evaluate.build import task_data, task_data_of
    from neurofmx.evaluate.evaluate import judged, keep, predictions
    from neurofmx.train.checkpoints import load_trained
    from neurofmx.train.folds import fit_folds
    from neurofmx.train.recipes import decode as decode_recipe

    progress("reading")
    recording = _recording(path, lake)
    task = decode_task(recording, target)
    progress(f"cutting {recording.domain_s[1] - recording.domain_s[0]:.0f} s into windows")
    data = task_data(task, lake) if lake is not None else task_data_of(task, [recording])
    recipe = replace(decode_recipe(), seed=seed)
    snapshot = lake.snapshot() if lake is not None else ""
    with tempfile.TemporaryDirectory(prefix="neurofmx-") as folder:
        out = lake.root / "runs" if lake is not None else Path(folder)
        folds = sorted({int(f) for w in data.recordings for f in np.unique(w.fold) if f >= 0})
        steps = dict.fromkeys(folds, 0)

        def tell(fold: int, step: int, total: int) -> None:
            steps[fold] = step
            progress(
                f"training {len(folds)} networks, {sum(steps.values()) / (total * len(folds)):.0%} of the most steps"
            )

        results = fit_folds(recipe, {task.name: data}, folds, out=out, on=tell)
        trained = {fold: load_trained(result.path) for fold, result in results.items()}
    checkpoints = {fold: result.run_id for fold, result in results.items()}
    if lake is not None:
        for fold, result in results.items():
            _keep_run(lake, recipe, data, fold, result, snapshot)
    progress("tuning baselines on the same folds")
    found = predictions(task, data, trained, {str(recording.id): recording})
    scores = judged(task, data, found, seed=seed, snapshot=snapshot, lake=lake, checkpoints=checkpoints)
    if lake is not None:
        keep(lake, task, scores, checkpoints)
    progress("done")
    arrays = next(p.arrays for p in found if p.name == "neurofmx")
    return DecodeResult(
        recording=recording,
        task=task,
        scores=tuple(scores),
        names=data.names,
        lake=None if lake is None else lake.root,
        **_told(data, arrays[0]),
    )


def example_recording() -> Recording:
    """A simulated session of ten minutes with 50 units, whose behaviour reads Lorenz latents."""
    from neurofmx.ingest.simulate import simulate
    from neurofmx.ingest.simulate_spec import SimSpec
    from neurofmx.provenance import digest_of
    from neurofmx.types import RawFile, RecordingId

    spec = SimSpec(seed=7, duration_s=EXAMPLE_S, n_units=EXAMPLE_UNITS, species="sim-e")
    text = canonical_json(spec)
    # the raw file of a simulated recording is its spec
    file = RawFile(path="example.json", url="simulated:example", sha256=digest_of(spec), size=len(text))
    return simulate(spec, RecordingId("simulated", "example", "1", "example"), files=(file,))[0]


def _recording(path: str | Path | Recording, lake: Lake | None) -> Recording:
    """The recording, of the lake where there is one."""
    from neurofmx.ingest.ingest import ingest_session, local_sessions, open_local

    if isinstance(path, Recording):
        if lake is None:
            return path
        with lake.lock():
            lake.publish_recording(path)
        return lake.recording(path.id)
    if lake is None:
        return open_local(path)
    sessions = local_sessions(path)
    if len(sessions) > 1:
        names = ", ".join(session.files[0].path for session in sessions[:8])
        raise ConfigError(
            f"path {path}", got=f"{len(sessions)} recordings", expected="one", fix=f"Name one of: {names}"
        )
    with lake.lock():
        report = ingest_session(sessions[0], lake)
    if report.status not in ("ingested", "unchanged"):
        reasons = "; ".join(f"{c.name}: {c.evidence}" for c in report.checks if not c.passed and c.severity == "block")
        raise Refused(f"{path}", got=reasons, fix=f"See all checks: neurofmx validate {path}")
    return lake.recording(report.id)


def _told(data: TaskData, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Times, truth and prediction of what was scored, in order of time."""
    windows = data.recordings[0]
    used = windows.fold >= 0
    if data.kind == "class":
        mask = windows.target_mask & used
        times = windows.start_s[mask]
    else:
        mask = windows.target_mask & used[:, None]
        centres = windows.start_s[:, None] + (np.arange(mask.shape[1]) + 0.5) * windows.dt_s
        times = centres[mask]
    order = np.argsort(times, kind="stable")
    return {"times_s": times[order], "truth": windows.target[mask][order], "predicted": predicted[mask][order]}


def _keep_run(lake: Lake, recipe: Recipe, data: TaskData, fold: int, result: RunResult, snapshot: str) -> None:
    """Row of ``runs`` and lineage of one network."""
    if catalog.rows(lake, "runs", result.run_id):
        return
    recordings: list[str] = sorted(w.recording for w in data.recordings)
    row: Mapping[str, Any] = {
        "run_id": result.run_id, "recipe": recipe.name, "recipe_digest": recipe.digest(),
        "recipe_json": canonical_json(recipe), "fold": fold, "seed": recipe.seed, "snapshot": snapshot,
        "tasks": [data.name], "recordings": recordings, "path": str(result.path.relative_to(lake.root)),
        "steps": result.steps, "best_valid": result.best_valid, "seconds": result.seconds,
        "history": json.dumps([dict(h) for h in result.history]), "code_version": code_version(), "started_at": now(),
    }  # fmt: skip
    catalog.put(lake, "runs", result.run_id, [row])
    parents = [
        {"child": result.run_id, "child_kind": "run", "parent": r, "parent_kind": "recording",
         "detail": canonical_json({"digest": lake.recording_digest(r)})}
        for r in recordings
    ]  # fmt: skip
    catalog.put(lake, "lineage", result.run_id, parents)
