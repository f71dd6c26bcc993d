"""Rows of table ``splits``: where the recordings of a lake go in a task's split, and how rows are only ever added."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neurofmx import catalog, parts
from neurofmx.errors import Leakage
from neurofmx.evaluate.spec import TaskSpec
from neurofmx.lake import Lake
from neurofmx.splits import SALT, Place, places
from neurofmx.types import Recording


@dataclass(frozen=True, kw_only=True)
class Dealt:
    """Where the recordings of a lake go in one split.

    Args:
        places: recording -> under which names it is dealt; its own where it is not listed.
        refused: recording -> why it has no place.
        twins: recording -> all that hold the same as it does.
        stored: recording -> its stored rows of the split.
        salt: of the lake.
    """

    places: Mapping[str, Place] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    twins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stored: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    salt: str = SALT


def deal(
    task: TaskSpec, lake: Lake, rows: Iterable[Mapping[str, Any]], twins: Mapping[str, tuple[str, ...]], salt: str
) -> Dealt:
    """Where the recordings of a lake go in a task's split: what is stored stays, twins go together.

    Args:
        task: whose split it is.
        lake: its stored rows are read.
        rows: the recordings that the task chooses, as in table ``recordings``.
        twins: recording -> all that hold the same as it does.
        salt: of the lake.
    """
    import pyarrow.compute as pc

    table = parts.read(lake, "splits")
    stored: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in table.filter(pc.field("split_id") == task.split_id(salt)).to_pylist():
        stored[row["recording_id"]].append(row)
    placed, refused = places(
        rows, [listed[0] for listed in stored.values()], twins, n_folds=task.n_folds, salt=salt,
        group=task.group if task.split == "recordings" else None,
    )  # fmt: skip
    return Dealt(places=placed, refused=refused, twins=twins, stored=stored, salt=salt)


def deal_groups(recording: str, groups: Iterable[str], n_folds: int, salt: str = SALT) -> dict[str, int]:
    """Group of trials -> fold: groups in an order hashed from recording and name, dealt one after the other.

    Every fold gets as many groups as any other, give or take one; nothing depends on another recording.
    """
    ordered = sorted(set(groups), key=lambda g: hashlib.sha256(f"{salt}|{recording}|{g}".encode()).hexdigest())
    return {group: rank % n_folds for rank, group in enumerate(ordered)}


def split_row(
    task: TaskSpec, recording: Recording, salt: str, start_s: float, stop_s: float, fold: int, unit: str, group: str
) -> dict[str, Any]:
    """One row of table ``splits``."""
    return {
        "split_id": task.split_id(salt), "task": task.name, "recording_id": str(recording.id),
        "subject_id": recording.subject.id, "group_name": group, "unit": unit, "fold": fold, "start_s": start_s,
        "stop_s": stop_s,
    }  # fmt: skip


def store(lake: Lake, task: TaskSpec, recording: str, rows: list[dict[str, Any]] | str, salt: str) -> None:
    """Adds the split rows of one recording, or keeps the reason why it was left out."""
    if isinstance(rows, str):
        row = {"recording_id": recording, "stage": "task", "check_name": task.name, "passed": False,
               "severity": "warn", "evidence": f"left out: {rows}"}  # fmt: skip
        catalog.put(lake, "checks", f"{recording}|task|{task.name}", [row])
        return
    catalog.drop(lake, "checks", f"{recording}|task|{task.name}")
    add_split_rows(lake, f"{task.name}|{task.split_id(salt)}|{recording}", rows)


def add_split_rows(lake: Lake, key: str, rows: list[dict[str, Any]]) -> None:
    """Stores split rows; a row that is there already may not change.

    Raises:
        Leakage: a stored row is missing now or has another fold, group or unit.
    """

    def named(listed: list[dict[str, Any]]) -> dict[tuple[float, float], tuple[Any, ...]]:
        return {(r["start_s"], r["stop_s"]): (r["fold"], r["group_name"], r["unit"]) for r in listed}

    stored, new = named(catalog.rows(lake, "splits", key)), named(rows)
    moved = [span for span, was in stored.items() if new.get(span) != was]
    if moved:
        raise Leakage(
            f"split rows {key}",
            got=f"{len(moved)} of {len(stored)} would change, such as {moved[0]} s from {stored[moved[0]]}",
            expected="rows that never move",
            fix="Give the changed recording a new dataset version, or the changed task a new name.",
        )
    if new != stored:
        catalog.put(lake, "splits", key, rows)
