"""All folds of a training set: side by side on a CPU, dealt to one process a core; one after the other on a GPU.

Processes are started by their command, not forked (torch's threads do not survive that) nor spawned from the
caller's script (which would have to be written for it).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from neurofmx.errors import ConfigError
from neurofmx.provenance import canonical_json
from neurofmx.tokenize.packed import pack
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.loop import RunResult, StepReport, finished, fit
from neurofmx.train.recipes import Recipe

# told (fold, steps done, most steps)
OnStep = Callable[[int, int, int], None]


def fit_folds(
    recipe: Recipe,
    data: Mapping[str, TaskData],
    folds: Sequence[int],
    *,
    out: Path,
    workers: int | None = None,
    on: OnStep = lambda fold, step, steps: None,
) -> dict[int, RunResult]:
    """Trains one network a fold; finished ones are found by their digest, started ones go on.

    Args:
        recipe: everything but data and folds.
        data: task -> windows.
        folds: which to hold out, one a network.
        out: where the runs' folders are made.
        workers: processes at once; as many as cores, or 1 (in this process) on a GPU, when None.
        on: told of progress, from other threads.

    Returns:
        fold -> result.

    Raises:
        ConfigError: a process failed; the message holds its reason.
    """
    found = {fold: done for fold in folds if (done := finished(recipe, data, fold, out)) is not None}
    missing = [fold for fold in folds if fold not in found]
    count = min(workers or (1 if torch.cuda.is_available() else os.cpu_count() or 1), len(missing))
    if count <= 1:
        for fold in missing:
            found[fold] = fit(recipe, data, fold=fold, out=out, callbacks=[_telling(fold, on)])
        return found
    with tempfile.TemporaryDirectory(prefix="neurofmx-") as folder:
        packed = Path(folder) / "data.npz"
        pack(packed, data)
        stop = threading.Event()
        with ThreadPoolExecutor(count) as pool:
            shares = [missing[i::count] for i in range(count)]
            jobs = [pool.submit(_in_a_process, recipe, packed, share, out, on, stop) for share in shares]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                stop.set()  # the others end at their next step, and go on from there when asked again
                raise
    for fold in missing:
        done = finished(recipe, data, fold, out)
        assert done is not None, f"fold {fold} ended without a result"
        found[fold] = done
    return found


def _telling(fold: int, on: OnStep) -> Callable[[StepReport], None]:
    return lambda report: on(fold, report.step, report.steps)


def _in_a_process(
    recipe: Recipe, packed: Path, folds: Sequence[int], out: Path, on: OnStep, stop: threading.Event
) -> None:
    job = packed.with_name(f"job-{folds[0]}.json")
    job.write_text(canonical_json({"recipe": recipe, "data": packed, "folds": list(folds), "out": out}))
    command = [sys.executable, "-m", "neurofmx.train", str(job)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            told = json.loads(line)
            on(told["fold"], told["step"], told["steps"])
            if stop.is_set():
                process.terminate()
                return
        if process.wait() != 0:
            errors.seek(0)
            raise ConfigError(
                f"training of folds {list(folds)}",
                got=errors.read().strip() or f"exit status {process.returncode}",
                expected="finished runs",
                fix="Mend it and run again: it goes on from its last checkpoint.",
            )
