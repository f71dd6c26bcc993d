"""Splits that never move: folds of groups by hash, folds of contiguous blocks inside a recording.

Both are pure functions of names and a stored salt, so a new recording changes no old row. What holds the same as a
recording that is dealt already goes where that went.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofmx import files, remote_head
from neurofmx.errors import ConfigError, LakeCorrupt, Leakage
from neurofmx.twins import Joined

if TYPE_CHECKING:
    from pathlib import Path

    from neurofmx.lake import Lake

SALT = "neurofmx-splits-1"  # of a lake that has none of its own
GUARD = -1


@dataclass(frozen=True, kw_only=True)
class Block:
    """One contiguous stretch of a recording.

    Args:
        start_s: start on the session clock.
        stop_s: end, exclusive.
        fold: fold in which it is tested; -1 marks a guard gap that is never used.
        unit: name of the resampling unit, unique over recordings.
    """

    start_s: float
    stop_s: float
    fold: int
    unit: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """Under which names a recording is dealt.

    Args:
        recording: text id of the recording whose name deals blocks and trials, and names units: the first of its
            twins, which is itself where there are none.
        group: what it is held out with, where whole recordings are held out.
    """

    recording: str
    group: str


# the salt


def salt_path(lake: Lake) -> Path:
    """Where a lake keeps its salt."""
    return lake.root / "manifests" / "split-salt.json"


@remote_head.reader(remote_head.SALT)
def salt_of(lake: Lake) -> str:
    """The salt that a lake's splits are hashed with: its own, else `SALT`.

    Raises:
        LakeCorrupt: the file holds no salt.
    """
    path = salt_path(lake)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["salt"]
    except FileNotFoundError:
        return SALT
    except (ValueError, KeyError, TypeError) as error:
        raise LakeCorrupt(f"{path}", got=f"{type(error).__name__}: {error}", expected='{"salt": "..."}') from error
    if not isinstance(found, str) or not found:
        raise LakeCorrupt(f"salt in {path}", got=repr(found), expected="text")
    return found


@remote_head.transaction
def keep_salt(lake: Lake) -> str:
    """Writes the salt of a lake that has none yet; it is never written again. Returns the lake's salt.

    Raises:
        LakeCorrupt: there is a file that holds no salt.
        Denied, NoSpace: it cannot be written.
    """
    path = salt_path(lake)
    if not path.exists():
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{files.TEMPORARY}")
        files.replace(partial, json.dumps({"salt": SALT}).encode())
        try:
            with files.clear_faults(path):
                os.link(partial, path)  # fails where another writer was first: its salt is the lake's
        except FileExistsError:
            pass
        finally:
            partial.unlink()
        files.sync_folder(path.parent)
    return salt_of(lake)


# folds


def group_fold(group: str, *, n_folds: int, salt: str = SALT) -> int:
    """The fold of a subject or session, by hash of its name and the salt: it depends on no other group."""
    digest = hashlib.sha256(f"{salt}|{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % n_folds


def block_folds(
    recording: str,
    spans: np.ndarray,
    *,
    n_blocks: int,
    n_folds: int,
    guard_s: float,
    salt: str = SALT,
) -> list[Block]:
    """Cuts a recording into contiguous blocks of equal valid time and deals them to folds.

    Blocks are dealt in rounds of ``n_folds``, each round in an order hashed from the recording's name, so
    every fold gets blocks from all over the session; a guard gap on either side of each border keeps
    windows and filters of one fold from touching the next.

    Args:
        recording: text form of the recording id.
        spans: (K, 2) seconds of valid, used time.
        n_blocks: number of blocks, at least ``n_folds``.
        n_folds: number of folds.
        guard_s: width of the gap at each border, in seconds of valid time.
        salt: stored salt of the split.

    Returns:
        Blocks in time order. A block that crosses a gap of ``spans`` is cut there and keeps its unit.

    Raises:
        ConfigError: fewer blocks than folds, or blocks no longer than two guards.
    """
    spans = np.asarray(spans, dtype=np.float64).reshape(-1, 2)
    lengths = spans[:, 1] - spans[:, 0]
    total = float(lengths.sum())
    if n_blocks < n_folds:
        raise ConfigError(f"blocks of {recording}", got=n_blocks, expected=f"at least the {n_folds} folds")
    width = total / n_blocks
    if width <= guard_s:
        raise ConfigError(
            f"blocks of {recording}",
            got=f"{width:.3f} s each ({total:.1f} s in {n_blocks})",
            expected=f"longer than the guard of {guard_s:.3f} s",
            fix="Use fewer blocks or a shorter window.",
        )
    folds = np.concatenate([_shuffled(n_folds, f"{salt}|{recording}|{r}") for r in range(-(-n_blocks // n_folds))])[
        :n_blocks
    ]
    before = np.concatenate([[0.0], np.cumsum(lengths)])  # valid seconds before each span
    blocks: list[Block] = []
    for i in range(n_blocks):
        lo = i * width + (guard_s / 2 if i else 0.0)
        hi = (i + 1) * width - (guard_s / 2 if i < n_blocks - 1 else 0.0)
        for (start, _), base, length in zip(spans, before[:-1], lengths):
            a, b = max(lo - base, 0.0), min(hi - base, length)
            if b > a:
                unit = f"{recording}#{i:03d}"
                blocks.append(Block(start_s=start + a, stop_s=start + b, fold=int(folds[i]), unit=unit))
    return blocks


def _shuffled(n: int, text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.Generator(np.random.PCG64(seed)).permutation(n)


def check_blocks(blocks: list[Block], *, what: str) -> None:
    """Raises `Leakage` when blocks of different folds overlap in time."""
    last: dict[int, Block] = {}  # fold -> its block that ends last so far
    for block in sorted((b for b in blocks if b.fold != GUARD), key=lambda b: b.start_s):
        for other in last.values():
            if other.fold != block.fold and block.start_s < other.stop_s:
                raise Leakage(
                    f"split of {what}",
                    got=f"fold {other.fold} until {other.stop_s:.3f} s, fold {block.fold} from {block.start_s:.3f} s",
                    expected="no overlap between folds",
                )
        if block.fold not in last or block.stop_s > last[block.fold].stop_s:
            last[block.fold] = block


# names


def held_together(row: Mapping[str, Any], group: str) -> str:
    """Name of what a recording is held out with; the dataset's version is no part of it, so that none moves.

    Args:
        row: archive, dataset, name, subject_id and session, as in table ``recordings``.
        group: ``subject_id`` (the session where no subject is known), ``session``, or ``""`` for the recording alone.

    Raises:
        ConfigError: another word.
    """
    dataset = f"{row['archive']}:{row['dataset']}"
    subject = f"{dataset}/{row['subject_id'] or row['session'] or row['name']}"
    session = f"{subject}/{row['session']}" if row["subject_id"] else subject
    names = {"": f"{dataset}/{row['name']}", "subject_id": subject, "session": session}
    if group not in names:
        raise ConfigError("group of a split", got=group, expected="subject_id, session or nothing")
    return names[group]


def places(
    rows: Iterable[Mapping[str, Any]],
    stored: Iterable[Mapping[str, Any]],
    twins: Mapping[str, tuple[str, ...]],
    *,
    group: str | None,
    n_folds: int,
    salt: str = SALT,
) -> tuple[dict[str, Place], dict[str, str]]:
    """Under which names each recording is dealt: those of the first of its twins.

    What is stored stays. A new recording goes to the fold of whatever is stored and shares its group or its content,
    through other new ones as well; the first of several new ones is the one whose id comes first. One that would
    join what lies in two folds goes to neither.

    Args:
        rows: the split's recordings, as in table ``recordings``.
        stored: the split's rows of table ``splits``.
        twins: recording -> all recordings that hold the same as it does, itself included.
        group: as `held_together` has it where whole recordings are held out, None where folds are inside each.
        n_folds: folds.
        salt: of the lake.

    Returns:
        Recording -> its place; and recording -> why it has none.
    """
    own = {row["recording_id"]: held_together(row, group or "") for row in rows}
    groups, dealers = {}, {}
    for row in stored:
        groups[row["recording_id"]] = row["group_name"]
        dealers[row["recording_id"]] = row["unit"].partition("#")[0]  # no recording's id holds a #
    found, refused = {}, {}
    if group is not None:
        groups, refused = _grouped(own, groups, twins, lambda name: group_fold(name, n_folds=n_folds, salt=salt))
    for recording in sorted(own):
        if recording in refused:
            continue
        alike = twins.get(recording, (recording,))
        kept = sorted({dealers[a] for a in alike if a in dealers} & set(alike))
        if recording in dealers:
            first = dealers[recording]
        elif group is None and len(kept) > 1:
            refused[recording] = f"the same as what is dealt apart already: {', '.join(kept)}"
            continue
        else:
            first = kept[0] if kept else min(a for a in alike if a in own)
        found[recording] = Place(recording=first, group=groups[recording] if group is not None else "")
    return found, refused


def _grouped(
    own: Mapping[str, str], stored: Mapping[str, str], twins: Mapping[str, tuple[str, ...]], fold: Callable[[str], int]
) -> tuple[dict[str, str], dict[str, str]]:
    """Recording -> the group that it is held out with; and recording -> why it cannot be held out with any."""
    joined = Joined()
    for recording, name in own.items():
        joined.join(f"r {recording}", f"g {name}", *(f"r {twin}" for twin in twins.get(recording, ())))
    for recording, name in stored.items():
        joined.join(f"r {recording}", f"g {name}")
    sets, groups, refused = joined.sets(), dict(stored), {}
    for recording in sorted(own):
        if recording in stored:
            continue
        near = [a[2:] for a in sets[f"r {recording}"] if a.startswith("r ")]
        names = sorted({stored[a] for a in near if a in stored})
        if len({fold(name) for name in names}) > 1:
            # others tie together what is apart: only what shares its group or its content with this one counts
            beside = {name for a, name in groups.items() if own.get(a) == own[recording]}
            names = sorted(beside | {groups[a] for a in twins.get(recording, ()) if a in groups})
            if not beside or len({fold(name) for name in names}) > 1:
                refused[recording] = f"its group or its content is in two folds already: {', '.join(names[:4])}"
                continue
        first = min(a for a in near if a in own)
        groups[recording] = own[recording] if own[recording] in names else names[0] if names else own[first]
    return groups, refused
