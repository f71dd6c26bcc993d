"""From a stream to a grid of tokens: runs the steps of a TokenSpec, in pieces that fit in memory."""

from __future__ import annotations

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.tokenize.ops import BIN_STEPS, GRID_STEPS, SAMPLE_STEPS
from neurofmx.tokenize.resample import EDGE, Bins, bin_counts, reach_s
from neurofmx.types import Channels, Events, Intervals, Op, Recording, Samples, TokenGrid, TokenSpec

PIECE = 8_000_000  # values read at a time
LAG = "lag"  # an op before all others: what is measured now was caused lag_s seconds ago
AHEAD = ("nearest", "linear", "cubic")  # bin steps that look beyond their bin


def tokenize(
    recording: Recording, spec: TokenSpec, *, bin_s: float | None = None, stream: str | None = None
) -> TokenGrid:
    """Turns one stream of a recording into tokens on bins that start with the recording.

    Args:
        recording: one recording on its session clock.
        spec: row of ``tokenize.catalog``.
        bin_s: bin width in seconds instead of the spec's own, so that modalities can share bins.
        stream: name of the stream, needed where several have the spec's modality.

    Returns:
        (T, C, P) float32 tokens with their mask; bins begin at ``recording.domain_s[0]`` and lie wholly in it.

    Raises:
        ConfigError: no stream or several streams have the modality, a step does not fit the stream, or the spec is
            stated to be causal and one of its steps looks ahead.
    """
    if spec.causal and looks_ahead(spec.ops):
        raise ConfigError(
            f"token spec {spec.name!r}", got=f"causal, with {looks_ahead(spec.ops)}",
            expected="steps that look at nothing after their bin", fix="State causal=False.",
        )  # fmt: skip
    source = recording.stream(stream or stream_of(recording, spec))
    if isinstance(source, Intervals):
        raise ConfigError(f"stream {stream!r} of {recording.id}", got="Intervals", expected="Events or Samples")
    dt_s = bin_s or spec.bin_s or _own_step(source, spec)
    start, stop = recording.domain_s
    n_bins = max(0, int(np.floor((stop - start) / dt_s + EDGE)))
    values, mask = grid_values(source, spec.ops, t0_s=start, dt_s=dt_s, n_bins=n_bins)
    if values.shape[2] != len(spec.fields):
        raise ConfigError(f"fields of token spec {spec.name!r}", got=values.shape[2], expected=str(len(spec.fields)))
    same = values.shape[1] == len(source.channels)
    return TokenGrid(
        values=values.astype(np.float32),
        mask=mask,
        t0_s=start,
        dt_s=dt_s,
        channels=source.channels if same else Channels(ids=tuple(f"{spec.name}{i}" for i in range(values.shape[1]))),
        fields=spec.fields,
    )


def looks_ahead(ops: tuple[Op, ...]) -> str:
    """The step by which a token sees what comes after its bin, in words; empty when there is none."""
    for op in ops:
        params = op.kwargs
        centred = op.name in ("band_power", "smooth") and not params.get("causal", op.name == "band_power")
        if op.name in AHEAD or centred or (op.name == LAG and params["lag_s"] > 0):
            return f"{op.name} {params}"
    return ""


def stream_of(recording: Recording, spec: TokenSpec) -> str:
    """The name of the one stream with the spec's modality.

    Raises:
        ConfigError: there is none, or there are several.
    """
    names = [n for n, s in recording.streams.items() if s.modality == spec.modality and not isinstance(s, Intervals)]
    if len(names) != 1:
        raise ConfigError(
            f"streams of modality {spec.modality!r} in {recording.id}",
            got=str(names) if names else f"none; there are {sorted({s.modality for s in recording.streams.values()})}",
            expected="one",
            fix="Name the stream." if names else "Choose a spec for a modality that is there.",
        )
    return names[0]


def grid_values(
    stream: Events | Samples, ops: tuple[Op, ...], *, t0_s: float, dt_s: float, n_bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Runs steps on a stream.

    Args:
        stream: Events or Samples.
        ops: perhaps ``lag``, then sample steps, then one bin step, then grid steps; for Events the bin step is
            ``bin_counts``. With a lag bin i holds what was measured ``lag_s`` seconds after it.
        t0_s: edge of the first bin.
        dt_s: bin width in seconds.
        n_bins: number of bins T.

    Returns:
        tokens (T, C, P) float64, 0 where unknown, and mask (T, C) bool.

    Raises:
        ConfigError: an unknown step, or steps out of order.
    """
    lag_s = 0.0
    if ops and ops[0].name == LAG:
        lag_s, ops = float(ops[0].kwargs["lag_s"]), ops[1:]
    bins = Bins(t0_s + lag_s, dt_s, n_bins)
    before, middle, after = _phases(ops, BIN_STEPS if isinstance(stream, Samples) else {"bin_counts": None})
    if isinstance(stream, Events):
        counts = bin_counts(stream.times_s, stream.codes, len(stream.channels), bins)
        mask = np.repeat(bins.covered(stream.valid)[:, None], counts.shape[1], axis=1)
        tokens = np.where(mask, counts, 0.0)[..., None]
    else:
        tokens, mask = _binned(stream, before, middle, bins)
    for op in after:
        tokens, mask = GRID_STEPS[op.name](tokens, mask, dt_s, **op.kwargs)
    return tokens, mask


def _phases(ops: tuple[Op, ...], middle: object) -> tuple[tuple[Op, ...], Op, tuple[Op, ...]]:
    """Sample steps, the bin step, grid steps."""
    at = [i for i, op in enumerate(ops) if op.name in middle]  # type: ignore[operator]
    if len(at) == 1:
        before, after = ops[: at[0]], ops[at[0] + 1 :]
        if all(op.name in SAMPLE_STEPS for op in before) and all(op.name in GRID_STEPS for op in after):
            return before, ops[at[0]], after
    raise ConfigError(
        "steps of a tokenizer",
        got=" -> ".join(op.name for op in ops),
        expected=f"{LAG} or none, sample steps {sorted(SAMPLE_STEPS)}, then one of {sorted(middle)}, "  # type: ignore[call-overload]
        f"then grid steps {sorted(GRID_STEPS)}",
    )


def _binned(stream: Samples, before: tuple[Op, ...], middle: Op, bins: Bins) -> tuple[np.ndarray, np.ndarray]:
    """Sample steps and the bin step over pieces of time, each read with the margin that its windows need."""
    shape = np.shape(stream.values)
    if len(shape) > 2:
        raise ConfigError(f"samples of {stream.modality}", got=f"shape {shape}", expected="(N, C)")
    width = shape[1] if len(shape) == 2 else 1
    lo, hi = _rows(stream, bins.t0_s, bins.t0_s + bins.n * bins.dt_s)
    # the farthest sample a token may look at: its window, or the neighbour that it is differenced with
    margin = reach_s(middle.name, middle.kwargs, bins.dt_s) + (2 * _longest_step(stream) if before else 0.0)
    per_bin = max(1.0, (hi - lo) * width / max(bins.n, 1))
    step = max(1, int(PIECE / per_bin))
    parts = []
    for first in range(0, max(bins.n, 1), step):
        piece = Bins(bins.t0_s + first * bins.dt_s, bins.dt_s, min(step, bins.n - first))
        a, b = _rows(stream, piece.t0_s - margin - bins.dt_s, piece.t0_s + piece.n * piece.dt_s + margin + bins.dt_s)
        times = _times(stream, a, b)
        values = np.asarray(stream.values[a:b], dtype=np.float64).reshape(b - a, width)
        known = np.isfinite(values) & _in_valid(times, stream.valid)[:, None]
        values = np.where(known, values, 0.0)
        for op in before:
            values, known = SAMPLE_STEPS[op.name](values, known, times, **op.kwargs)
        parts.append(BIN_STEPS[middle.name](values, known, times, piece, stream.valid, **middle.kwargs))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _rows(stream: Samples, start_s: float, stop_s: float) -> tuple[int, int]:
    """The first sample at or after each of two times, found without a time for every sample where there is a rate."""
    if stream.times_s is not None:
        lo, hi = np.searchsorted(stream.times_s, [start_s, stop_s])
        return int(lo), int(hi)
    n, rate = len(stream.values), float(stream.rate_hz or 1.0)
    found = []
    for wanted in (start_s, stop_s):
        near = int(np.clip(np.floor((wanted - stream.t0_s) * rate), 0, n))
        a, b = max(near - 2, 0), min(near + 3, n)  # rounding moves the exact row by one at most
        found.append(a + int(np.searchsorted(_times(stream, a, b), wanted)))
    return found[0], found[1]


def _times(stream: Samples, lo: int, hi: int) -> np.ndarray:
    """(hi - lo,) seconds of some samples, the same to the bit as those of `Samples.times`."""
    if stream.times_s is not None:
        return np.asarray(stream.times_s[lo:hi])
    return stream.t0_s + np.arange(lo, hi, dtype=np.float64) / float(stream.rate_hz or 1.0)


def _longest_step(stream: Samples) -> float:
    if stream.times_s is None:
        return 1.0 / float(stream.rate_hz or 1.0)
    return float(np.max(np.diff(stream.times_s), initial=0.0))


def _in_valid(times: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(N,) bool: the sample lies in valid time; the end of an interval counts, since readers close on a sample."""
    spans = np.asarray(valid).reshape(-1, 2)
    at = np.searchsorted(spans[:, 0], times + 1e-9, side="right") - 1
    return (at >= 0) & (times <= (spans[np.maximum(at, 0), 1] if len(spans) else 0.0) + 1e-9)


def _own_step(source: Events | Samples, spec: TokenSpec) -> float:
    if isinstance(source, Samples):
        if source.rate_hz is not None:
            return 1.0 / source.rate_hz
        times = source.times()
        if len(times) > 1:
            return float(np.median(np.diff(times)))
    raise ConfigError(f"bin width of token spec {spec.name!r}", got=0, expected="seconds, or a stream with a rate")
