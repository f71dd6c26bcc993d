"""What changed between two snapshots: recordings, tokens and scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from neurofmx import parts, snapshots

if TYPE_CHECKING:
    from neurofmx.lake import Lake


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that is not the same in both.

    Args:
        kind: what it is.
        name: recording id, key of the tokens, or task, predictor and metric of a score.
        change: ``added``, ``changed`` or ``withdrawn``.
        before: digest or value in the first snapshot, None where it is not there.
        after: the same in the second.
    """

    kind: Literal["recording", "tokens", "score"]
    name: str
    change: Literal["added", "changed", "withdrawn"]
    before: Any = None
    after: Any = None


def diff(lake: Lake, a: str, b: str) -> list[Change]:
    """What changed from snapshot ``a`` to snapshot ``b``.

    Args:
        lake: holds both.
        a: name, digest or first digits of one.
        b: the same of the other.

    Returns:
        Recordings, tokens, then scores, each sorted by name; scores only where both snapshots keep a catalog
        (`compares_scores`).

    Raises:
        NotThere, Newer, LakeCorrupt: as `snapshots.find`.
    """
    one, other = snapshots.find(lake, a), snapshots.find(lake, b)
    found = _changes("recording", _digests(one.recordings), _digests(other.recordings))
    found += _changes("tokens", _digests(one.tokens), _digests(other.tokens))
    if compares_scores(one, other):
        found += _changes("score", _scores(lake, one), _scores(lake, other))
    return found


def compares_scores(one: snapshots.Manifest, other: snapshots.Manifest) -> bool:
    """Whether both snapshots keep the catalog of their time; those of schema 1 do not."""
    return bool(one.catalog and other.catalog)


def _changes(kind: Literal["recording", "tokens", "score"], one: dict[str, Any], other: dict[str, Any]) -> list[Change]:
    found = []
    for name in sorted(one.keys() | other.keys()):
        before, after = one.get(name), other.get(name)
        if before != after:
            change = "added" if before is None else "withdrawn" if after is None else "changed"
            found.append(Change(kind=kind, name=name, change=change, before=before, after=after))
    return found


def _digests(rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: row["digest"] for name, row in rows.items()}


def _scores(lake: Lake, manifest: snapshots.Manifest) -> dict[str, float | str]:
    columns = ["task", "predictor", "metric", "seed", "value"]
    rows = parts.read(lake, "scores", columns, frozen=manifest.catalog.get("scores", ())).to_pylist()
    return {f"{r['task']} by {r['predictor']}, {r['metric']}, seed {r['seed']}": _value(r["value"]) for r in rows}


def _value(value: float | None) -> float | str:
    """A number that equals itself, also where none came out."""
    return "none" if value is None or value != value else value
