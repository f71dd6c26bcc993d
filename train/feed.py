"""Task data -> batches: the channel vocabulary, statistics of the training folds, an order that is a pure function.

Which windows make batch number n, what is hidden from it, and what dropout draws are functions of (seed, n) alone,
so the cursor of a run is one integer and resuming is exact. Legend: B batch, T time, C channels, P fields, D target.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from neurofmx.errors import ConfigError, Leakage
from neurofmx.tokenize.windows import SHARED, RecordingWindows, TaskData
from neurofmx.train.recipes import FeedConfig
from neurofmx.types import Batch, RecordingId, Target, Tokens


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Rows of channels and of recordings.

    Args:
        channels: keys ``owner|modality|id`` in order of row; the owner is the recording, or its dataset
            (``archive:dataset@version``) where the modality's name ends with `SHARED`.
        recordings: recording ids, in order of row.
    """

    channels: tuple[str, ...]
    recordings: tuple[str, ...]

    @cached_property
    def _row(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.channels)}

    @cached_property
    def _recording(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.recordings)}

    def key(self, recording: str, modality: str, channel: str) -> str:
        """The key of one channel.

        Raises:
            ConfigError: the modality is shared and the recording's id, which names its dataset, is not an id.
        """
        owner = RecordingId.parse(recording).source if modality.endswith(SHARED) else recording
        return f"{owner}|{modality}|{channel}"

    def rows(self, recording: str, modality: str, channels: Iterable[str]) -> np.ndarray:
        """(C,) int64 rows of a recording's channels.

        Raises:
            ConfigError: a channel that the model has never met.
        """
        keys = [self.key(recording, modality, channel) for channel in channels]
        unknown = [key for key in keys if key not in self._row]
        if unknown:
            raise ConfigError(
                f"channels of {recording}",
                got=f"{len(unknown)} that the model has never met, such as {unknown[0]}",
                expected="channels of its vocabulary",
                fix="Give the recording vectors of its own with train.adapt.",
            )
        return np.array([self._row[key] for key in keys], dtype=np.int64)

    def recording_row(self, recording: str) -> int:
        """Row of a recording.

        Raises:
            ConfigError: the model has never met it.
        """
        if recording not in self._recording:
            raise ConfigError("recording", got=recording, expected="one of the model's vocabulary", fix="Adapt first.")
        return self._recording[recording]

    def extended(self, data: Iterable[TaskData]) -> Vocabulary:
        """The same rows, with those of more data after them."""
        channels, recordings = dict.fromkeys(self.channels), dict.fromkeys(self.recordings)
        for task in data:
            for windows in task.recordings:
                recordings.setdefault(windows.recording)
                for modality, ids in windows.channels.items():
                    channels.update(dict.fromkeys(self.key(windows.recording, modality, i) for i in ids))
        return replace(self, channels=tuple(channels), recordings=tuple(recordings))


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Means and standard deviations, of training folds only.

    Args:
        mean: modality -> (V, P) float32 over real bins of each vocabulary row.
        std: modality -> (V, P) float32; a tenth of the modality's median at least, 1 where nothing varies.
        seen: (V,) bool, rows that training data fill.
        target_mean: task -> (D,), empty for classes.
        target_std: task -> (D,), 1 where a dimension does not vary.
    """

    mean: dict[str, np.ndarray]
    std: dict[str, np.ndarray]
    seen: np.ndarray
    target_mean: dict[str, np.ndarray]
    target_std: dict[str, np.ndarray]


def n_folds(data: Mapping[str, TaskData]) -> int:
    """Number of folds that the windows speak of."""
    return 1 + max((int(w.fold.max()) for task in data.values() for w in task.recordings if len(w.fold)), default=-1)


def validation_fold(data: Mapping[str, TaskData], fold: int | None) -> int:
    """The first fold after the held-out one that holds windows (groups by hash may leave a fold empty).

    Args:
        data: task -> windows.
        fold: the held-out fold, None if all may be trained on.

    Raises:
        ConfigError: no second fold holds windows.
    """
    used = {int(f) for task in data.values() for w in task.recordings for f in np.unique(w.fold) if f >= 0}
    total, held = n_folds(data), -1 if fold is None else fold
    for step in range(1, total + 1):
        candidate = (held + step) % total
        if candidate != held and candidate in used:
            return candidate
    raise ConfigError("folds", got=f"windows in {sorted(used)} only", expected="a fold for validation", fix="Use more.")


def split(windows: RecordingWindows, *, fold: int | None, valid: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of training and of validation windows; guard windows and the held-out fold are in neither.

    Raises:
        Leakage: a resampling unit has windows on both sides.
    """
    rows = np.flatnonzero((windows.fold >= 0) & (windows.fold != (-1 if fold is None else fold)))
    chosen = windows.fold[rows] == valid
    both = set(windows.unit[rows[chosen]]) & set(windows.unit[rows[~chosen]])
    if both:
        raise Leakage(f"units of {windows.recording}", got=sorted(map(str, both))[:3], expected="one fold a unit")
    return rows[~chosen], rows[chosen]


def fit_normalisation(
    data: Mapping[str, TaskData], vocabulary: Vocabulary, train_rows: Mapping[tuple[str, int], np.ndarray]
) -> Normalisation:
    """Means and deviations over the given windows, float64 inside.

    Args:
        data: task -> windows.
        vocabulary: rows of channels.
        train_rows: (task, number of the recording in it) -> rows of training windows.
    """
    size = len(vocabulary.channels)
    widths = {m: len(names) for task in data.values() for m, names in task.fields.items()}
    count = {m: np.zeros(size) for m in widths}
    first = {m: np.zeros((size, p)) for m, p in widths.items()}
    second = {m: np.zeros((size, p)) for m, p in widths.items()}
    target_mean, target_std = {}, {}
    for name, task in data.items():
        known = []
        for number, windows in enumerate(task.recordings):
            chosen = train_rows[name, number]
            for modality, values in windows.values.items():
                rows = vocabulary.rows(windows.recording, modality, windows.channels[modality])
                for part in np.array_split(chosen, max(1, len(chosen) // 64)):  # float64 copies stay small
                    mask = windows.mask[modality][part]
                    real = np.where(mask[..., None], values[part], 0).astype(np.float64)
                    np.add.at(count[modality], rows, mask.sum((0, 1)))
                    np.add.at(first[modality], rows, real.sum((0, 1)))
                    np.add.at(second[modality], rows, np.square(real).sum((0, 1)))
            if task.kind == "continuous":
                known.append(np.asarray(windows.target[chosen], dtype=np.float64)[windows.target_mask[chosen]])
        if task.kind == "continuous":
            joined = np.concatenate(known)
            if not len(joined):
                raise ConfigError(f"task {name}", got="no training bin with a known target", expected="at least one")
            deviation = joined.std(0)
            target_mean[name] = joined.mean(0).astype(np.float32)
            target_std[name] = np.where(deviation > 1e-9, deviation, 1).astype(np.float32)
    mean, std, seen = {}, {}, np.zeros(size, dtype=bool)
    for modality in widths:
        filled = count[modality] > 0
        n = np.maximum(count[modality], 1)[:, None]
        centre = first[modality] / n
        spread = np.sqrt(np.maximum(second[modality] / n - np.square(centre), 0))
        varies = spread > 1e-6 * (1e-6 + np.abs(centre))
        # a channel that hardly ever changes would otherwise enter hundreds of deviations high
        floor = [0.1 * np.median(s[v]) if v.any() else 1.0 for s, v in zip(spread.T, varies.T)]
        mean[modality] = centre.astype(np.float32)
        std[modality] = np.where(varies, np.maximum(spread, floor), 1).astype(np.float32)
        seen |= filled
    return Normalisation(mean=mean, std=std, seen=seen, target_mean=target_mean, target_std=target_std)


def make_batch(
    task: TaskData,
    windows: RecordingWindows,
    chosen: np.ndarray,
    *,
    vocabulary: Vocabulary,
    normalisation: Normalisation,
    device: torch.device | str = "cpu",
) -> Batch:
    """Normalised tensors of some windows of one recording; the channel rows are one row, expanded.

    Args:
        task: whose targets go along.
        windows: one of the task's recordings (or another with the same modalities).
        chosen: rows of windows.
        vocabulary: rows of channels.
        normalisation: of the training folds.
        device: where the tensors go.

    Raises:
        ConfigError: a channel that no training data filled: its statistics and vector mean nothing.
    """
    streams, steps = {}, 0
    for modality, values in windows.values.items():
        rows = vocabulary.rows(windows.recording, modality, windows.channels[modality])
        if not normalisation.seen[rows].all():
            raise ConfigError(
                f"{modality} of {windows.recording}",
                got=f"{int((~normalisation.seen[rows]).sum())} channels without training data",
                expected="channels that training filled",
                fix="Adapt the model to this recording (train.adapt), or share its channels over the dataset.",
            )
        mask = windows.mask[modality][chosen]
        scaled = (values[chosen] - normalisation.mean[modality][rows]) / normalisation.std[modality][rows]
        steps = mask.shape[1]
        time_s = windows.start_s[chosen, None] + (np.arange(steps) + 0.5) * windows.dt_s
        streams[modality] = Tokens(
            values=torch.from_numpy(np.where(mask[..., None], scaled, np.float32(0))).to(device),
            time_s=torch.from_numpy(time_s).to(device),
            dt_s=windows.dt_s,
            mask=torch.from_numpy(np.ascontiguousarray(mask)).to(device),
            channel=torch.from_numpy(rows).to(device).expand(len(chosen), -1),
        )
    known = windows.target_mask[chosen]
    if task.kind == "continuous":
        scaled = (windows.target[chosen] - normalisation.target_mean[task.name]) / normalisation.target_std[task.name]
        target = np.where(known[..., None], scaled, 0).astype(np.float32)
    else:
        target = np.where(known, windows.target[chosen], 0).astype(np.int64)
    return Batch(
        streams=streams,
        targets={
            task.name: Target(
                values=torch.from_numpy(target).to(device),
                mask=torch.from_numpy(np.ascontiguousarray(known)).to(device),
                kind=task.kind,
                names=task.names,
            )
        },
        recording=torch.full((len(chosen),), vocabulary.recording_row(windows.recording), device=device),
    )


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Training and validation windows of several tasks and recordings, in batches of one task and recording.

    Args:
        data: task -> windows.
        vocabulary: rows of channels and recordings.
        normalisation: of the training folds.
        train_rows: (task, number of the recording) -> rows of training windows.
        valid_rows: the same, of validation windows.
        config: batch size and augmentation.
        seed: of the order.
    """

    data: Mapping[str, TaskData]
    vocabulary: Vocabulary
    normalisation: Normalisation
    train_rows: Mapping[tuple[str, int], np.ndarray]
    valid_rows: Mapping[tuple[str, int], np.ndarray]
    config: FeedConfig
    seed: int

    def order(self, epoch: int) -> list[tuple[str, int, np.ndarray]]:
        """The batches of one epoch: (task, number of the recording, rows), a function of seed and epoch alone."""
        random = np.random.default_rng([self.seed, epoch])
        batches = []
        for (name, number), rows in self.train_rows.items():
            if not len(rows):
                continue
            shuffled = random.permutation(rows)
            count = -(-len(rows) // self._batch(name, number))
            batches += [(name, number, part) for part in np.array_split(shuffled, count)]
        return [batches[i] for i in random.permutation(len(batches))]

    def batches(self, start: int) -> Iterator[tuple[str, int, np.ndarray]]:
        """Batches for ever, from batch number ``start`` on: the cursor of a run is that number."""
        per_epoch = len(self.order(0))
        epoch, skip = divmod(start, per_epoch)
        while True:
            yield from self.order(epoch)[skip:]
            epoch, skip = epoch + 1, 0

    def validation(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """The validation windows once, in order, in batches."""
        for (name, number), rows in self.valid_rows.items():
            if len(rows):
                size = 4 * self._batch(name, number)
                yield from ((name, number, rows[i : i + size]) for i in range(0, len(rows), size))

    def batch(self, name: str, number: int, rows: np.ndarray, device: torch.device | str = "cpu") -> Batch:
        """The tensors of one entry of `order`."""
        task = self.data[name]
        return make_batch(
            task,
            task.recordings[number],
            rows,
            vocabulary=self.vocabulary,
            normalisation=self.normalisation,
            device=device,
        )

    def _batch(self, name: str, number: int) -> int:
        steps = next(iter(self.data[name].recordings[number].mask.values())).shape[1]
        return max(1, self.config.bins // steps)


def make_feed(
    data: Mapping[str, TaskData],
    *,
    fold: int | None,
    config: FeedConfig,
    seed: int,
    vocabulary: Vocabulary | None = None,
) -> Feed:
    """Splits, builds the vocabulary and fits the statistics on the training folds.

    Args:
        data: task -> windows; keys are the tasks' names.
        fold: the fold that is held out, None for none.
        config: batch size and augmentation.
        seed: of the order.
        vocabulary: one whose rows come first, for adaptation.

    Raises:
        ConfigError: no training window, no validation window, or a key that is not its task's name.
        Leakage: a unit in two folds.
    """
    wrong = [key for key, task in data.items() if key != task.name]
    if wrong:
        raise ConfigError("task data", got=f"key {wrong[0]!r} for task {data[wrong[0]].name!r}", expected="its name")
    valid = validation_fold(data, fold)
    train_rows, valid_rows = {}, {}
    for name, task in data.items():
        for number, windows in enumerate(task.recordings):
            train_rows[name, number], valid_rows[name, number] = split(windows, fold=fold, valid=valid)
    if not any(len(rows) for rows in train_rows.values()):
        raise ConfigError("training windows", got="none", expected=f"some outside folds {fold} and {valid}")
    base = vocabulary or Vocabulary(channels=(), recordings=())
    extended = base.extended(data.values())
    normalisation = fit_normalisation(data, extended, train_rows)
    for (name, number), rows in valid_rows.items():
        windows = data[name].recordings[number]
        seen = all(
            normalisation.seen[extended.rows(windows.recording, m, ids)].all() for m, ids in windows.channels.items()
        )
        valid_rows[name, number] = rows if seen else rows[:0]  # a recording never trained on cannot tell when to stop
    if not any(len(rows) for rows in valid_rows.values()):
        raise ConfigError(
            "validation windows",
            got=f"none in fold {valid} whose channels training filled",
            expected="some",
            fix="Split inside recordings, share channels over the dataset, or train elsewhere and adapt.",
        )
    return Feed(
        data=data,
        vocabulary=extended,
        normalisation=normalisation,
        train_rows=train_rows,
        valid_rows=valid_rows,
        config=config,
        seed=seed,
    )


def hidden(batch: Batch, config: FeedConfig, random: torch.Generator) -> tuple[Batch, dict[str, torch.Tensor]]:
    """Hides channels and bins from the network, for augmentation and for reconstruction.

    Args:
        batch: what is real.
        config: how much.
        random: draws on the CPU, so that every device sees the same.

    Returns:
        The batch with smaller masks, and modality -> (B, T, C) bool, what was real and is now hidden.
    """
    streams, gone = {}, {}
    for modality, tokens in batch.streams.items():
        b, t, c = tokens.mask.shape
        share = torch.rand(b, 1, 1, generator=random) * config.unit_dropout
        drop = torch.rand(b, 1, c, generator=random) < share
        drop = drop | (torch.rand(b, t, 1, generator=random) < config.time_dropout)
        drop = drop.to(tokens.mask.device)
        streams[modality] = replace(tokens, mask=tokens.mask & ~drop)
        gone[modality] = tokens.mask & drop
    return replace(batch, streams=streams), gone


def as_rows(rows: Sequence[int] | np.ndarray | None, windows: RecordingWindows) -> np.ndarray:
    """Rows as int64, all windows if None."""
    return np.arange(len(windows.fold)) if rows is None else np.asarray(rows, dtype=np.int64)
