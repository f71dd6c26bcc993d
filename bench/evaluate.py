"""Evaluation: one's own recording to a table, tuning against scikit-learn's search, the bootstrap."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.figure import Figure, at_least, at_most, in_turn, seconds
from neurofmx.evaluate.baselines import PENALTIES, baseline_named, tune
from neurofmx.evaluate.build import task_data_of
from neurofmx.evaluate.metrics import Rows, draws, interval, metric_named
from neurofmx.evaluate.predict import one_thread, task_designs
from neurofmx.evaluate.tasks import TASKS
from neurofmx.ingest.simulate import sessions, simulate
from neurofmx.types import RecordingId


def figures() -> list[Figure]:
    """``neurofmx decode --example`` (ten minutes, 50 units) in a new process; ridge of four minutes and 40 units."""
    return [_decode(), _tuning(), _bootstrap()]


def _decode() -> Figure:
    cli = str(Path(sys.executable).with_name("neurofmx"))
    with tempfile.TemporaryDirectory() as folder:
        command = [cli, "decode", "--example", "--out", f"{folder}/page.html", "--lake", f"{folder}/lake"]
        took = seconds(lambda: subprocess.run(command, check=True, capture_output=True, env=dict(os.environ)))
    return at_most("neurofmx decode --example: ten minutes of 50 units to a table and a page", took, "s", 60.0)


def _tuning() -> Figure:
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut

    one = sessions("lorenz-transfer")[0]
    recording = simulate(one.spec, RecordingId("simulated", "lorenz-transfer", "1", one.name))[0]
    task = TASKS["sim-lorenz-behaviour"]
    data = task_data_of(task, [recording])

    def ours() -> None:
        with one_thread():
            tune(baseline_named("ridge"), task_designs(task, data, {})[0])

    def theirs() -> None:
        (design,) = task_designs(task, data, {})[0]
        for held in design.folds.values():
            rows = design.known & (design.cell >= 0) & ~np.isin(design.cell, list(held))
            search = GridSearchCV(Ridge(), {"alpha": list(PENALTIES)}, cv=LeaveOneGroupOut())
            with one_thread():
                search.fit(design.x[rows], design.y[rows], groups=design.cell[rows])

    a, b, ratio = in_turn(ours, theirs, repeats=3)
    what = "scikit-learn's nested search over ours, ridge, same folds and penalties, one core"
    return at_least(what, 1 / ratio, "x", 2.0, sklearn_s=b, ours_s=a)


def _bootstrap() -> Figure:
    from sklearn.metrics import r2_score

    rng, n, units = np.random.default_rng(0), 20_000, 50
    truth = rng.standard_normal((n, 2))
    guess, unit = truth + rng.standard_normal((n, 2)), np.arange(n) * units // n
    rows = Rows(truth=truth, predicted=guess, unit=unit, recording=np.zeros(n, int), n_units=units)
    members = [np.flatnonzero(unit == u) for u in range(units)]

    def ours() -> None:
        interval(metric_named("r2").prepare(rows), draws(units, n=200, seed=0))

    def plainly() -> None:
        for _ in range(200):
            chosen = np.concatenate([members[u] for u in rng.integers(units, size=units)])
            r2_score(truth[chosen], guess[chosen], multioutput="variance_weighted")

    a, b, ratio = in_turn(ours, plainly, repeats=3)
    what = "bootstrap over units by scoring each draw anew over ours, 200 draws of 20,000 rows"
    return at_least(what, 1 / ratio, "x", 5.0, anew_s=b, ours_s=a)
