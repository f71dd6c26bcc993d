"""The assets that are learned from the lake: checkpoint, scores, transfer matrix, findings, report."""

# annotations stay objects here: Dagster reads the type of `context` and of resources from them
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from neurofmx import catalog, pipeline
from neurofmx.assets import pictures, readable
from neurofmx.assets.failures import as_dagster_failures
from neurofmx.assets.resources import LakeResource, RecipeResource, TrainingResource
from neurofmx.assets.tables import CATALOG, SPLITS, contract_results, contract_specs
from neurofmx.ingest.contracts import validate_tables
from neurofmx.lake import Lake
from neurofmx.provenance import digest_of
from neurofmx.types import Finding

GROUP = "model"
CHECKPOINT, SCORES, TRANSFER = dg.AssetKey("checkpoint"), dg.AssetKey("scores"), dg.AssetKey("transfer_matrix")
FINDINGS, REPORT = dg.AssetKey("findings"), dg.AssetKey("report")
VERSION = "1"
Result = dg.AssetCheckResult | dg.MaterializeResult
Telling = dg.ResourceParam[Callable[[str, int, int], None]]


# no automation condition: training is a decision, not a consequence of new data
@dg.asset(
    key=CHECKPOINT, deps=[SPLITS], group_name=GROUP, code_version=VERSION, pool="gpu", kinds={"torch"},
    description="One trained network a fold, resumed where it was killed.",
)  # fmt: skip
def checkpoint(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    recipe: RecipeResource,
    training: TrainingResource,
    pipes: dg.PipesSubprocessClient,
    progress: Telling,
) -> dg.MaterializeResult:
    with as_dagster_failures():
        opened = lake.open()
        if training.where == "subprocess":
            settings = [part for text in recipe.settings for part in ("--set", text)]
            command = [sys.executable, "-m", "neurofmx.cli", "train", "--lake", str(opened.root),
                       "--recipe", recipe.name, *settings]  # fmt: skip
            pipes.run(command=command, context=context)
        # what the subprocess trained is found by its digest, not trained again
        runs = pipeline.train_all(opened, recipe.name, recipe.settings, on=progress)
    columns = ("run_id", "fold", "steps", "parameters", "best_valid", "seconds")
    rows = [catalog.rows(opened, "runs", run["run_id"])[0] for run in runs]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest_of(sorted(row["run_id"] for row in rows))),
        metadata={
            "loss": readable.picture(pictures.loss_curves(rows), "validation loss over steps"),
            "runs": readable.table(columns, ([row[c] for c in columns] for row in rows)),
            "recipe": recipe.name,
            "tasks": ", ".join(sorted({task for row in rows for task in row["tasks"]})),
        },
    )


@dg.asset(
    key=SCORES, deps=[CHECKPOINT, SPLITS], group_name=GROUP, code_version=VERSION, kinds={"parquet"},
    check_specs=contract_specs("scores", SCORES),
    description="Every task beside chance, tuned baselines and the untrained network, with intervals.",
)  # fmt: skip
def scores(lake: LakeResource, recipe: RecipeResource, progress: Telling) -> Iterator[Result]:
    with as_dagster_failures():
        opened = lake.open()
        found = pipeline.evaluate_all(opened, recipe.name, recipe.settings, on=progress)
        yield from contract_results("scores", validate_tables(opened, opened.root / "contracts"))
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(digest_of(sorted([s.score_id, repr(s.value)] for s in found))),
        metadata={
            "scores": readable.table(
                ("task", "predictor", "metric", "value", "95 % interval", "n", "units", "verdict", "score_id"),
                (
                    (s.task, s.predictor, s.metric, s.value, f"{s.ci95[0]:.3f} to {s.ci95[1]:.3f}", s.n,
                     f"{s.n_units} {s.unit}", s.verdict, s.score_id)
                    for s in sorted(found, key=lambda s: (s.task, s.predictor))
                ),
            )
        },
    )  # fmt: skip


@dg.asset(
    key=TRANSFER, deps=[CHECKPOINT, SPLITS], group_name=GROUP, code_version=VERSION, kinds={"parquet"},
    description="Source x target gains over from-scratch, with shuffled and random-init controls.",
)  # fmt: skip
def transfer_matrix(lake: LakeResource, recipe: RecipeResource, progress: Telling) -> dg.MaterializeResult:
    with as_dagster_failures():
        opened = lake.open()
        pipeline.transfer_all(opened, recipe.name, recipe.settings, on=progress)
    cells = sorted(catalog.rows(opened, "transfer"), key=lambda c: (c["matrix"], c["source"], c["target"]))
    metadata: dict[str, Any] = {}
    for matrix in sorted({cell["matrix"] for cell in cells}):
        held = [cell for cell in cells if cell["matrix"] == matrix]
        metadata[f"heat_map_{matrix}"] = readable.picture(pictures.transfer_heat_map(held), f"transfer, {matrix}")
    columns = ("matrix", "source", "target", "value", "scratch", "random_init", "gain", "gain_low", "gain_high")
    metadata["cells"] = readable.table(columns, ([cell[c] for c in columns] for cell in cells))
    metadata["simulated"] = all(cell["simulated"] for cell in cells)
    version = digest_of([[cell["cell_id"], repr(cell["value"])] for cell in cells])
    return dg.MaterializeResult(data_version=dg.DataVersion(version), metadata=metadata)


@dg.asset(
    key=FINDINGS, deps=[CHECKPOINT], group_name=GROUP, code_version=VERSION, kinds={"parquet"},
    description="Declared analyses of the trained network, each value beside its null.",
)  # fmt: skip
def findings(lake: LakeResource, recipe: RecipeResource, progress: Telling) -> dg.MaterializeResult:
    with as_dagster_failures():
        found = pipeline.interpret_all(lake.open(), recipe.name, recipe.settings, on=progress)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest_of([[f.analysis, f.subject, repr(f.value)] for f in found])),
        metadata={
            "findings": readable.table(
                ("analysis", "about", "value", "chance", "p", "q", "status"), (_finding_row(f) for f in found)
            )
        },
    )


@dg.asset(
    key=REPORT, deps=[CATALOG, SCORES, TRANSFER, FINDINGS], group_name=GROUP, code_version=VERSION, kinds={"html"},
    description="One self-contained page: data, refusals, scores, transfer, findings, provenance.",
)  # fmt: skip
def report(lake: LakeResource) -> dg.MaterializeResult:
    from neurofmx.interpret.report import write_report

    with as_dagster_failures():
        opened = lake.open()
        page = write_report(opened, report_path(opened))
    metadata = {"page": dg.MetadataValue.url(page.as_uri()), "path": str(page), "bytes": page.stat().st_size}
    return dg.MaterializeResult(metadata=metadata)


ASSETS = (checkpoint, scores, transfer_matrix, findings, report)


def report_path(lake: Lake) -> Path:
    """Where the report of a lake is written."""
    return lake.root / "report.html"


def _finding_row(finding: Finding) -> tuple[Any, ...]:
    chance = float(finding.null.mean()) if len(finding.null) else "-"
    return finding.analysis, finding.subject, finding.value, chance, finding.p, finding.q, finding.status
