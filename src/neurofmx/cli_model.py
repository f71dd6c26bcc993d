"""The commands from a recording to a number: decode, the whole demo, train, evaluate, explain, interpret, report."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from neurofmx.cli_common import JsonOption, LakeOption, SetOption, lines, table
from neurofmx.errors import ConfigError
from neurofmx.lake import Lake


def decode(
    path: Annotated[Path | None, typer.Argument(help="NWB, EDF, a BIDS run or an ALF folder.")] = None,
    target: Annotated[str | None, typer.Option(help="What to decode: a stream, or stream.column of intervals.")] = None,
    example: Annotated[bool, typer.Option("--example", help="Use a simulated ten-minute session.")] = False,
    out: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path("decode.html"),
    seed: int = 0,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decode one's own recording: a table with baselines and intervals, in a minute.

    The lake keeps it, so that `neurofmx explain` works on the score ids. Example: neurofmx decode session.nwb --target
    position
    """
    from rich.console import Console
    from rich.status import Status

    from neurofmx.evaluate.decode import decode as run
    from neurofmx.evaluate.decode import example_session
    from neurofmx.evaluate.scores import print_scores
    from neurofmx.interpret.report import decode_page

    if (path is None) == (not example):
        raise ConfigError("decode", expected="a FILE, or --example", fix="Try: neurofmx decode --example")
    console = Console(stderr=True)
    with Status("reading", console=console) as status:
        source = example_session() if path is None else path
        result = run(source, target=target, seed=seed, lake=Lake.open(lake), progress=lambda text: status.update(text))
        page = decode_page(result, out)
    if as_json:
        lines(result.scores)
        return
    Console().print(result.preview)
    print_scores(result.scores)
    print(f"page: {page}")


def demo(
    lake: LakeOption = None,
    recipe: Annotated[str, typer.Option(help="Recipe: tiny, laptop, ...")] = "laptop",
    mirror: Annotated[Path | None, typer.Option(help="A folder of recordings laid out as the archives.")] = None,
) -> None:
    """Materialize the whole DAG on the sample and simulated archives (and a mirror, if one is given).

    Example: neurofmx demo --lake lake --mirror ../mirror
    """
    from neurofmx.assets.demo import demo as run

    raise SystemExit(run(Lake.open(lake), recipe=recipe, mirror=mirror))


def train(
    recipe: str = "laptop",
    settings: SetOption = None,
    lake: LakeOption = None,
    out: Annotated[Path | None, typer.Option(help="Write run ids and losses as JSON.")] = None,
) -> None:
    """Train a recipe's model, one checkpoint a fold; resumes where it was killed.

    Example: neurofmx train --recipe laptop --set optim.lr=3e-4
    """
    from neurofmx.pipeline import train_all, with_progress, write_train_metrics

    opened = Lake.open(lake)
    with with_progress() as on, _told_to_dagster() as tell:

        def both(what: str, done: int, total: int) -> None:
            on(what, done, total)
            tell(what, done, total)

        runs = train_all(opened, recipe, settings or [], on=both)
    for run in runs:
        print(f"{run['run_id']}  fold {run['fold']}  {run['steps']} steps  best validation {run['best_valid']:.4f}")
    if out is not None:
        write_train_metrics(runs, out)


@contextlib.contextmanager
def _told_to_dagster() -> Iterator[Callable[[str, int, int], None]]:
    """Progress as log lines of the Dagster run that started this process through Pipes; silent without one."""
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield lambda what, done, total: None
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:

        def tell(what: str, done: int, total: int) -> None:
            if done == total or done % 50 == 0:
                pipes.log.info(f"{what}: {done} of {total}")

        yield tell


def evaluate(
    recipe: str = "laptop",
    settings: SetOption = None,
    lake: LakeOption = None,
    out: Annotated[Path | None, typer.Option(help="Write metrics as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score every task beside chance, tuned baselines and the untrained model; then the transfer matrix.

    Example: neurofmx evaluate --recipe laptop
    """

    from neurofmx.evaluate.scores import print_scores
    from neurofmx.pipeline import evaluate_all, transfer_all, with_progress, write_score_metrics

    opened = Lake.open(lake)
    with with_progress() as on:
        scores = evaluate_all(opened, recipe, settings or [], on=on)
        transfer_all(opened, recipe, settings or [], on=on)
    if out is not None:
        write_score_metrics(scores, out)
    if as_json:
        lines(scores)
    else:
        print_scores(scores)


def explain(
    score_id: str,
    rerun: Annotated[bool, typer.Option("--rerun", help="Derive the number again from the lake.")] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where a number came from, down to the raw files' digests.

    Example: neurofmx explain 3f9c0a12
    """
    from rich.console import Console

    from neurofmx.evaluate import explain as chain

    opened = Lake.open(lake)
    tree = chain.explain(opened, score_id)
    if as_json:
        lines([tree])
    else:
        Console().print(chain.render(tree))
    if rerun:
        again = chain.rerun(opened, score_id)
        print(f"derived again: {again.value!r}; stored: {again.stored!r}; {'equal' if again.equal else 'DIFFERENT'}")
        raise SystemExit(0 if again.equal else 1)


def interpret(
    recipe: str = "laptop",
    settings: SetOption = None,
    lake: LakeOption = None,
    out: Annotated[Path | None, typer.Option(help="Write findings as JSON.")] = None,
) -> None:
    """Run the declared analyses, each with its null.

    Example: neurofmx interpret --recipe laptop
    """
    from neurofmx.pipeline import interpret_all, with_progress, write_findings

    opened = Lake.open(lake)
    with with_progress() as on:
        findings = interpret_all(opened, recipe, settings or [], on=on)
    table(
        "findings",
        ["analysis", "about", "value", "chance", "p", "status"],
        (
            [
                f.analysis,
                f.subject,
                f"{f.value:.3f}",
                f"{f.null.mean():.3f}" if len(f.null) else "-",
                f"{f.p:.3g}",
                f.status,
            ]
            for f in findings
        ),
    )
    if out is not None:
        write_findings(findings, out)


def report(out: Path = Path("report.html"), lake: LakeOption = None) -> None:
    """Write the one self-contained HTML page.

    Example: neurofmx report --out report.html
    """
    from neurofmx.interpret.report import write_report

    print(write_report(Lake.open(lake), out))
