"""From a stream to a grid of tokens: runs the steps of a TokenSpec, in pieces that fit in memory."""

from __future__ import annotations

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.tokenize import ops as steps
from neurofmx.tokenize.ops import BIN_STEPS, EDGE, GRID_STEPS, SAMPLE_STEPS, Bins
from neurofmx.types import Channels, Events, Intervals, Op, Recording, Samples, TokenGrid, TokenSpec

PIECE = 8_000_000  # values read at a time


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
        ConfigError: no stream or several streams have the modality, or a step does not fit the stream.
    """
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
        ops: sample steps, then one bin step, then grid steps; for Events the bin step is ``bin_counts``.
        t0_s: edge of the first bin.
        dt_s: bin width in seconds.
        n_bins: number of bins T.

    Returns:
        tokens (T, C, P) float64, 0 where unknown, and mask (T, C) bool.

    Raises:
        ConfigError: an unknown step, or steps out of order.
    """
    bins = Bins(t0_s, dt_s, n_bins)
    before, middle, after = _phases(ops, BIN_STEPS if isinstance(stream, Samples) else {"bin_counts": None})
    if isinstance(stream, Events):
        counts = steps.bin_counts(stream.times_s, stream.codes, len(stream.channels), bins)
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
        expected=f"sample steps {sorted(SAMPLE_STEPS)}, then one of {sorted(middle)}, "  # type: ignore[call-overload]
        f"then grid steps {sorted(GRID_STEPS)}",
    )


def _binned(stream: Samples, before: tuple[Op, ...], middle: Op, bins: Bins) -> tuple[np.ndarray, np.ndarray]:
    """Sample steps and the bin step over pieces of time, each read with the margin that its windows need."""
    times = stream.times()
    shape = np.shape(stream.values)
    if len(shape) > 2:
        raise ConfigError(f"samples of {stream.modality}", got=f"shape {shape}", expected="(N, C)")
    width = shape[1] if len(shape) == 2 else 1
    bounds = bins.bounds(times)
    # the farthest sample a token may look at: its window, or the neighbour that it is differenced with
    reach = max([float(v) for k, v in middle.params if k in ("window_s", "max_age_s", "max_gap_s")] + [0.0])
    margin = reach + (2 * float(np.max(np.diff(times))) if before and len(times) > 1 else 0.0)
    per_bin = max(1.0, (bounds[-1] - bounds[0]) * width / max(bins.n, 1))
    step = max(1, int(PIECE / per_bin))
    parts = []
    for lo in range(0, max(bins.n, 1), step):
        piece = Bins(bins.t0_s + lo * bins.dt_s, bins.dt_s, min(step, bins.n - lo))
        edges = [piece.t0_s - margin - bins.dt_s, piece.t0_s + piece.n * piece.dt_s + margin + bins.dt_s]
        a, b = np.searchsorted(times, edges)
        values = np.asarray(stream.values[a:b], dtype=np.float64).reshape(b - a, width)
        known = np.isfinite(values) & _in_valid(times[a:b], stream.valid)[:, None]
        values = np.where(known, values, 0.0)
        for op in before:
            values, known = SAMPLE_STEPS[op.name](values, known, times[a:b], **op.kwargs)
        parts.append(BIN_STEPS[middle.name](values, known, times[a:b], piece, stream.valid, **middle.kwargs))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


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
