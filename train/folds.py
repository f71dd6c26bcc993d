"""All networks of a recipe: side by side on a CPU, one process a core; one after the other on a GPU.

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
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import torch

from neurofmx.errors import ConfigError
from neurofmx.provenance import canonical_json
from neurofmx.tokenize.packed import pack
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.loop import RunResult, StepReport, finished, fit
from neurofmx.train.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network to train.

    Args:
        data: task -> windows.
        fold: fold held out.
        name: what it is called in progress and errors.
    """

    data: Mapping[str, TaskData]
    fold: int
    name: str


# told (name of the network, steps done, most steps), and (name, 1, 1) when it is done
OnStep = Callable[[str, int, int], None]


def fit_networks(
    recipe: Recipe,
    networks: Sequence[Network],
    *,
    out: Path,
    workers: int | None = None,
    on: OnStep = lambda name, step, steps: None,
) -> list[RunResult]:
    """Trains networks; finished ones are found by their digest, started ones go on.

    Args:
        recipe: everything but data and folds.
        networks: what to train; those that share ``data`` share it as one object.
        out: where the runs' folders are made.
        workers: processes at once; as many as cores, or 1 (in this process) on a GPU, when None.
        on: told of progress, from other threads.

    Returns:
        A result a network, in order.

    Raises:
        ConfigError: a process failed; the message holds its reason.
    """
    found = [finished(recipe, n.data, n.fold, out) for n in networks]
    missing = [n for n, done in zip(networks, found) if done is None]
    count = min(workers or (1 if torch.cuda.is_available() else os.cpu_count() or 1), len(missing))
    if count <= 1:
        for n in missing:
            fit(recipe, n.data, fold=n.fold, out=out, callbacks=[_telling(n.name, on)])
            on(n.name, 1, 1)
    else:
        _side_by_side(recipe, missing, out, count, on)
    results = []
    for n, done in zip(networks, found):
        done = done or finished(recipe, n.data, n.fold, out)
        assert done is not None, f"{n.name} ended without a result"
        results.append(done)
    return results


def _telling(name: str, on: OnStep) -> Callable[[StepReport], None]:
    return lambda report: on(name, report.step, report.steps)


def _side_by_side(recipe: Recipe, networks: Sequence[Network], out: Path, count: int, on: OnStep) -> None:
    """Deals networks to processes, the next to the first that is free."""
    with tempfile.TemporaryDirectory(prefix="neurofmx-") as folder:
        packed: dict[int, Path] = {}
        jobs: SimpleQueue[tuple[str, str]] = SimpleQueue()
        for n in networks:
            if id(n.data) not in packed:
                packed[id(n.data)] = Path(folder) / f"{len(packed)}.npz"
                pack(packed[id(n.data)], n.data)
            job = {"recipe": recipe, "data": packed[id(n.data)], "fold": n.fold, "out": out}
            jobs.put((n.name, canonical_json(job)))
        stop = threading.Event()
        with ThreadPoolExecutor(count) as pool:
            running = [pool.submit(_work, jobs, on, stop) for _ in range(count)]
            try:
                for one in running:
                    one.result()
            except BaseException:
                stop.set()  # the others end at their next step, and go on from their checkpoints when asked again
                raise


def _work(jobs: SimpleQueue[tuple[str, str]], on: OnStep, stop: threading.Event) -> None:
    """One process, given job after job until none is left."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "neurofmx.train"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
        ) as process,
    ):  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        while True:
            try:
                name, job = jobs.get_nowait()
            except Empty:
                return
            process.stdin.write(job + "\n")
            process.stdin.flush()
            for line in process.stdout:
                told = json.loads(line)
                if stop.is_set():
                    process.terminate()
                    return
                if "done" in told:
                    on(name, 1, 1)
                    break
                on(name, told["step"], told["steps"])
            else:  # the process ended before the job did
                process.wait()
                errors.seek(0)
                raise ConfigError(
                    f"training of {name}",
                    got=errors.read().strip() or f"exit status {process.returncode}",
                    expected="a finished run",
                    fix="Mend it and run again: it goes on from its last checkpoint.",
                )
