"""The commands that store a lake's arrays again: a small lake to carry away, and another encoding in place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neurofmx.cli_common import JsonOption, LakeOption, lines
from neurofmx.errors import ConfigError
from neurofmx.lake import Lake

if TYPE_CHECKING:
    from neurofmx.shards import Codec

CodecOption = Annotated[str, typer.Option(help="none: numpy and pyarrow read it; lz4: smaller, numcodecs reads it.")]


def pack(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    recordings: Annotated[list[str] | None, typer.Argument(help="Recording ids, all if left out.")] = None,
    max_mb: Annotated[float | None, typer.Option(help="Most that all its files may take, in 1e6 bytes.", min=0)] = None,
    where: Annotated[str, typer.Option(help="A query whose column recording_id says which.")] = "",
    codec: CodecOption = "none",
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a small lake of chosen recordings and their tokens, to be carried away; say what stays behind, and why.

    Example: neurofmx lake pack --out small --max-mb 50
    """
    from neurofmx import pack as packing

    done = packing.pack(
        Lake.open(lake), out, max_mb=max_mb, recordings=recordings or None, where_sql=where, codec=_codec(codec)
    )
    if as_json:
        lines([done])
    for rid, why in done.left_out.items():
        print(f"left out {rid}: {why}", file=sys.stderr)
    print(f"{len(done.recordings)} recordings, {done.n_bytes / 1e6:.1f} MB: {done.path}", file=sys.stderr)


def convert(
    recordings: Annotated[list[str] | None, typer.Argument(help="Recording ids, all if left out.")] = None,
    codec: CodecOption = "lz4",
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store recordings and their tokens in another encoding; what a snapshot names stays as it is.

    Example: neurofmx lake convert --codec lz4
    """
    from neurofmx import pack as packing

    made = packing.convert(Lake.open(lake), _codec(codec), recordings or None)
    if as_json:
        lines({"path": path} for path in made)
    print(f"{len(made)} groups stored as {codec}; the old ones go with: neurofmx lake gc", file=sys.stderr)


def _codec(text: str) -> Codec:
    if text not in ("none", "lz4"):
        raise ConfigError("codec", got=text, expected="none or lz4")
    return "none" if text == "none" else "lz4"
