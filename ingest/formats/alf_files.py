"""The file names of ALF: which object, attribute, clock and revision a file of an IBL session holds.

ALF (ALyx Files) names a file ``_namespace_object.attribute_timescale.extra.extension`` and lays revisions into
folders such as ``#2022-03-01#``: International Brain Laboratory, "ALyx Filenames", docs of the ONE library.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile

READABLE = ("npy", "pqt", "csv", "tsv")
_NAME = re.compile(
    r"^(?:_(?P<namespace>[A-Za-z0-9]+)_)?(?P<object>[A-Za-z0-9]+)\.(?P<attribute>[A-Za-z0-9]+(?:_[A-Za-z0-9]+)*)"
    r"(?P<extra>(?:\.[^.]+)*)\.(?P<extension>[A-Za-z0-9]+)$"
)
_UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_REVISION = re.compile(r"^#(?P<name>.+)#$")
_TABLES = ("table", "signal")
# attributes whose last part is another clock's name, not a part of their own name
_CLOCKS = ("bpod", "fpga", "nidq", "ephysClock", "camera", "audio")


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One file of a session.

    Args:
        path: name relative to the root of the files.
        collection: folder under ``alf``, without revisions; ``""`` for ``alf`` itself.
        object: what it is of: ``trials``, ``spikes``.
        name: which of its attributes: ``times``, ``intervals``.
        timescale: clock it counts on, ``""`` for the session's own.
        extension: ``npy``, ``pqt``, ...
        revision: ``""`` for the first.
    """

    path: str
    collection: str
    object: str
    name: str
    timescale: str
    extension: str
    revision: str


Objects = dict[tuple[str, str], dict[str, Attribute]]


def parse(path: str, session_dir: str) -> Attribute | None:
    """What a file's name says, or None where it is no ALF name below ``alf``."""
    base = PurePosixPath(session_dir)
    inner = PurePosixPath(path)
    if session_dir not in ("", "."):
        if not inner.is_relative_to(base):
            return None
        inner = inner.relative_to(base)
    found = _NAME.match(inner.name)
    if not found or len(inner.parts) < 2 or inner.parts[0] != "alf" or found["extension"] not in READABLE:
        return None
    folders = inner.parts[1:-1]
    revisions = [m["name"] for m in map(_REVISION.match, folders) if m]
    extras = [part for part in found["extra"].split(".") if part and not _UUID.match(part)]
    name, _, last = found["attribute"].rpartition("_")
    clock = last if name and last in _CLOCKS else ".".join(extras)
    return Attribute(
        path=path,
        collection="/".join(folder for folder in folders if not _REVISION.match(folder)),
        object=found["object"],
        name=name if name and last in _CLOCKS else found["attribute"],
        timescale=clock,
        extension=found["extension"],
        revision=revisions[-1] if revisions else "",
    )


def objects(paths: Iterable[str], session_dir: str, notes: list[str]) -> Objects:
    """(collection, object) -> attribute -> file: the last revision of each, on the session's own clock.

    Args:
        paths: names of the session's files.
        session_dir: the session's folder.
        notes: takes a sentence for revisions that a later one replaces and for files on another clock.
    """
    found: Objects = {}
    for path in sorted(paths):
        one = parse(path, session_dir)
        if one is None:
            continue
        if one.timescale:
            notes.append(f"{one.object}.{one.name} left out: on the clock {one.timescale!r}, not the session's")
            continue
        own = found.setdefault((one.collection, one.object), {})
        other = own.get(one.name)
        if other is not None and other.revision != one.revision:
            newer = max(other, one, key=lambda a: a.revision)
            notes.append(f"{one.object}.{one.name}: revision {newer.revision} taken, an earlier one left")
            own[one.name] = newer
        else:
            own[one.name] = one
    return found


def load(root: Path, one: Attribute) -> Any:
    """An array of a ``.npy`` file, a pandas frame of any table.

    Raises:
        MalformedFile: the file is damaged, or an array of Python objects.
    """
    import pandas
    import pyarrow

    path = root / one.path
    try:
        if one.extension == "npy":
            return np.load(path, allow_pickle=False)
        if one.extension == "pqt":
            return pandas.read_parquet(path)
        return pandas.read_csv(path, sep="\t" if one.extension == "tsv" else ",")
    except (OSError, ValueError, EOFError, pyarrow.ArrowException, pandas.errors.ParserError) as error:
        raise MalformedFile(
            one.path, got=f"{type(error).__name__}: {error}", expected=f"a {one.extension} file", fix="Fetch it again."
        ) from error


def column(values: Any) -> np.ndarray:
    """(N,) numbers, booleans or text of a table's column; what is unknown in text is empty."""
    array = np.asarray(values)
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.kind == "U":
        return array
    return np.array(["" if v is None or v != v else str(v) for v in array.tolist()], dtype=str)


def times(root: Path, own: dict[str, Attribute], n: int, where: str) -> np.ndarray:
    """(N,) seconds of an object's samples: ``times`` or ``timestamps``, one each or as (sample, second) knots.

    Args:
        root: folder of the files.
        own: the object's attributes.
        n: number of samples.
        where: names the object in messages.

    Raises:
        MalformedFile: there is neither, or not one a sample.
    """
    name = next((name for name in ("times", "timestamps") if name in own), None)
    if name is None:
        raise MalformedFile(where, got="no times", expected="an attribute times or timestamps")
    array = np.asarray(load(root, own[name]), np.float64)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.shape[1] == 2 and len(array) >= 2:
        # evenly sampled between knots, the short form of ALF
        return np.interp(np.arange(n), array[:, 0], array[:, 1])
    if array.shape != (n,):
        raise MalformedFile(own[name].path, got=f"shape {array.shape}", expected=f"({n},), one time a sample")
    return array
