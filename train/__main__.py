"""``python -m neurofmx.train``: trains from packed task data, one job a line of standard input, and tells how it goes.

A job is JSON with ``recipe`` (the whole recipe), ``data`` (a file of `tokenize.packed`), ``fold`` and ``out``. For each
step, and at the end, a line of JSON is printed. Torch and numpy are all it needs, so the same entry point serves a core
of this machine and a GPU elsewhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from neurofmx.config import from_plain
from neurofmx.errors import NeurofmxError
from neurofmx.tokenize.packed import unpack
from neurofmx.train.loop import StepReport, fit
from neurofmx.train.recipes import Recipe


def main(jobs: Iterable[str]) -> int:
    """Runs job after job; returns 0, or 1 with the reason on standard error at the first that cannot be done."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # steps are small: a second thread costs more than it brings
    path, data = None, {}

    def tell(report: StepReport) -> None:
        print(json.dumps({"step": report.step, "steps": report.steps}), flush=True)

    for line in jobs:
        job = json.loads(line)
        try:
            if job["data"] != path:
                path, data = job["data"], unpack(Path(job["data"]))
            done = fit(
                from_plain(Recipe, job["recipe"]), data, fold=job["fold"], out=Path(job["out"]), callbacks=[tell]
            )
        except NeurofmxError as error:
            print(error, file=sys.stderr)
            return 1
        print(json.dumps({"done": done.run_id}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.stdin))
