"""The table of analyses, and the one call that runs it on a task's networks and stores what was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofmx import catalog
from neurofmx.interpret import ablation, answers, probes, similarity
from neurofmx.interpret.activations import Activations, Part, capture, held_out
from neurofmx.interpret.channels import Group, channel_groups, regions_of
from neurofmx.interpret.runner import Analysis, Data, Null, adjust, run, skipped
from neurofmx.interpret.terms import Metric, additive_metric
from neurofmx.provenance import canonical_json, digest_of, plain
from neurofmx.types import Finding

if TYPE_CHECKING:
    from neurofmx.evaluate.spec import TaskSpec
    from neurofmx.lake import Lake
    from neurofmx.tokenize.windows import TaskData
    from neurofmx.train.checkpoints import Trained

LARGE = 2048  # values of an array above which the catalog keeps its shape alone

_SHIFTED = (
    "Rows of a session are shifted in time as one, around its end, so that autocorrelation stays; trials without "
    "order are permuted inside their session."
)

_ROWS = (
    Analysis(
        name="linear_probe",
        family="probes",
        question="Can the target be read off what this site holds, by a linear map?",
        needs=("x", "y"),
        headline="held-out score of a linear probe (R2 averaged over dimensions, or balanced accuracy)",
        null=Null(
            text=f"The target loses its relation to the features. {_SHIFTED} A surrogate that loses to a constant "
            "answer counts as one."
        ),
        assumptions=("the target is stationary inside a session", "sessions hold several of its correlation times"),
        citation="Alain and Bengio 2016; Hewitt and Liang 2019",
        function=probes.linear_probe,
    ),
    Analysis(
        name="probe_gain",
        family="probes",
        question="Did training put the target where a linear map can read it, beyond what random weights keep?",
        needs=("x", "y", "x_untrained"),
        headline="probe score of the trained network less that of the same network before training",
        null=Null(text="Trained and untrained network are swapped in resampling units chosen at random."),
        assumptions=("resampling units are independent",),
        citation="Alain and Bengio 2016; sign flips: Fisher 1935",
        function=probes.probe_gain,
    ),
    Analysis(
        name="cka",
        family="similarity",
        question="Do two consecutive sites hold the windows in the same geometry?",
        needs=("x", "z"),
        headline="debiased linear CKA of two consecutive sites",
        null=Null(text=f"One site loses its relation to the other. {_SHIFTED}", n=199),
        assumptions=("features are stationary inside a session", "sessions hold several of their correlation times"),
        citation="Kornblith et al. 2019; Song et al. 2012; Nguyen et al. 2021",
        function=similarity.cka,
    ),
    Analysis(
        name="channel_ablation",
        family="ablation",
        question="Which input channels does the network's answer hang on?",
        needs=("y", "intact", "without", "mean"),
        headline="largest drop of the score when one group of channels is taken from another window",
        null=Null(
            text="Intact and ablated answers are swapped in resampling units chosen at random, the same for all "
            "groups, and the largest drop is taken again; groups of the same sizes dealt at random are shown beside it."
        ),
        assumptions=("resampling units are independent", "another window's channels are possible here"),
        citation="Chan et al. 2022; Westfall and Young 1993",
        function=partial(ablation.channel_ablation, metric="r2_mean"),
    ),
    Analysis(
        name="block_ablation",
        family="ablation",
        question="Does the network's answer hang on what this block adds, more than on any push of that size?",
        needs=("y", "intact", "without", "mean", "turned"),
        headline="drop of the score when a block adds what it adds in another window",
        null=Null(
            text="The residual stream is pushed as far in every bin, turned to a random direction.", n=answers.TURNS
        ),
        assumptions=("the residual stream has no preferred axes before the block",),
        citation="Chan et al. 2022; Conmy et al. 2023",
        function=partial(ablation.block_ablation, metric="r2_mean"),
    ),
)

ANALYSES: dict[str, Analysis] = {row.name: row for row in _ROWS}


def analysis_for(name: str, metric: Metric) -> Analysis:
    """A row of `ANALYSES`; ablation rows with the score that they are to count in."""
    row = ANALYSES[name]
    if row.family != "ablation":
        return row
    functions: dict[str, Callable[..., Any]] = {
        "channel_ablation": ablation.channel_ablation,
        "block_ablation": ablation.block_ablation,
    }
    return replace(row, function=partial(functions[name], metric=metric), headline=f"{row.headline} ({metric})")


def interpret_task(
    task: TaskSpec, data: TaskData, trained: Mapping[int, Trained], *, lake: Lake | None
) -> list[Finding]:
    """Runs every analysis on the networks of one task, each on what it held out, and stores the findings.

    Confirmatory, and corrected together (Benjamini and Hochberg): a linear probe at every site, the probe's gain at
    the last site, channel ablation. All else is exploratory.

    Args:
        task: the task; its name and metric are used.
        data: its windows.
        trained: fold -> the network that held it out.
        lake: where findings go, and regions come from; None stores nothing.

    Returns:
        Findings in the order of the table; what could not be run is among them as *skipped*, with the reason.
    """
    metric = additive_metric(task.metric, data.kind)
    parts, closed = held_out(data, trained)
    seed = next((network.recipe.seed for _, network in sorted(trained.items())), 0)
    if not parts:
        reason = f"no network can read a recording that it held out ({closed} with channels that training never filled)"
        findings = [
            skipped(row, data.name, reason, {"family": row.family, "seed": str(seed)}) for row in ANALYSES.values()
        ]
    else:
        caveats = (
            (f"{closed} held-out recordings are left out: training never filled their channels.",) if closed else ()
        )
        findings = [
            *_on_features(data, trained, parts, metric, seed),
            *_on_answers(data, trained, parts, metric, seed, lake),
        ]
        findings = adjust(replace(f, caveats=(*f.caveats, *caveats)) for f in findings)
    if lake is not None:
        catalog.put(lake, "findings", data.name, finding_rows(data.name, findings))
    return findings


def _on_features(
    data: TaskData, trained: Mapping[int, Trained], parts: list[Part], metric: Metric, seed: int
) -> list[Finding]:
    held = capture(data, trained, parts, seed=seed)
    # fusion hands a single modality on as it is: a site that repeats the one before it is not another finding
    named = list(held.features)
    sites = [s for i, s in enumerate(named) if i == 0 or not _same(held, named[i - 1], s)]
    found = []
    for site in sites:
        arrays = {"x": held.features[site], "y": held.y, "x_untrained": held.untrained[site]}
        given = _features(held, f"{data.name} at {site}", arrays, confirmatory=True)
        for name in ("linear_probe", "probe_gain") if site == sites[-1] else ("linear_probe",):
            found.append(run(analysis_for(name, metric), given, seed=seed))
    for a, b in zip(sites, sites[1:]):
        arrays = {"x": held.features[a], "z": held.features[b]}
        arrays |= {"x_untrained": held.untrained[a], "z_untrained": held.untrained[b]}
        given = _features(held, f"{data.name}, {a} to {b}", arrays, confirmatory=False)
        found.append(run(analysis_for("cka", metric), given, seed=seed))
    return found


def _same(held: Activations, a: str, b: str) -> bool:
    return np.array_equal(held.features[a], held.features[b])


def _features(held: Activations, subject: str, arrays: Mapping[str, np.ndarray], *, confirmatory: bool) -> Data:
    return Data(
        subject=subject,
        arrays=arrays,
        unit=held.unit,
        session=held.session,
        fold=held.fold,
        model=held.model,
        ordered=held.ordered,
        confirmatory=confirmatory,
        provenance={"rows": held.chosen},
    )


def _on_answers(
    data: TaskData,
    trained: Mapping[int, Trained],
    parts: list[Part],
    metric: Metric,
    seed: int,
    lake: Lake | None,
) -> list[Finding]:
    groups = channel_groups(data, {} if lake is None else regions_of(lake, data))
    least = f", at least {answers.LEAST_TRIALS} windows" if data.kind == "class" else ""
    about = {"rows": f"at most about {answers.MAX_BINS} held-out bins{least}, spread over every recording"}
    said = answers.ablate_channels(data, trained, parts, groups, seed=seed)
    given = said.as_data(f"{data.name}, {len(groups)} channel groups", confirmatory=True, provenance=about)
    found = [_named(run(analysis_for("channel_ablation", metric), given, seed=seed), groups)]
    network = next(iter(trained.values()))
    for block in range(len(network.model.blocks)):
        said = answers.ablate_block(data, trained, parts, block, seed=seed)
        given = said.as_data(f"{data.name}, block.{block}", confirmatory=False, provenance=about)
        found.append(run(analysis_for("block_ablation", metric), given, seed=seed))
    return found


def _named(finding: Finding, groups: list[Group]) -> Finding:
    """The finding with the groups' names beside their drops, and the first of them told."""
    if "drop" not in finding.arrays:
        return finding
    names = np.array([g.name for g in groups])
    sizes = np.array([len(g.channels) for g in groups])
    first = names[int(np.argmax(finding.arrays["drop"]))]
    return replace(
        finding,
        arrays=dict(finding.arrays) | {"group": names, "channels": sizes},
        caveats=(f"The largest drop, of {first}, is the largest of {len(groups)}.", *finding.caveats),
    )


def finding_rows(task: str, findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as rows of catalog table ``findings``."""
    from neurofmx.lake import now

    at = now()
    return [
        {
            "finding_id": digest_of([task, f.analysis, f.subject, f.provenance])[:16], "task": task,
            "analysis": f.analysis, "family": f.provenance.get("family", ""), "subject": f.subject,
            "headline": ANALYSES[f.analysis].headline, "value": f.value, "null": [float(v) for v in f.null], "p": f.p,
            "q": f.q, "ci_low": f.ci95[0], "ci_high": f.ci95[1], "status": f.status, "reason": f.reason,
            "scalars": canonical_json(dict(f.scalars)), "arrays": arrays_json(f.arrays), "caveats": list(f.caveats),
            "provenance": canonical_json(dict(f.provenance)), "found_at": at,
        }
        for f in findings
    ]  # fmt: skip


def arrays_json(arrays: Mapping[str, np.ndarray]) -> str:
    """Small arrays as nested lists; of large ones the shape alone, as ``{"left_out": [...]}``."""
    told = {k: plain(a.tolist()) if a.size <= LARGE else {"left_out": list(a.shape)} for k, a in arrays.items()}
    return json.dumps(told, sort_keys=True)
