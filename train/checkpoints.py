"""What is kept of a run: atomic files, loadable without running anybody's code; and the trained model that predicts.

A run's folder holds ``last.pt`` (everything needed to go on, bit for bit), ``model.pt`` (the best model) and
``run.json`` (the result, written last: where it is, the run is over).
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurofmx.config import from_plain
from neurofmx.errors import MalformedFile, NotThere
from neurofmx.model.config import HeadSpec
from neurofmx.model.network import NeuroFMX
from neurofmx.provenance import plain
from neurofmx.tokenize.windows import RecordingWindows, TaskData
from neurofmx.train.feed import Normalisation, Vocabulary, as_rows, make_batch
from neurofmx.train.recipes import Recipe
from neurofmx.types import Batch

WINDOWS = 64  # windows of one pass in prediction


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """What a trained model must remember of a task.

    Args:
        kind: ``continuous`` or ``class``.
        names: target dimensions, or classes.
        fields: modality -> P field names.
    """

    kind: str
    names: tuple[str, ...]
    fields: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model with all that it needs to read a recording and answer in the target's own units.

    Args:
        model: in evaluation mode.
        vocabulary: rows of channels and recordings.
        recipe: how it was trained.
        normalisation: statistics of its training folds.
        tasks: what its heads mean.
    """

    model: NeuroFMX
    vocabulary: Vocabulary
    recipe: Recipe
    normalisation: Normalisation
    tasks: Mapping[str, TaskInfo]

    def batch(self, task: str, windows: RecordingWindows, rows: np.ndarray) -> Batch:
        """The normalised tensors of some windows.

        Raises:
            NotThere: the model has no such task.
        """
        if task not in self.tasks:
            raise NotThere(f"task {task!r} of this model", expected=f"one of {sorted(self.tasks)}")
        info = self.tasks[task]
        data = TaskData(name=task, kind=info.kind, names=info.names, recordings=(windows,), fields=info.fields)  # type: ignore[arg-type]
        device = next(self.model.parameters()).device
        return make_batch(
            data, windows, rows, vocabulary=self.vocabulary, normalisation=self.normalisation, device=device
        )

    @torch.no_grad()
    def predict(
        self, task: str, windows: RecordingWindows, rows: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """Decodes windows.

        Args:
            task: whose head.
            windows: of a recording that the model knows.
            rows: which windows; all if None.

        Returns:
            (n, T, D) in the target's units, or (n, K) class probabilities; float32.
        """
        parts = []
        for part in _chunks(as_rows(rows, windows)):
            decoded = self.model(self.batch(task, windows, part), task).decode
            if self.tasks[task].kind == "class":
                parts.append(torch.softmax(decoded, dim=-1).cpu().numpy())
            else:
                norm = self.normalisation
                parts.append(decoded.cpu().numpy() * norm.target_std[task] + norm.target_mean[task])
        return np.concatenate(parts)

    @torch.no_grad()
    def features(
        self, task: str, windows: RecordingWindows, rows: Sequence[int] | np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """What the network's sites hold: site -> (n, T, D) float32; ``fusion`` is what the heads read."""
        held: dict[str, list[np.ndarray]] = {site: [] for site in self.model.sites()}
        for part in _chunks(as_rows(rows, windows)):
            for site, tokens in self.model.features(self.batch(task, windows, part)).items():
                held[site].append(tokens.cpu().numpy())
        return {site: np.concatenate(parts) for site, parts in held.items()}


def _chunks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[i : i + WINDOWS] for i in range(0, max(1, len(rows)), WINDOWS)]


def new_model(recipe: Recipe, data: Mapping[str, TaskData], vocabulary: Vocabulary) -> NeuroFMX:
    """A network with random weights from the recipe's seed, fit for the data."""
    fields: dict[str, int] = {}
    for task in data.values():
        fields.update({modality: len(names) for modality, names in task.fields.items()})
    heads = {name: HeadSpec(kind=task.kind, dim=len(task.names)) for name, task in data.items()}
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return NeuroFMX(
            recipe.model,
            fields=fields,
            n_channels=len(vocabulary.channels),
            heads=heads,
            n_recordings=len(vocabulary.recordings),
        )


def task_infos(data: Mapping[str, TaskData]) -> dict[str, TaskInfo]:
    """What `Trained` keeps of each task."""
    return {name: TaskInfo(kind=t.kind, names=t.names, fields=dict(t.fields)) for name, t in data.items()}


def write_atomic(path: Path, content: Mapping[str, Any]) -> None:
    """Saves a dictionary of tensors and plain values so that a kill leaves the old file or the new one, whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as handle:
        torch.save(dict(content), handle)
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)


def read_checked(path: Path) -> dict[str, Any]:
    """Loads what `write_atomic` saved; tensors and plain values only.

    Raises:
        NotThere: no such file.
        MalformedFile: not a whole checkpoint.
    """
    if not path.exists():
        raise NotThere(f"checkpoint {path}", expected="a file that training wrote")
    try:
        with zipfile.ZipFile(path) as archive:  # torch's own reader meets garbage with errors of any kind
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"part {damaged} has another checksum than was written")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).split("\n")[0]
        raise MalformedFile(f"checkpoint {path}", got=reason, fix="Delete it and train again.") from error


def save_trained(trained: Trained, path: Path) -> None:
    """Writes a model with its vocabulary, recipe and statistics, atomically."""
    norm = trained.normalisation
    arrays = {f"mean|{m}": a for m, a in norm.mean.items()} | {f"std|{m}": a for m, a in norm.std.items()}
    arrays |= {f"target_mean|{t}": a for t, a in norm.target_mean.items()}
    arrays |= {f"target_std|{t}": a for t, a in norm.target_std.items()}
    meta = plain({"recipe": trained.recipe, "vocabulary": trained.vocabulary, "tasks": dict(trained.tasks)})
    # the vocabulary's row maps are derived: only its fields are stored
    write_atomic(
        path,
        {
            "meta": json.dumps(meta),
            "model": trained.model.state_dict(),
            "arrays": {key: torch.from_numpy(array) for key, array in (arrays | {"seen|": norm.seen}).items()},
        },
    )


def load_trained(path: Path) -> Trained:
    """Reads a trained model back.

    Args:
        path: a ``model.pt``, or the run's folder that holds one.

    Raises:
        NotThere: no such file.
        MalformedFile: not a whole checkpoint.
    """
    content = read_checked(path / "model.pt" if path.is_dir() else path)
    meta = json.loads(content["meta"])
    recipe = from_plain(Recipe, meta["recipe"])
    vocabulary = from_plain(Vocabulary, meta["vocabulary"])
    tasks = {name: from_plain(TaskInfo, info) for name, info in meta["tasks"].items()}
    kept: dict[str, dict[str, np.ndarray]] = {"mean": {}, "std": {}, "target_mean": {}, "target_std": {}, "seen": {}}
    for key, tensor in content["arrays"].items():
        kind, _, name = key.partition("|")
        kept[kind][name] = tensor.numpy()
    empty = {
        name: TaskData(name=name, kind=info.kind, names=info.names, recordings=(), fields=info.fields)  # type: ignore[arg-type]
        for name, info in tasks.items()
    }
    model = new_model(recipe, empty, vocabulary)
    model.load_state_dict(content["model"])
    seen = kept.pop("seen")[""]
    return Trained(
        model=model.eval(),
        vocabulary=vocabulary,
        recipe=recipe,
        normalisation=Normalisation(seen=seen, **kept),
        tasks=tasks,
    )
