"""The training loop: Lightning Fabric, early stopping on the validation fold, exact resumption after any kill.

Batch, augmentation and dropout of step n are functions of (seed, n); the schedule is a function of n. So the state of
a run is the weights, their average, the optimiser's moments and n, and a resumed run gives the same bits.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from neurofmx.config import from_plain
from neurofmx.model.network import GROUPS, NeuroFMX
from neurofmx.provenance import canonical_json, digest_array, digest_of, plain
from neurofmx.tokenize.windows import TaskData
from neurofmx.train.checkpoints import Trained, new_model, read_checked, save_trained, task_infos, write_atomic
from neurofmx.train.feed import Feed, hidden, make_feed
from neurofmx.train.linear import Choice, LinearStart, linear_refit, linear_start
from neurofmx.train.objectives import TrainStep
from neurofmx.train.recipes import OptimConfig, Recipe
from neurofmx.train.settle import keep_what_validates, validation_loss

VERSION = 2  # raised by hand when the same recipe and data would give another model


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What callbacks are told after every step (and before the first, as step 0).

    Args:
        step: steps done.
        steps: most steps.
        loss: training loss of this step, NaN at step 0.
        valid: validation loss (`settle.validation_loss`) if it was evaluated at this step, else None.
        best_valid: least validation loss so far.
        model: the moving average that is evaluated; read, don't write.
    """

    step: int
    steps: int
    loss: float
    valid: float | None
    best_valid: float
    model: NeuroFMX


Callback = Callable[[StepReport], None]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run.

    Args:
        run_id: digest of recipe, data, fold and training version (16 hex digits).
        path: folder that holds ``model.pt``, ``last.pt`` and ``run.json``.
        fold: the fold held out, None for none.
        history: one row an evaluation: step, train, valid.
        steps: steps done.
        best_step: step of the model that was kept; 0 is the linear path alone.
        best_valid: its validation loss, relative to the linear path alone.
        kept: task -> share of the network's correction that its validation windows support.
        linear: task -> penalty and lags of the linear path, as chosen inside the training folds.
        seconds: wall time of this process.
    """

    run_id: str
    path: Path
    fold: int | None
    history: tuple[Mapping[str, float], ...]
    steps: int
    best_step: int
    best_valid: float
    kept: Mapping[str, float]
    linear: Mapping[str, tuple[Choice, ...]]
    seconds: float


def data_digest(data: Mapping[str, TaskData]) -> str:
    """Identity of everything that training reads from task data."""
    rows = []
    for name, task in sorted(data.items()):
        for windows in task.recordings:
            arrays = {
                **{f"values|{m}": a for m, a in windows.values.items()},
                **{f"mask|{m}": a for m, a in windows.mask.items()},
                **{k: getattr(windows, k) for k in ("start_s", "target", "target_mask", "fold", "unit")},
            }
            channels = {m: list(ids) for m, ids in windows.channels.items()}
            digests = {key: digest_array(array) for key, array in arrays.items()}
            rows.append([name, task.kind, task.names, dict(task.fields), windows.recording, channels, digests])
    return digest_of(rows)


def fit(
    recipe: Recipe,
    data: Mapping[str, TaskData],
    *,
    fold: int | None,
    out: Path,
    callbacks: Sequence[Callback] = (),
    resume: bool = True,
) -> RunResult:
    """Trains a recipe's model with one fold held out; the next fold that holds windows tells when to stop.

    The linear path is fitted in closed form, then the network learns what it leaves (see `train.linear`). At the end
    each task keeps as much of the network as its validation windows support, and as far as it does without the network
    its linear path is fitted again to training and validation windows (see `train.settle`).

    Args:
        recipe: everything but data and fold.
        data: task -> windows.
        fold: fold that is not touched, None to train on all.
        out: where the run's folder is made.
        callbacks: called after every step.
        resume: go on from ``last.pt``, or return the finished result, where there is one; False starts anew.

    Raises:
        ConfigError: nothing to train or to validate on.
        Leakage: a resampling unit in two folds.
        MalformedFile: a checkpoint of this run is damaged.
    """
    began = time.monotonic()
    run_id = _run_id(recipe, data, fold)
    path = Path(out) / run_id
    path.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in ("run.json", "last.pt", "linear.pt", "model.pt"):
            (path / name).unlink(missing_ok=True)
    if (path / "run.json").exists():
        return _read_result(path)
    feed = make_feed(data, fold=fold, config=recipe.feed, seed=recipe.seed)
    start = stored_start(path, feed, recipe)
    model = new_model(recipe, data, feed.vocabulary)
    set_linear(model, start)
    done = optimise(model, feed, start, recipe, groups=GROUPS, path=path, callbacks=callbacks)
    kept = keep_what_validates(model.cpu(), feed)
    set_linear(model, linear_refit(feed, recipe.linear, recipe.model.lags, start, kept))
    save_trained(trained_of(model, feed, recipe, data), path / "model.pt")
    result = RunResult(
        run_id=run_id, path=path, fold=fold, kept=kept, linear=start.chosen, seconds=time.monotonic() - began, **done
    )
    _write_result(result)
    return result


def finished(recipe: Recipe, data: Mapping[str, TaskData], fold: int | None, out: Path) -> RunResult | None:
    """The result of a run that is over, or None where there is none yet."""
    path = Path(out) / _run_id(recipe, data, fold)
    return _read_result(path) if (path / "run.json").exists() else None


def _run_id(recipe: Recipe, data: Mapping[str, TaskData], fold: int | None) -> str:
    return digest_of([VERSION, recipe, data_digest(data), fold])[:16]


def untrained(recipe: Recipe, data: Mapping[str, TaskData], *, fold: int | None = None) -> Trained:
    """The same network with random weights and an empty linear path: the control that shows what training adds.

    Args:
        recipe: its model sizes and seed.
        data: task -> windows, for the vocabulary and the statistics of the training folds.
        fold: fold that the statistics leave out.
    """
    feed = make_feed(data, fold=fold, config=recipe.feed, seed=recipe.seed)
    return trained_of(new_model(recipe, data, feed.vocabulary), feed, recipe, data)


def trained_of(model: NeuroFMX, feed: Feed, recipe: Recipe, data: Mapping[str, TaskData]) -> Trained:
    """A model in evaluation mode with the statistics that it was fed with."""
    return Trained(
        model=model.cpu().eval(),
        vocabulary=feed.vocabulary,
        recipe=recipe,
        normalisation=feed.normalisation,
        tasks=task_infos(data),
    )


def set_linear(model: NeuroFMX, start: LinearStart) -> None:
    """Writes the closed-form fit into the model's linear paths."""
    for task, row in model.rows_of_tasks.items():
        if task in start.weight:
            model.linear[row].weight.copy_(torch.from_numpy(start.weight[task]))  # type: ignore[union-attr,operator]
            model.linear[row].bias.copy_(torch.from_numpy(start.bias[task]))  # type: ignore[union-attr,operator]


def optimise(
    model: NeuroFMX,
    feed: Feed,
    start: LinearStart,
    recipe: Recipe,
    *,
    groups: Sequence[str],
    path: Path | None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Trains some parameter groups of a model in place, leaving the best average of its weights in it.

    Args:
        model: with its linear path set.
        feed: batches.
        start: predictions of the linear path for training windows.
        recipe: optimiser, objective, stopping, seed.
        groups: which of ``GROUPS`` learn; the others keep every bit.
        path: folder of ``last.pt``, from which it goes on; None keeps nothing.
        callbacks: called after every step.

    Returns:
        history, steps, best_step and best_valid of a `RunResult`.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    learning = [p for name in groups for p in model.group(name)]
    for parameter in learning:
        parameter.requires_grad_(True)
    fabric = Fabric(accelerator="cuda" if torch.cuda.is_available() else "cpu", devices=1)
    step_module, optimiser = fabric.setup(
        TrainStep(model, recipe.objective), _optimiser(learning, recipe.optim), move_to_device=True
    )
    average = deepcopy(model).eval()
    slow = [mine for mine, theirs in zip(average.parameters(), model.parameters()) if theirs.requires_grad]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    state: dict[str, Any] = {
        "step": 0,
        "best_step": 0,
        "best_valid": math.inf,
        "mark": math.inf,
        "stale": 0,
        "history": "[]",
        "losses": "[]",
    }
    best = deepcopy(average.state_dict())
    if path is not None and (path / "last.pt").exists():
        kept = read_checked(path / "last.pt")
        model.load_state_dict(kept["model"])
        average.load_state_dict(kept["average"])
        optimiser.load_state_dict(kept["optimiser"])
        best, state = kept["best"], kept["state"]
    steps, every = recipe.optim.steps * len(feed.data), recipe.stop.every * len(feed.data)
    history: list[dict[str, float]] = json.loads(state["history"])
    losses: list[float] = json.loads(state["losses"])
    batches = feed.batches(state["step"])

    def evaluate() -> float:
        valid = validation_loss(average, feed, fabric.device)
        state["stale"] += 1
        if valid < state["mark"] - recipe.stop.least:
            state.update(mark=valid, stale=0)
        if valid < state["best_valid"]:
            state.update(best_step=state["step"], best_valid=valid)
            best.update({key: value.detach().clone() for key, value in average.state_dict().items()})
        train = float(np.mean(losses)) if losses else math.nan
        history.append({"step": state["step"], "train": train, "valid": valid})
        losses.clear()
        return valid

    def report(loss: float, valid: float | None) -> None:
        for callback in callbacks:
            callback(
                StepReport(
                    step=state["step"],
                    steps=steps,
                    loss=loss,
                    valid=valid,
                    best_valid=state["best_valid"],
                    model=average,
                )
            )

    if not history:
        report(math.nan, evaluate())
    with torch.random.fork_rng():
        while state["step"] < steps and state["stale"] < recipe.stop.patience:
            rate = learning_rate(state["step"], steps, recipe.optim)
            loss = _one_step(step_module, optimiser, fabric, feed, start, recipe, next(batches), state["step"], rate)
            state["step"] += 1
            losses.append(loss)
            with torch.no_grad():
                torch._foreach_lerp_(slow, learning, 1 - recipe.optim.average)
            valid = evaluate() if state["step"] % every == 0 else None
            if path is not None and state["step"] % recipe.stop.save_every == 0:
                state.update(history=json.dumps(history), losses=json.dumps(losses))
                write_atomic(
                    path / "last.pt",
                    {
                        "model": model.state_dict(),
                        "average": average.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "best": best,
                        "state": state,
                    },
                )
            report(loss, valid)
    model.load_state_dict(best)
    done = {key: state[key] for key in ("best_step", "best_valid")}
    return {**done, "steps": state["step"], "history": tuple(history)}


def _one_step(
    module: Any,
    optimiser: Any,
    fabric: Fabric,
    feed: Feed,
    start: LinearStart,
    recipe: Recipe,
    entry: tuple[str, int, np.ndarray],
    step: int,
    rate: float,
) -> float:
    name, number, rows = entry
    seed = int(np.random.SeedSequence([recipe.seed, step]).generate_state(1)[0])
    torch.manual_seed(seed)
    for group in optimiser.param_groups:
        group["lr"] = rate
    whole = feed.batch(name, number, rows, fabric.device)
    shown, gone = hidden(whole, recipe.feed, torch.Generator().manual_seed(seed))
    offset = torch.from_numpy(start.offset[name, number][rows]).to(fabric.device)
    module.train()
    optimiser.zero_grad(set_to_none=True)
    loss = module(whole, shown, gone, name, offset)
    fabric.backward(loss)
    fabric.clip_gradients(module, optimiser, max_norm=recipe.optim.clip)
    optimiser.step()
    return float(loss.detach())


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Linear warm-up, then a cosine to a hundredth of the peak at the last of ``steps``."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, steps - config.warmup)
    return config.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def _optimiser(learning: Sequence[torch.nn.Parameter], config: OptimConfig) -> torch.optim.AdamW:
    matrices = [p for p in learning if p.dim() > 1]
    vectors = [p for p in learning if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=(0.9, 0.99), fused=True)


def stored_start(path: Path | None, feed: Feed, recipe: Recipe) -> LinearStart:
    """The linear start of a run, computed once: a resumed run must not depend on how BLAS rounds today.

    Args:
        path: folder of ``linear.pt``; None keeps nothing.
        feed: training windows.
        recipe: penalties, rank and lags.
    """
    if path is None:
        return linear_start(feed, recipe.linear, recipe.model.lags)
    if (path / "linear.pt").exists():
        kept = read_checked(path / "linear.pt")
        return LinearStart(
            weight={k: v.numpy() for k, v in kept["weight"].items()},
            bias={k: v.numpy() for k, v in kept["bias"].items()},
            offset={(t, int(n)): v.numpy() for t, n, v in kept["offset"]},
            chosen=_choices(kept["chosen"]),
        )
    start = linear_start(feed, recipe.linear, recipe.model.lags)
    write_atomic(
        path / "linear.pt",
        {
            "weight": {k: torch.from_numpy(v) for k, v in start.weight.items()},
            "bias": {k: torch.from_numpy(v) for k, v in start.bias.items()},
            "offset": [(t, n, torch.from_numpy(v)) for (t, n), v in start.offset.items()],
            "chosen": plain(dict(start.chosen)),
        },
    )
    return start


def _choices(stored: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, tuple[Choice, ...]]:
    return {task: tuple(from_plain(Choice, row) for row in rows) for task, rows in stored.items()}


def _write_result(result: RunResult) -> None:
    fields = {k: v for k, v in vars(result).items() if k != "path"}
    partial = result.path / f".run.json.{os.getpid()}"
    partial.write_text(canonical_json(fields))
    partial.replace(result.path / "run.json")


def _read_result(path: Path) -> RunResult:
    fields = json.loads((path / "run.json").read_text())
    fields["history"] = tuple(
        {**row, "train": float(row["train"]), "valid": float(row["valid"])} for row in fields["history"]
    )
    fields["linear"] = _choices(fields["linear"])
    return RunResult(**{**fields, "path": path, "best_valid": float(fields["best_valid"])})
