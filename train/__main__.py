"""``python -m neurofmx.train JOB``: trains folds from packed task data and tells of each step as a line of JSON.

A job is a JSON file with ``recipe`` (the whole recipe), ``data`` (a file of `tokenize.packed`), ``folds`` and ``out``.
Torch and numpy are all it needs, so the same entry point serves a core of this machine and a GPU elsewhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from neurofmx.config import from_plain
from neurofmx.errors import NeurofmxError
from neurofmx.tokenize.packed import unpack
from neurofmx.train.loop import Callback, StepReport, fit
from neurofmx.train.recipes import Recipe


def main(job: Path) -> int:
    """Runs one job, fold after fold; returns 0, or 1 with the reason on standard error."""
    about = json.loads(job.read_text())
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # steps are small: a second thread costs more than it brings

    def telling(fold: int) -> Callback:
        def tell(report: StepReport) -> None:
            print(json.dumps({"fold": fold, "step": report.step, "steps": report.steps}), flush=True)

        return tell

    try:
        recipe, data = from_plain(Recipe, about["recipe"]), unpack(Path(about["data"]))
        for fold in about["folds"]:
            fit(recipe, data, fold=fold, out=Path(about["out"]), callbacks=[telling(fold)])
    except NeurofmxError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
