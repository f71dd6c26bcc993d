"""Task data as one file: what a training process on this machine or another needs, without a lake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.provenance import plain
from neurofmx.tokenize.windows import RecordingWindows, TaskData

SCHEMA = 1
_ARRAYS = ("start_s", "target", "target_mask", "fold", "unit")


def pack(path: Path, data: Mapping[str, TaskData]) -> None:
    """Writes task data to a ``.npz`` of arrays and one JSON header; windows of two tasks are kept twice.

    Args:
        path: the file, replaced if it is there.
        data: task -> windows.
    """
    arrays: dict[str, np.ndarray] = {}
    header = []
    for task in data.values():
        rows = []
        for number, windows in enumerate(task.recordings):
            at = f"{len(header)}/{number}"
            arrays |= {f"{at}/{name}": getattr(windows, name) for name in _ARRAYS}
            arrays |= {f"{at}/values/{m}": a for m, a in windows.values.items()}
            arrays |= {f"{at}/mask/{m}": a for m, a in windows.mask.items()}
            rows.append({"recording": windows.recording, "dt_s": windows.dt_s, "channels": dict(windows.channels)})
        header.append(
            {"name": task.name, "kind": task.kind, "names": task.names, "fields": dict(task.fields), "recordings": rows}
        )
    text = json.dumps(plain({"schema": SCHEMA, "tasks": header}))
    with path.open("wb") as handle:
        np.savez(handle, header=np.array(text), **arrays)  # type: ignore[arg-type]


def unpack(path: Path) -> dict[str, TaskData]:
    """Reads what `pack` wrote, bit for bit.

    Raises:
        MalformedFile: not such a file, or of another schema.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            header = json.loads(str(stored["header"]))
            arrays = {name: stored[name] for name in stored.files if name != "header"}
    except (OSError, ValueError, KeyError) as error:
        raise MalformedFile(f"packed task data {path}", got=str(error), expected="a file that pack wrote") from error
    if header.get("schema") != SCHEMA:
        raise MalformedFile(f"packed task data {path}", got=f"schema {header.get('schema')}", expected=str(SCHEMA))
    found = {}
    for row, task in enumerate(header["tasks"]):
        recordings = tuple(_windows(f"{row}/{n}", one, arrays) for n, one in enumerate(task["recordings"]))
        found[task["name"]] = TaskData(
            name=task["name"],
            kind=task["kind"],
            names=tuple(task["names"]),
            recordings=recordings,
            fields={m: tuple(names) for m, names in task["fields"].items()},
        )
    return found


def _windows(at: str, about: dict, arrays: Mapping[str, np.ndarray]) -> RecordingWindows:
    modalities = list(about["channels"])
    return RecordingWindows(
        recording=about["recording"],
        dt_s=about["dt_s"],
        channels={m: tuple(ids) for m, ids in about["channels"].items()},
        values={m: arrays[f"{at}/values/{m}"] for m in modalities},
        mask={m: arrays[f"{at}/mask/{m}"] for m in modalities},
        **{name: arrays[f"{at}/{name}"] for name in _ARRAYS},
    )
