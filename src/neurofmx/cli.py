"""The command line: rows of names and the functions behind them, each calling what a notebook would call.

Exit codes: 0 done, 1 refused or failed with a reason, 2 wrong usage.
"""

from __future__ import annotations

import sys

import typer

from neurofmx import cli_archives, cli_lake, cli_model, cli_moves, cli_pack
from neurofmx.errors import ConfigError, NeurofmxError

COMMANDS = {
    "decode": cli_model.decode,
    "demo": cli_model.demo,
    "list": cli_archives.list_,
    "fetch": cli_archives.fetch,
    "validate": cli_archives.validate,
    "ingest": cli_archives.ingest,
    "quarantine": cli_archives.quarantine,
    "sql": cli_lake.sql,
    "catalog": cli_lake.catalog_,
    "tokens": cli_archives.tokens,
    "train": cli_model.train,
    "evaluate": cli_model.evaluate,
    "explain": cli_model.explain,
    "interpret": cli_model.interpret,
    "report": cli_model.report,
}
GROUPS = {
    "lake": (
        "The lake itself: its digests, snapshots, and what goes out of it and in.",
        {
            "verify": cli_lake.verify,
            "snapshot": cli_lake.snapshot,
            "snapshots": cli_lake.snapshots_,
            "diff": cli_lake.diff,
            "gc": cli_lake.gc,
            "pack": cli_pack.pack,
            "convert": cli_pack.convert,
            "export": cli_moves.export,
            "import": cli_moves.import_,
            "restore": cli_moves.restore,
        },
    ),
    "mirror": ("Serve a folder laid out as the archives.", {"serve": cli_archives.serve_mirror}),
}


def _app() -> typer.Typer:
    app = typer.Typer(
        name="neurofmx",
        help="From raw neural recordings to numbers that can be traced, re-derived and refuted.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    for name, command in COMMANDS.items():
        app.command(name)(command)
    for group, (text, commands) in GROUPS.items():
        inside = typer.Typer(help=text, no_args_is_help=True)
        for name, command in commands.items():
            inside.command(name)(command)
        app.add_typer(inside, name=group)
    return app


app = _app()


def main() -> None:
    """Runs the command line; every refusal becomes one sentence on standard error."""
    try:
        app()
    except NeurofmxError as error:
        print(f"neurofmx: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error


if __name__ == "__main__":
    main()
