"""Splits that never move: folds of groups by hash, folds of contiguous blocks inside a recording.

Both are pure functions of names and a stored salt, so a new recording changes no old row.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from neurofmx.errors import ConfigError, Leakage

SALT = "neurofmx-splits-1"
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
    ordered = sorted((b for b in blocks if b.fold != GUARD), key=lambda b: b.start_s)
    for a, b in zip(ordered, ordered[1:]):
        if b.start_s < a.stop_s and a.fold != b.fold:
            raise Leakage(
                f"split of {what}",
                got=f"fold {a.fold} until {a.stop_s:.3f} s and fold {b.fold} from {b.start_s:.3f} s",
                expected="no overlap between folds",
            )
