"""What the commands share: options with one meaning everywhere, and the two ways of printing rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from neurofmx.provenance import plain

LakeOption = Annotated[str | None, typer.Option("--lake", envvar="NEUROFMX_LAKE", help="The lake: a folder, or s3://.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a recipe's field, as optim.lr=3e-4.")]


def lines(values: Iterable[Any]) -> None:
    """Prints each value as one line of JSON."""
    for value in values:
        print(json.dumps(plain(value), ensure_ascii=False))


def table(title: str, columns: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Prints rows as a table under a title."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*[str(cell) for cell in row])
    Console().print(shown)
