"""From one recording and the name of a target to a task: what is read, on which bins, in which folds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.evaluate.spec import Chosen, TaskSpec
from neurofmx.tokenize.catalog import specs_for
from neurofmx.tokenize.targets import TargetSpec
from neurofmx.types import Events, Intervals, Op, Recording, Samples, TokenSpec

NEURAL = ("spikes", "calcium", "lfp", "ecog", "eeg", "photometry", "fnirs", "fmri", "emg")
# what people decode, the likeliest first; anything else that is no recorded signal of the body comes after
WANTED = ("position", "behaviour", "force", "running", "wheel", "head_direction", "pupil", "gaze", "spectrogram")
MOST_BINS = 15_000
MOST_CLASSES, LEAST_TRIALS = 12, 5
WINDOW_BINS, BLOCKS, FOLDS = 40, 10, 5
BINS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SHORTEST_S, LONGEST_S = 0.2, 2.0  # of a trial's window


def decode_task(recording: Recording, target: str | None) -> TaskSpec:
    """The task that ``neurofmx decode`` makes for a recording.

    Args:
        recording: an open recording.
        target: a stream, or ``intervals.column``; None takes the first of `choices`.

    Raises:
        ConfigError: no such target, or no neural stream to read it from; the message names the choices.
    """
    offered = list(choices(recording))
    if target is None and not offered:
        raise ConfigError(
            f"target in {recording.id}", got=f"streams {', '.join(sorted(recording.streams))}",
            expected="a signal beside the neural ones, or trials with a column of a few classes",
        )  # fmt: skip
    chosen = target or offered[0]
    stream, _, column = chosen.partition(".")
    if chosen in recording.streams:
        stream, column = chosen, ""
    if stream not in recording.streams or (not column and isinstance(recording.streams[stream], Intervals)):
        raise ConfigError(f"target {chosen!r} of {recording.id}", expected=f"one of {', '.join(offered) or 'none'}")
    held = recording.streams[stream]
    inputs = inputs_of(recording, stream)
    if not inputs:
        raise ConfigError(
            f"inputs of {recording.id} for target {chosen!r}", got=f"streams {', '.join(sorted(recording.streams))}",
            expected=f"another stream that can be tokenized: {', '.join(NEURAL)}", fix="Choose another target.",
        )  # fmt: skip
    name = f"decode {recording.id} {chosen}"
    where = Chosen(recordings=(str(recording.id),))
    rows = {key: spec.name for key, spec in inputs.items()}
    if isinstance(held, Intervals):
        return _of_trials(recording, held, stream, column, name, where, rows, inputs, offered)
    return _of_signal(recording, held, stream, name, where, rows, inputs)


def choices(recording: Recording) -> Iterator[str]:
    """What can be decoded: signals that people decode first, then columns of trials, then other signals."""
    signals = {n: s for n, s in recording.streams.items() if not isinstance(s, Intervals) and s.modality not in NEURAL}
    yield from sorted(
        (n for n in signals if signals[n].modality in WANTED), key=lambda n: WANTED.index(signals[n].modality)
    )
    for name, stream in sorted(recording.streams.items()):
        if isinstance(stream, Intervals):
            yield from (f"{name}.{column}" for column in sorted(stream.columns) if len(classes_of(stream, column)) > 1)
    yield from sorted(n for n in signals if signals[n].modality not in WANTED)
    neural = sorted(n for n, s in recording.streams.items() if s.modality in NEURAL)
    if len(neural) > 1:
        yield from neural


def classes_of(trials: Intervals, column: str) -> tuple[str, ...]:
    """The labels of a column that enough trials have; none where there are too many to be classes."""
    values = np.asarray(trials.columns[column])
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    found, count = np.unique(values, return_counts=True)
    kept = found[count >= LEAST_TRIALS]
    if not 2 <= len(kept) <= MOST_CLASSES or count[count >= LEAST_TRIALS].sum() < 0.5 * len(values):
        return ()
    texts = [str(int(v)) if kept.dtype.kind == "f" and float(v).is_integer() else str(v) for v in kept.tolist()]
    return tuple(sorted(t for t in texts if t))


def inputs_of(recording: Recording, target: str) -> dict[str, TokenSpec]:
    """Stream -> the row of ``tokenize.catalog`` that reads it: all neural streams but the target, else all others."""
    fits: dict[str, TokenSpec] = {}
    for name, stream in sorted(recording.streams.items()):
        rows = specs_for(replace(recording, streams={name: stream})) if name != target else []
        if rows:
            fits[name] = rows[0]
    neural = {name: row for name, row in fits.items() if row.modality in NEURAL}
    return neural or fits


def _bin_s(recording: Recording, inputs: dict[str, TokenSpec], slowest_s: float = 0.0) -> float:
    """The narrowest of the usual widths that every input can fill and that leaves no more than `MOST_BINS` bins."""
    duration = recording.domain_s[1] - recording.domain_s[0]
    need = max(slowest_s, duration / MOST_BINS)
    for name, row in inputs.items():
        stream = recording.streams[name]
        own = _step_s(stream) if isinstance(stream, Samples) and row.bin_s == 0 else row.bin_s
        need = max(need, min(own, 0.25) if row.modality in ("fnirs",) else own)
    return next((width for width in BINS_S if width >= need - 1e-9), need)


def _step_s(stream: Events | Samples) -> float:
    """Seconds from one sample to the next, 0 for events."""
    if isinstance(stream, Events):
        return 0.0
    if stream.rate_hz is not None:
        return 1.0 / stream.rate_hz
    times = stream.times()
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def _of_signal(
    recording: Recording, held: Events | Samples, stream: str, name: str, where: Chosen, rows: dict[str, str],
    inputs: dict[str, TokenSpec],
) -> TaskSpec:  # fmt: skip
    # a bin must hold a sample of the target even where its clock is uneven
    bin_s = _bin_s(recording, inputs, slowest_s=2 * _step_s(held))
    valid = np.asarray(held.valid, np.float64).reshape(-1, 2)
    known_s = float(np.sum(valid[:, 1] - valid[:, 0]))
    dims, events = len(held.channels), isinstance(held, Events)
    ops = (Op("bin_counts"), Op("smooth", (("sigma_s", bin_s),))) if events else (Op("bin_mean"),)
    # blocks are apart by a window at least: two windows fit between two gaps
    bins = max(4, min(WINDOW_BINS, int(known_s / bin_s / BLOCKS / 3)))
    return TaskSpec(
        name=name,
        question=f"Do {', '.join(rows)} tell {stream}?",
        where=where,
        inputs=rows,
        bin_s=bin_s,
        target=TargetSpec(kind="continuous", stream=stream, ops=ops),
        window_s=bins * bin_s,
        n_blocks=BLOCKS,
        n_folds=FOLDS,
        metric="pearson" if events else "r2",
        baselines=("ridge", "wiener", "kalman") if dims <= 4 and not events else ("ridge", "wiener"),
        caveats=("one recording: nothing follows for another day or animal",),
    )


def _of_trials(
    recording: Recording, held: Intervals, stream: str, column: str, name: str, where: Chosen, rows: dict[str, str],
    inputs: dict[str, TokenSpec], offered: list[str],
) -> TaskSpec:  # fmt: skip
    if column not in held.columns or len(classes := classes_of(held, column)) < 2:
        raise ConfigError(
            f"target {stream}.{column} of {recording.id}",
            got=f"columns {', '.join(sorted(held.columns))}",
            expected=f"a column of 2 to {MOST_CLASSES} classes with {LEAST_TRIALS} trials each: one of "
            f"{', '.join(offered) or 'none here'}",
        )
    bin_s = _bin_s(recording, inputs)
    apart = float(np.median(np.diff(np.sort(held.start_s))))
    lasts = float(np.median(held.stop_s - held.start_s)) or apart
    # blocks are apart by a window at least: the shortest are four windows long
    span = float(np.ptp(held.start_s))
    length = min(max(lasts, SHORTEST_S), LONGEST_S, max(apart, SHORTEST_S), span / FOLDS / 4)
    window = max(1, round(length / bin_s)) * bin_s
    return TaskSpec(
        name=name,
        question=f"Do {', '.join(rows)} tell {column} of {stream}?",
        where=where,
        inputs=rows,
        bin_s=bin_s,
        target=TargetSpec(
            kind="class", stream=stream, column=column, classes=classes, duration_s=window
        ),
        n_blocks=max(FOLDS, min(BLOCKS, int(span / window / 4))),
        n_folds=FOLDS,
        metric="auroc" if len(classes) == 2 else "balanced_accuracy",
        baselines=("lda", "logistic", "lda_time"),
        caveats=("one recording: nothing follows for another day or animal",
                 "windows begin with the trials: what the label itself causes may be what is decoded"),
    )  # fmt: skip
