"""Which source and which tile the n-th window is: pure functions of (seed, n), in exact integer arithmetic.

Sources follow a Weyl sequence (H. Weyl, Math. Ann. 77, 1916): multiples of the golden ratio modulo one, the sequence
of smallest discrepancy in one dimension, so every stretch of windows holds each source's share to within a few
windows. Within a source, windows visit its tiles in rounds, each round in an order of its own: a Feistel network on
the tile's number, walked until it lands inside (J. Black, P. Rogaway, CT-RSA 2002), needs no table of the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neurofmx.errors import ConfigError

_TURN = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15  # odd, nearest to 2**64 / golden ratio
_ROUNDS = 4


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """Where a loader stands: everything before it was delivered, on whatever number of ranks.

    Args:
        seed: of the order.
        epoch: whole epochs delivered.
        position: windows of this epoch delivered, over all ranks.
        refused: recordings found damaged so far; their windows are drawn elsewhere from here on.
        order: digest of the order that it counts in, checked when it is resumed; empty for any.
    """

    seed: int
    epoch: int = 0
    position: int = 0
    refused: tuple[str, ...] = ()
    order: str = ""


def mixed(*words: int | np.ndarray) -> np.ndarray:
    """Hashes whole numbers, broadcast against each other, to uniform uint64 (finaliser of splitmix64, Steele 2014)."""
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            own = np.asarray(word % _TURN, np.uint64) if isinstance(word, int) else np.asarray(word).astype(np.uint64)
            state = (state ^ own) + np.uint64(_GOLDEN)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def unit(words: np.ndarray) -> np.ndarray:
    """uint64 -> float64 in [0, 1), by the upper 53 bits."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class Shares:
    """The order in which sources take turns.

    Args:
        edges: cumulative shares of 2**64, one a source; the last is 2**64.
        seed: shifts the sequence.
    """

    edges: tuple[int, ...]
    seed: int

    @classmethod
    def of(cls, weights: Sequence[float], seed: int) -> Shares:
        """Shares in proportion to positive weights.

        Raises:
            ConfigError: a weight that is not positive and finite.
        """
        if not weights or not all(0 < w < np.inf for w in weights):
            raise ConfigError("weights of sources", got=str(list(weights)), expected="positive, finite numbers")
        sums = np.cumsum(np.asarray(weights, np.float64))
        edges = [int(float(s / sums[-1]) * _TURN) for s in sums[:-1]]
        return cls((*edges, _TURN), seed)

    @property
    def _start(self) -> int:
        return int(mixed(self.seed, 1))

    def sources(self, lo: int, hi: int) -> np.ndarray:
        """(hi - lo,) source of each window number in [lo, hi)."""
        if len(self.edges) == 1:
            return np.zeros(hi - lo, np.int64)
        first = np.uint64((lo * _GOLDEN + self._start) % _TURN)
        with np.errstate(over="ignore"):
            at = first + np.arange(hi - lo, dtype=np.uint64) * np.uint64(_GOLDEN)
        return np.searchsorted(np.array(self.edges[:-1], np.uint64), at, side="right")

    def counts(self, n: int) -> np.ndarray:
        """(S,) how many of the window numbers below ``n`` each source has, without visiting them."""
        below = [0, *(self._below(n, edge) for edge in self.edges[:-1]), n]
        return np.diff(np.array(below, np.int64))

    def _below(self, n: int, edge: int) -> int:
        """Window numbers under ``n`` whose point is under ``edge``."""
        shifted = _floor_sum(n, _TURN, _GOLDEN, self._start + _TURN - edge)
        return _floor_sum(n, _TURN, _GOLDEN, self._start) - shifted + n


def _floor_sum(n: int, m: int, a: int, b: int) -> int:
    """Sum of floor((a i + b) / m) for i in [0, n), by Euclid's steps."""
    total = 0
    while n:
        total += (n - 1) * n // 2 * (a // m) + n * (b // m)
        a, b = a % m, b % m
        top = a * n + b
        n, b, m, a = top // m, top % m, a, m
    return total


def permuted(numbers: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """Where each number goes in a shuffled order of ``range(size)``; numbers of one key share one order.

    Args:
        numbers: (N,) in [0, size).
        size: number of tiles.
        keys: (N,) uint64, one order a key.

    Returns:
        (N,) int64 in [0, size), distinct for distinct numbers of one key.
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    low, bits = np.uint64((1 << half) - 1), np.uint64(half)
    at, out = np.asarray(numbers).astype(np.uint64), np.empty(len(numbers), np.int64)
    left, rounds = np.arange(len(at)), [mixed(keys, step) for step in range(_ROUNDS)]
    while len(left):
        a, b = at >> bits, at & low
        for own in rounds:
            a, b = b, a ^ (mixed(own[left] ^ b) & low)
        at = (a << bits) | b
        inside = at < np.uint64(size)
        out[left[inside]] = at[inside]
        left, at = left[~inside], at[~inside]
    return out
