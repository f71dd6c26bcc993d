"""Would anything that is tested be seen in training: windows, groups, subjects, content, recordings published twice.

Rows of table ``splits`` are judged, and the windows that were cut by them. Every check names the recordings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from neurofmx.errors import Leakage
from neurofmx.splits import GUARD
from neurofmx.twins import RECORDING, Link
from neurofmx.types import Check, RecordingId

CLOSE_S = 1e-6  # seconds by which borders may miss one another through rounding
_MOST = 5  # cases that evidence names
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a split promises.

    Args:
        group: what is held out together, as `splits.held_together` has it; None where folds are inside recordings.
        gap_s: least seconds between blocks of different folds of one recording.
    """

    group: str | None
    gap_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Windows:
    """The windows of one recording in one split.

    Args:
        recording: text id.
        start_s: (N,) seconds on the session clock.
        stop_s: (N,) end of what is real in each, exclusive.
        fold: (N,) fold in which each is tested, negative for none.
    """

    recording: str
    start_s: np.ndarray
    stop_s: np.ndarray
    fold: np.ndarray


def judge(
    rows: Iterable[Mapping[str, Any]],
    found: Iterable[Link],
    promises: Mapping[str, Promise],
    windows: Mapping[str, Sequence[Windows]] | None = None,
) -> tuple[Check, ...]:
    """Holds split rows, and windows that were cut by them, against everything that would leak.

    Args:
        rows: of table ``splits``. Those of a split that nothing is promised of are history and are not judged.
        found: what recordings of the lake share.
        promises: split id -> what it promises.
        windows: split id -> its windows, where they are at hand.

    Returns:
        One blocking check each for blocks, groups, subjects, content and twins; and one for windows if given.
    """
    splits: dict[str, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["split_id"] in promises and row["fold"] != GUARD:
            splits[row["split_id"]][row["recording_id"]].append(row)
    shared = list(found)
    kinds: dict[str, list[str]] = {name: [] for name in ("blocks", "groups", "subjects", "content", "twins")}
    for split, held in splits.items():
        promise, said = promises[split], f"split {split[:8]} of {next(iter(held.values()))[0]['task']}"
        kinds["blocks"] += [f"{said}: {one}" for one in _near(held, promise.gap_s)]
        kinds["groups"] += [f"{said}: {one}" for one in _split_names(held, _group)]
        if promise.group == "subject_id":
            kinds["subjects"] += [f"{said}: {one}" for one in _split_names(held, _subject)]
        for link in shared:
            kind = "twins" if link.kind == RECORDING else "content"
            kinds[kind] += [f"{said}: {one}" for one in _linked(link, held)]
    if windows is not None:
        kinds["windows"] = [
            f"split {split[:8]}: {one}"
            for split, cut in windows.items()
            for own in cut
            for one in _straddling(own, splits[split].get(own.recording, ()) if split in splits else None)
        ]
    n = sum(len(listed) for held in splits.values() for listed in held.values())
    return tuple(_check(name, faults, f"{n} rows of {len(splits)} splits") for name, faults in kinds.items())


def refuse(found: Iterable[Check]) -> None:
    """Raises `Leakage` where one of these checks failed.

    Raises:
        Leakage: it names what failed and the recordings.
    """
    failed = [check for check in found if not check.passed]
    if failed:
        raise Leakage(
            "split", got="; ".join(f"{check.name}: {check.evidence}" for check in failed),
            expected="nothing of the test data in training", fix="Take one of each pair out of the task.",
        )  # fmt: skip


def apart(recording: str, rows: Sequence[Mapping[str, Any]], others: Rows, twins: Mapping[str, tuple[str, ...]]) -> str:
    """Which twin of a recording is in another fold at the same time, in words; nothing where none is.

    Args:
        recording: text id.
        rows: its rows of one split.
        others: recording -> its rows of the same split.
        twins: recording -> all that hold the same as it does.
    """
    for twin in twins.get(recording, ()):
        if twin != recording and twin in others and (fault := _two_folds(rows, others[twin])):
            return f"it holds the same as {twin}, {fault}"
    return ""


def _check(name: str, faults: list[str], judged: str) -> Check:
    more = f"; and {len(faults) - _MOST} more" if len(faults) > _MOST else ""
    severity: Literal["block"] = "block"
    evidence = "; ".join(faults[:_MOST]) + more if faults else f"none in {judged}"
    return Check(name=f"leakage.{name}", passed=not faults, severity=severity, evidence=evidence)


def _near(held: Rows, gap_s: float) -> list[str]:
    """Blocks of different folds of one recording that overlap, or are closer than they may be."""
    found = []
    for recording, rows in held.items():
        start, stop, fold = _columns(rows)
        close = crossing(start, stop + gap_s, fold)
        if close is not None:
            a, b = close
            found.append(
                f"{recording} is in fold {fold[a]} until {stop[a]:.3f} s and in fold {fold[b]} from {start[b]:.3f} s"
                + (f", {gap_s:g} s apart at least is promised" if gap_s else "")
            )
    return found


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    start, stop = (np.array([row[key] for row in rows], np.float64) for key in ("start_s", "stop_s"))
    return start, stop, np.array([row["fold"] for row in rows], np.int64)


def crossing(start_s: np.ndarray, stop_s: np.ndarray, fold: np.ndarray) -> tuple[int, int] | None:
    """Two spans of different folds of which the second begins before the first is over, or None.

    Args:
        start_s: (N,) seconds.
        stop_s: (N,) seconds, exclusive.
        fold: (N,) folds.
    """
    last: dict[int, int] = {}  # fold -> its span that ends last so far
    for here in np.argsort(start_s, kind="stable").tolist():
        own = int(fold[here])
        for other, there in last.items():
            if other != own and stop_s[there] > start_s[here] + CLOSE_S:
                return there, here
        if own not in last or stop_s[here] > stop_s[last[own]]:
            last[own] = here
    return None


def _group(row: Mapping[str, Any]) -> str:
    return f"group {row['group_name']}" if row["group_name"] else ""


def _subject(row: Mapping[str, Any]) -> str:
    rid = RecordingId.parse(row["recording_id"])
    return f"subject {rid.archive}:{rid.dataset}/{row['subject_id']}" if row["subject_id"] else ""


def _split_names(held: Rows, name_of: Any) -> list[str]:
    """Names that rows of two folds share."""
    seen: dict[str, dict[int, str]] = defaultdict(dict)
    for recording, rows in held.items():
        for row in rows:
            if name := name_of(row):
                seen[name].setdefault(row["fold"], recording)
    return [
        f"{name} is in folds " + ", ".join(f"{fold} ({recording})" for fold, recording in sorted(folds.items()))
        for name, folds in sorted(seen.items())
        if len(folds) > 1
    ]


def _linked(link: Link, held: Rows) -> list[str]:
    """Recordings that share something and are in different folds."""
    there = [recording for recording in link.recordings if recording in held]
    found = []
    for at, one in enumerate(there):
        for other in there[at + 1 :]:
            if fault := _two_folds(held[one], held[other]):
                found.append(f"{one} and {other} are the same {link.kind} ({link.what[:16]}), {fault}")
    return found


def _two_folds(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> str:
    """Where two recordings with the same content are in different folds: wholly, or at the same time."""
    (a0, a1, fa), (b0, b1, fb) = _columns(one), _columns(other)
    if len(set(fa)) == len(set(fb)) == 1:
        return f"in folds {fa[0]} and {fb[0]}" if fa[0] != fb[0] else ""
    hit = (a0[:, None] < b1 - CLOSE_S) & (b0 < a1[:, None] - CLOSE_S) & (fa[:, None] != fb)
    hit &= (fa[:, None] != GUARD) & (fb != GUARD)
    if not hit.any():
        return ""
    i, j = (int(v[0]) for v in np.nonzero(hit))
    return f"in folds {fa[i]} and {fb[j]} at {max(a0[i], b0[j]):.3f} s"


def _straddling(windows: Windows, rows: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """Windows that reach into another fold, or out of the blocks of their own."""
    used = windows.fold != GUARD
    start, stop, fold = windows.start_s[used], windows.stop_s[used], windows.fold[used]
    if (pair := crossing(start, stop, fold)) is not None:
        a, b = pair
        return [f"{windows.recording}: a window of fold {fold[a]} from {start[a]:.3f} to {stop[a]:.3f} s reaches into "
                f"one of fold {fold[b]} from {start[b]:.3f} s"]  # fmt: skip
    if rows is None:
        return []
    lo, hi, own = _columns(rows)
    for a, b, f in zip(start, stop, fold):
        if not np.any((own == f) & (lo <= a + CLOSE_S) & (b <= hi + CLOSE_S)):
            return [f"{windows.recording}: a window of fold {f} from {a:.3f} to {b:.3f} s lies in no block of it"]
    return []
