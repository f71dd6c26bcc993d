"""What the sites of a task's networks hold on windows that those networks never trained on, as rows of plain arrays.

Each network (one a fold) reads the windows of its own held-out fold, once; its twin with the weights it began with
reads the same. Legend: N rows, T bins, D features, K target columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from neurofmx.tokenize.windows import RecordingWindows, TaskData
from neurofmx.train.checkpoints import Trained, new_model

MAX_ROWS = 2000  # rows of every analysis of features
MAX_BINS = 20_000  # bins that pass through a network to get them
GROUPS = 5  # of resampling units that probes hold out in turn, inside one network's rows


@dataclass(frozen=True, kw_only=True)
class Part:
    """The windows of one recording that one network held out.

    Args:
        fold: of the network.
        windows: all windows of the recording.
        rows: which of them, in time order.
    """

    fold: int
    windows: RecordingWindows
    rows: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Features and targets of the same rows: scored bins of a continuous task, windows of a task of classes.

    Rows are in time order inside each recording.

    Args:
        features: site -> (N, D) float32 of the trained networks; of classes the mean over a window's real bins.
        untrained: site -> (N, D) float32 of the same networks before training.
        y: (N, K) float64 in the target's units, or (N,) int64 class rows.
        unit: (N,) str, resampling unit.
        session: (N,) str, recording.
        fold: (N,) str, group that probes hold out together, nested in ``model``.
        model: (N,) int, fold of the network.
        ordered: whether surrogates must keep the order of the rows.
        chosen: how rows were chosen, in one sentence.
    """

    features: Mapping[str, np.ndarray]
    untrained: Mapping[str, np.ndarray]
    y: np.ndarray
    unit: np.ndarray
    session: np.ndarray
    fold: np.ndarray
    model: np.ndarray
    ordered: bool
    chosen: str


def held_out(data: TaskData, trained: Mapping[int, Trained]) -> tuple[list[Part], int]:
    """The parts that networks can read, and how many they cannot: recordings whose channels training never filled."""
    parts, closed = [], 0
    for fold, network in sorted(trained.items()):
        for windows in data.recordings:
            known = windows.target_mask if windows.target_mask.ndim == 1 else windows.target_mask.any(1)
            rows = np.flatnonzero((windows.fold == fold) & known)
            if len(rows) and readable(network, windows):
                parts.append(Part(fold=fold, windows=windows, rows=rows))
            elif len(rows):
                closed += 1
    return parts, closed


def readable(network: Trained, windows: RecordingWindows) -> bool:
    """Whether a network knows a recording and has statistics of all its channels."""
    words = network.vocabulary
    keys = {m: [words.key(windows.recording, m, c) for c in ids] for m, ids in windows.channels.items()}
    if windows.recording not in words.recordings or not set().union(*keys.values()) <= set(words.channels):
        return False
    return all(network.normalisation.seen[words.rows(windows.recording, m, windows.channels[m])].all() for m in keys)


def fewer_windows(
    parts: list[Part], most_bins: int, rng: np.random.Generator, *, trials: bool, least: int = 0
) -> list[Part]:
    """Parts with about ``most_bins`` bins in all, or ``least`` windows if those are more, spread over every recording.

    Every n-th window from a drawn one on where rows are a time series, so that it stays evenly spaced; windows drawn
    without replacement where they are trials, so that no design of alternating trials is missed.
    """
    total = sum(len(p.rows) for p in parts)
    bins = max((next(iter(p.windows.mask.values())).shape[1] for p in parts), default=1)
    most = max(len(parts), least, most_bins // bins)
    if total <= most:
        return parts
    step = -(-total // most)
    phase, found = int(rng.integers(step)), []
    for part in parts:
        size = len(part.rows)
        if trials:
            rows = np.sort(rng.choice(part.rows, size=max(1, size * most // total), replace=False))
        else:
            rows = part.rows[phase % min(step, size) :: step]
        found.append(replace(part, rows=rows))
    return found


def initial(network: Trained) -> Trained:
    """The same network with the weights it began with, and no linear path: what training added is the difference."""
    empty = {
        name: TaskData(name=name, kind=info.kind, names=info.names, recordings=(), fields=info.fields)  # type: ignore[arg-type]
        for name, info in network.tasks.items()
    }
    return replace(network, model=new_model(network.recipe, empty, network.vocabulary).eval())


def capture(data: TaskData, trained: Mapping[int, Trained], parts: list[Part], *, seed: int) -> Activations:
    """Reads every site of every network once.

    Args:
        data: the task.
        trained: fold -> the network that held it out.
        parts: what to read; not empty.
        seed: of the choice of windows and bins where there are more than `MAX_BINS` and `MAX_ROWS`.
    """
    rng = np.random.default_rng([seed, 0])
    trials = data.kind == "class"
    chosen = fewer_windows(parts, MAX_BINS, rng, trials=trials)
    before = {fold: initial(network) for fold, network in trained.items()}
    blocks = []
    for part in chosen:
        pair = tuple(n[part.fold].features(data.name, part.windows, part.rows) for n in (trained, before))
        blocks.append(_rows(part, pair, trials=trials))
    labels = {key: np.concatenate([b[key] for b in blocks]) for key in ("y", "unit", "session", "model", "time_s")}
    order = np.lexsort((labels["time_s"], labels["session"]))
    step = -(-len(order) // MAX_ROWS)
    kept = order[int(rng.integers(step)) :: step] if not trials else order[_drawn(len(order), rng)]
    labels = {key: array[kept] for key, array in labels.items()}
    sites = blocks[0]["sites"]
    whole = sum(int(p.windows.target_mask[p.rows].sum()) for p in parts)
    return Activations(
        features={s: np.concatenate([b["sites"][s] for b in blocks])[kept] for s in sites},
        untrained={s: np.concatenate([b["before"][s] for b in blocks])[kept] for s in sites},
        y=labels["y"],
        unit=labels["unit"],
        session=labels["session"],
        fold=probe_folds(labels["model"], labels["unit"]),
        model=labels["model"],
        ordered=not trials or in_runs(labels["y"], labels["session"]),
        chosen=f"{len(kept)} of {whole} held-out {'windows' if trials else 'bins'}, "
        f"{'drawn by seed' if trials else 'evenly spaced from a drawn one on'}",
    )


def probe_folds(model: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """(N,) groups for cross-validation inside each network: its units dealt in turn to at most 5.

    A network with one unit has its rows cut into 4 stretches, which touch: probe and null share what that leaks.
    """
    fold = np.zeros(len(model), dtype="<U24")
    for m in np.unique(model):
        own = np.flatnonzero(model == m)
        _, first, at = np.unique(unit[own], return_index=True, return_inverse=True)
        if len(first) > 1:
            group = np.argsort(np.argsort(first))[at] % GROUPS
        else:
            group = np.arange(len(own)) * 4 // len(own)
        fold[own] = [f"{m}|{g}" for g in group]
    return fold


def in_runs(label: np.ndarray, session: np.ndarray) -> bool:
    """Whether classes come in runs (overlapping windows, a blocked design), so that no permutation keeps their order.

    Compares how often neighbours share a class with what permutations inside sessions give, at 3 standard deviations
    (Wald and Wolfowitz 1940, normal approximation).
    """
    same, expected, variance = 0, 0.0, 0.0
    for s in np.unique(session):
        own = label[session == s]
        n = len(own)
        if n < 2:
            continue
        count = np.unique(own, return_counts=True)[1]
        share = float((count * (count - 1)).sum() / (n * (n - 1)))
        same += int((own[1:] == own[:-1]).sum())
        expected += (n - 1) * share
        variance += (n - 1) * share * (1 - share)
    return same > expected + 3 * np.sqrt(variance)


def _drawn(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(n, size=min(n, MAX_ROWS), replace=False))


def _rows(part: Part, pair: tuple[dict[str, np.ndarray], ...], *, trials: bool) -> dict:
    """One part as rows: labels, and the features of the trained network and of its beginning."""
    windows, rows = part.windows, part.rows
    if trials:
        real = np.logical_or.reduce([mask[rows].any(-1) for mask in windows.mask.values()])
        weight = (real / np.maximum(real.sum(1, keepdims=True), 1))[..., None]
        sites = [{s: (f * weight).sum(1).astype(np.float32) for s, f in features.items()} for features in pair]
        window, time_s, y = np.arange(len(rows)), windows.start_s[rows], windows.target[rows].astype(np.int64)
    else:
        scored = windows.target_mask[rows]
        window, at = np.nonzero(scored)
        sites = [{s: f[scored] for s, f in features.items()} for features in pair]
        time_s = windows.start_s[rows][window] + (at + 0.5) * windows.dt_s
        y = windows.target[rows][scored].astype(np.float64)
    n = len(time_s)
    return {
        "sites": sites[0], "before": sites[1], "y": y, "unit": windows.unit[rows][window], "time_s": time_s,
        "session": np.full(n, windows.recording), "model": np.full(n, part.fold),
    }  # fmt: skip
