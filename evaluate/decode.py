"""One's own recording to a table of scores with baselines and intervals, in a minute."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neurofmx.errors import ConfigError, Refused
from neurofmx.evaluate.decode_task import decode_task
from neurofmx.evaluate.scores import scores_table
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.ingest.sessions import Session
from neurofmx.lake import Lake
from neurofmx.types import Events, Intervals, Recording, Score

if TYPE_CHECKING:
    from rich.table import Table

    from neurofmx.tokenize.windows import TaskData

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
    path: str | Path | Session | Recording,
    *,
    target: str | None = None,
    seed: int = 0,
    lake: Lake | None = None,
    progress: Progress = quiet,
) -> DecodeResult:
    """Decodes one recording: opens and judges it, trains a small network a fold, scores it beside tuned baselines.

    Args:
        path: a file or folder that holds one recording, a listed session, or an open recording.
        target: a stream, or ``intervals.column``; a sensible one is chosen if None.
        seed: of the network and the bootstrap.
        lake: keeps recording, runs and scores, so that `explain` works on them; None keeps nothing.
        progress: told what is being done.

    Raises:
        Refused: a blocking check failed.
        NotThere: nothing is there.
        ConfigError: the target does not exist or nothing is left to read it from; the choices are named. Or a listed
            session without a lake.
    """
    from dataclasses import replace

    from neurofmx.evaluate.build import task_data, task_data_of
    from neurofmx.evaluate.evaluate import judged, keep, predictions
    from neurofmx.train.checkpoints import load_trained
    from neurofmx.train.folds import Network, fit_networks
    from neurofmx.train.recipes import decode as decode_recipe
    from neurofmx.train.runs import keep_run

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
        networks = [Network(data={task.name: data}, fold=fold, name=f"fold {fold}") for fold in folds]
        share = dict.fromkeys((n.name for n in networks), 0.0)

        def tell(name: str, step: int, steps: int) -> None:
            share[name] = step / steps
            progress(f"training {len(folds)} networks: {sum(share.values()) / len(folds):.0%}")

        results = fit_networks(recipe, networks, out=out, on=tell)
        trained = {fold: load_trained(result.path) for fold, result in zip(folds, results)}
    checkpoints = {fold: result.run_id for fold, result in zip(folds, results)}
    if lake is not None:
        for result in results:
            keep_run(lake, recipe, {task.name: data}, result, snapshot=snapshot)
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


def example_session() -> Session:
    """A simulated session of ten minutes with 50 units, whose behaviour reads Lorenz latents."""
    from neurofmx.ingest.archives.simulated import session_of
    from neurofmx.ingest.simulate_spec import SimSpec
    from neurofmx.types import RecordingId

    spec = SimSpec(seed=7, duration_s=EXAMPLE_S, n_units=EXAMPLE_UNITS, species="sim-e")
    return session_of(RecordingId("simulated", "example", "1", "example"), spec)


def _recording(source: str | Path | Session | Recording, lake: Lake | None) -> Recording:
    """The recording, of the lake where there is one."""
    from neurofmx.ingest.ingest import ingest_session, local_sessions, open_local

    if isinstance(source, Recording):
        if lake is None:
            return source
        with lake.lock():
            lake.publish_recording(source)
        return lake.recording(source.id)
    if lake is None:
        if isinstance(source, Session):
            raise ConfigError(f"session {source.id}", expected="a lake to fetch it into", fix="Give one: Lake.open().")
        return open_local(source)
    sessions = [source] if isinstance(source, Session) else local_sessions(source)
    if len(sessions) > 1:
        names = ", ".join(session.files[0].path for session in sessions[:8])
        raise ConfigError(
            f"path {source}", got=f"{len(sessions)} recordings", expected="one", fix=f"Name one of: {names}"
        )
    with lake.lock():
        report = ingest_session(sessions[0], lake)
    if report.status not in ("ingested", "unchanged"):
        reasons = "; ".join(f"{c.name}: {c.evidence}" for c in report.checks if not c.passed and c.severity == "block")
        raise Refused(f"{report.id}", got=reasons, fix=f"See all checks: neurofmx quarantine --lake {lake.root}")
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
