"""What a network learned on one subject is worth on another: source x target matrices, negative cells included.

A cell pretrains on the source (all its folds; one tells when to stop), then adapts to the target with few labels:
channel vectors and head learn, the core keeps every bit. It stands beside three arms that get the same labels, steps,
optimiser and seeds on the target:

- ``scratch``: a new network, everything learns. ``gain`` is the cell minus this.
- ``random_init``: a new network whose core is frozen as it began, so what freezing costs is known.
- ``shuffled``: pretraining on the source with its targets moved in time (classes: dealt anew to the trials), so what
  the source's inputs and the optimiser alone give is known.

The linear path is off in all arms. Fitted in closed form on the target, it would decode most of a linear target
without touching the core, in every arm alike, and the matrix would show how well ridge regression works.

The interval is a paired bootstrap: seeds are drawn, then resampling units inside each, and every arm is scored on the
same draw. Each seed has other labelled units, so the choice of labels is part of what varies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from neurofmx.errors import ConfigError
from neurofmx.evaluate.metrics import Metric, Rows, draws, value_of
from neurofmx.model.network import GROUPS, NeuroFMX
from neurofmx.splits import GUARD, SALT
from neurofmx.tokenize.windows import RecordingWindows, TaskData
from neurofmx.train.adapt import adapt, adaptation_id
from neurofmx.train.checkpoints import Trained, load_trained, save_trained
from neurofmx.train.loop import untrained
from neurofmx.train.recipes import Recipe

TEST, VALID, TRAIN = 0, 1, 2  # folds of a target with few labels
PROBE = ("channels", "head")
DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How few labels, how many steps.

    Args:
        shots: labelled resampling units (blocks, repetitions) of each target recording; one more tells when to stop.
        seeds: number of seeds, each with other labelled units, other weights and another order.
        pretrain_steps: most steps on the source.
        steps: most steps on the target, in every arm.
        bins: bins of a batch.
        lr: peak learning rate on the target, in every arm.
        average: decay of the moving average of weights on the target, in every arm.
    """

    shots: int
    seeds: int
    pretrain_steps: int
    steps: int
    bins: int = 128
    lr: float = 1e-2
    average: float = 0.8

    @classmethod
    def of(cls, recipe: Recipe, *, shots: int, seeds: int) -> Plan:
        """A plan of a recipe: at least 100 steps on a source and 24 on a target; more where the recipe is longer."""
        steps = recipe.optim.steps
        return cls(shots=shots, seeds=seeds, pretrain_steps=max(100, steps // 3), steps=max(24, steps // 8))

    def pretraining(self, recipe: Recipe, number: int) -> Recipe:
        """The recipe of seed ``number`` on a source."""
        optim = replace(recipe.optim, steps=self.pretrain_steps)
        return replace(recipe, seed=recipe.seed + number, optim=optim, feed=replace(recipe.feed, bins=self.bins))

    def adaptation(self, recipe: Recipe, number: int) -> Recipe:
        """The recipe of seed ``number`` on a target."""
        # a long average of so few steps would still hold much of where each arm began
        short = {"average": self.average, "warmup": min(recipe.optim.warmup, self.steps // 4)}
        optim = replace(recipe.optim, steps=self.steps, lr=self.lr, **short)
        return replace(recipe, seed=recipe.seed + number, optim=optim, feed=replace(recipe.feed, bins=self.bins))


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one arm answered on the test units of one seed.

    Args:
        rows: truth and answers.
        units: names of the units, in order of their row.
    """

    rows: Rows
    units: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """The arms of a target that no source enters, one a seed.

    Args:
        scratch: everything learns.
        random_init: the core stays as it began.
    """

    scratch: tuple[Arm, ...]
    random_init: tuple[Arm, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One source on one target.

    Args:
        value: of the adapted network, mean over seeds.
        scratch: of a new network.
        random_init: of a new network with a frozen core.
        shuffled: after pretraining on moved targets; first seed only.
        gain: value minus scratch.
        gain_ci95: its interval over seeds and units.
        n: scored bins or trials of a seed, mean over seeds.
        n_units: different units scored.
        checkpoints: ids of the pretrained networks, one a seed.
    """

    value: float
    scratch: float
    random_init: float
    shuffled: float
    gain: float
    gain_ci95: tuple[float, float]
    n: int
    n_units: int
    checkpoints: tuple[str, ...]


def few_shot(task: TaskData, *, shots: int, number: int) -> TaskData:
    """The same windows with new folds: few units to train on, one to stop by, all others to test on.

    Units of each recording are ordered by hash, and each seed begins further on, so seeds share no labelled unit
    while there are enough. Guard windows stay out.

    Args:
        task: windows whose units are whole (blocks with gaps between them, repetitions).
        shots: units to train on, a recording.
        number: of the seed.

    Raises:
        ConfigError: a recording has too few units.
    """
    return replace(task, recordings=tuple(_few_shot(w, shots, number) for w in task.recordings))


def _few_shot(windows: RecordingWindows, shots: int, number: int) -> RecordingWindows:
    used = windows.fold != GUARD
    units = sorted(set(windows.unit[used].tolist()), key=lambda u: hashlib.sha256(f"{SALT}|few|{u}".encode()).digest())
    if len(units) < shots + 2:
        raise ConfigError(
            f"units of {windows.recording}",
            got=len(units),
            expected=f"at least {shots + 2}: {shots} to train on, one to stop by, one to test on",
            fix="Ask for fewer shots, or split the recording into more blocks.",
        )
    first = (shots + 1) * number % len(units)
    turned = units[first:] + units[:first]
    fold = np.where(used, TEST, GUARD).astype(np.int8)
    fold[used & np.isin(windows.unit, turned[:shots])] = TRAIN
    fold[used & (windows.unit == turned[shots])] = VALID
    return replace(windows, fold=fold)


def moved_targets(task: TaskData, seed: int) -> TaskData:
    """The control's source: inputs as they are, continuous targets half a recording off, classes dealt anew.

    Windows keep their folds and units; a continuous target keeps its own course inside every window.
    """
    moved = []
    for number, windows in enumerate(task.recordings):
        rows = np.flatnonzero(windows.fold != GUARD)
        random = np.random.default_rng([seed, number])
        other = np.roll(rows, len(rows) // 2) if task.kind == "continuous" else random.permutation(rows)
        target, known = windows.target.copy(), windows.target_mask.copy()
        target[rows], known[rows] = windows.target[other], windows.target_mask[other]
        moved.append(replace(windows, target=target, target_mask=known))
    return replace(task, recordings=tuple(moved))


def pretrain(
    source: TaskData, recipe: Recipe, plan: Plan, *, number: int, shuffled: bool = False, out: Path | None = None
) -> tuple[Trained, str]:
    """Trains a new network on a source, every group and no linear path.

    Args:
        source: windows; all folds are used.
        recipe: sizes, objective and seed.
        plan: lengths.
        number: of the seed.
        shuffled: whether targets are moved first; the last weights are kept then, since stopping early on targets
            that cannot be learned would keep the first.
        out: folder in which finished networks are kept and found again.

    Returns:
        The network and the id under which it is kept.
    """
    with _one_thread():
        data = {source.name: moved_targets(source, recipe.seed + number) if shuffled else source}
        how = plan.pretraining(recipe, number)
        new = untrained(how, data)
        kept = adaptation_id(new, data, how, fold=None, groups=GROUPS, linear=False)
        if not shuffled:
            return adapt(new, data, how, fold=None, groups=GROUPS, linear=False, out=out), kept
        path = None if out is None else out / f"{kept}-last"
        if path is not None and (path / "model.pt").exists():
            return load_trained(path), kept
        last: list[NeuroFMX] = []
        control = adapt(
            new,
            data,
            how,
            fold=None,
            groups=GROUPS,
            linear=False,
            callbacks=[lambda report: last.__setitem__(slice(None), [report.model])],
        )
        control.model.load_state_dict(last[0].state_dict())
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
            save_trained(control, path / "model.pt")
        return control, kept


def beside(target: TaskData, recipe: Recipe, plan: Plan) -> Beside:
    """The arms of a target that no source enters."""
    with _one_thread():
        scratch, frozen = [], []
        for number in range(plan.seeds):
            how, few = plan.adaptation(recipe, number), few_shot(target, shots=plan.shots, number=number)
            new = untrained(how, {target.name: few}, fold=TEST)
            scratch.append(_answers(new, few, how, GROUPS))
            frozen.append(_answers(new, few, how, PROBE))
    return Beside(scratch=tuple(scratch), random_init=tuple(frozen))


def cell(
    source: TaskData,
    target: TaskData,
    recipe: Recipe,
    plan: Plan,
    *,
    metric: Metric,
    out: Path | None = None,
    arms: Beside | None = None,
) -> Cell:
    """One cell of a matrix.

    Args:
        source: windows of the source.
        target: windows of the target, for the same task.
        recipe: sizes, objective and seed.
        plan: labels, seeds, steps.
        metric: how the target is judged.
        out: folder of pretrained networks, where they are found if another cell has made them.
        arms: the target's other arms, if they are known already.

    Returns:
        Values, gain and its interval.

    Raises:
        ConfigError: source and target share a recording, or the target has too few units.
    """
    both = {w.recording for w in source.recordings} & {w.recording for w in target.recordings}
    if both:
        raise ConfigError("transfer", got=f"{sorted(both)[0]} on both sides", expected="another source than the target")
    arms = arms or beside(target, recipe, plan)
    found, checkpoints = [], []
    for number in range(plan.seeds):
        network, kept = pretrain(source, recipe, plan, number=number, out=out)
        checkpoints.append(kept)
        found.append(_probe(network, target, recipe, plan, number))
    control = pretrain(source, recipe, plan, number=0, shuffled=True, out=out)[0]

    def mean(group: Sequence[Arm]) -> float:
        return float(np.mean([value_of(metric, arm.rows) for arm in group]))

    return Cell(
        value=mean(found),
        scratch=mean(arms.scratch),
        random_init=mean(arms.random_init),
        shuffled=mean([_probe(control, target, recipe, plan, 0)]),
        gain=(mean(found) - mean(arms.scratch)) * (1 if metric.higher else -1),
        gain_ci95=gain_interval(found, arms.scratch, metric, seed=recipe.seed),
        n=round(float(np.mean([len(arm.rows.truth) for arm in found]))),
        n_units=len({unit for arm in found for unit in arm.units}),
        checkpoints=tuple(checkpoints),
    )


def gain_interval(arm: Sequence[Arm], other: Sequence[Arm], metric: Metric, *, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of a gain: seeds are drawn, then units inside each, the same for both arms.

    Args:
        arm: one a seed.
        other: the same seeds and units.
        metric: what is compared; the gain is positive where ``arm`` is better.
        seed: of the draws.
    """
    gains = []
    for number, (one, two) in enumerate(zip(arm, other, strict=True)):
        weights = draws(len(one.units), n=DRAWS, seed=seed + number)
        gains.append(metric.prepare(one.rows)(weights) - metric.prepare(two.rows)(weights))
    drawn = np.random.default_rng(seed).integers(len(gains), size=(len(gains), DRAWS))
    low, high = np.percentile(np.take_along_axis(np.stack(gains), drawn, axis=0).mean(0), [2.5, 97.5])
    return (float(low), float(high)) if metric.higher else (-float(high), -float(low))


def _probe(network: Trained, target: TaskData, recipe: Recipe, plan: Plan, number: int) -> Arm:
    with _one_thread():
        few = few_shot(target, shots=plan.shots, number=number)
        return _answers(network, few, plan.adaptation(recipe, number), PROBE)


def _answers(network: Trained, few: TaskData, recipe: Recipe, groups: tuple[str, ...]) -> Arm:
    """Adapts a network to few labels and asks it about the test units."""
    adapted = adapt(network, {few.name: few}, recipe, fold=TEST, groups=groups, linear=False)
    truth, guesses, units, owner = [], [], [], []
    for number, windows in enumerate(few.recordings):
        rows = np.flatnonzero(windows.fold == TEST)
        known = windows.target_mask[rows]
        truth.append(windows.target[rows][known])
        guesses.append(adapted.predict(few.name, windows, rows)[known])
        per_row = known.reshape(len(rows), -1).sum(1)
        units.append(np.repeat(windows.unit[rows], per_row))
        owner.append(np.full(int(known.sum()), number))
    names, unit = np.unique(np.concatenate(units), return_inverse=True)
    kind = np.float64 if few.kind == "continuous" else np.int64
    return Arm(
        rows=Rows(
            truth=np.concatenate(truth).astype(kind),
            predicted=np.concatenate(guesses).astype(np.float64),
            unit=unit,
            recording=np.concatenate(owner),
            n_units=len(names),
        ),
        units=tuple(names.tolist()),
    )


class _one_thread:
    """Networks this small are no faster on several threads, and other thread counts round otherwise."""

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.before)
