"""The behaviour of an IBL session: trials, wheel, licks and what the cameras saw."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import spans
from neurofmx.ingest.formats.alf_files import Attribute, Objects, column, load, times
from neurofmx.types import Channels, Events, Intervals, Samples, Stream

RIM_CM = 3.1  # radius of the wheel of the standard rig
_ENCODER_COUNTS = (1024, 2048, 4096)  # a 1024-line encoder, read at one, two or four edges a line
_STARTS = ("intervals_0", "goCue_times", "stimOn_times")
_STOPS = ("intervals_1", "feedback_times", "response_times")


def trials(root: Path, found: Objects, collection: str, notes: list[str]) -> dict[str, Stream]:
    """All columns of the trials table and of the arrays beside it; a trial lasts from intervals_0 to intervals_1.

    Args:
        root: folder of the files.
        found: the session's ALF objects.
        collection: folder that holds the trials.
        notes: takes one sentence for each thing that was decided.

    Raises:
        MalformedFile: columns of different lengths, or no time at which a trial starts.
    """
    where = f"trials of {collection or 'alf'}"
    columns = _columns(root, found[collection, "trials"], notes)
    lengths = Counter(map(len, columns.values()))
    if len(lengths) != 1:
        raise MalformedFile(where, got=f"columns of {sorted(lengths)} rows", expected="one row a trial")
    start, stop = (next((name for name in names if name in columns), None) for names in (_STARTS, _STOPS))
    if start is None:
        raise MalformedFile(where, got=f"columns {', '.join(columns)}", expected=f"one of {', '.join(_STARTS)}")
    if (start, stop) != (_STARTS[0], _STOPS[0]):
        notes.append(f"trials: from {start} to {stop or start}, the table has no intervals")
    begin = np.asarray(columns[start], np.float64)
    end = np.asarray(columns[stop or start], np.float64)
    keep = np.flatnonzero(np.isfinite(begin))
    if len(keep) < len(begin):
        notes.append(f"trials: {len(begin) - len(keep)} of {len(begin)} left out, {start} unknown")
    keep = keep[np.argsort(begin[keep], kind="stable")]
    open_ended = ~np.isfinite(end[keep])
    if open_ended.any():
        notes.append(f"trials: {int(open_ended.sum())} have no end, stop is start")
    begin, end = begin[keep], np.where(open_ended, begin[keep], end[keep])
    rest = {name: values[keep] for name, values in columns.items() if name not in (_STARTS[0], _STOPS[0])}
    valid = np.array([[begin.min(), max(begin.max(), end.max())]]) if len(begin) else np.empty((0, 2))
    return {"trials": Intervals(start_s=begin, stop_s=end, columns=rest, modality="trials", valid=valid)}


def _columns(root: Path, own: dict[str, Attribute], notes: list[str]) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    if "table" in own:
        frame = load(root, own["table"])
        columns |= {str(name): column(frame[name]) for name in frame.columns}
    for name, attribute in own.items():
        if name == "table":
            continue
        if attribute.extension != "npy":
            notes.append(f"trials.{name} left out: a {attribute.extension} file beside the table")
            continue
        values = np.asarray(load(root, attribute))
        if values.ndim == 2 and values.shape[1] > 1:
            columns |= {f"{name}_{i}": values[:, i] for i in range(values.shape[1])}
        else:
            columns[name] = column(values.reshape(len(values)))
    return columns


def wheel(root: Path, found: Objects, collection: str, notes: list[str]) -> dict[str, Stream]:
    """The wheel's position at the times at which it moved; arguments as `trials`.

    Raises:
        MalformedFile: positions without times, or not one each.
    """
    own = found[collection, "wheel"]
    if "position" not in own:
        return _lacking("wheel", own, "position", notes)
    position = np.asarray(load(root, own["position"]), np.float64).reshape(-1)
    at = times(root, own, len(position), f"wheel of {collection or 'alf'}")
    notes.append("wheel: one sample a step of the encoder; a pause between samples is rest, no gap")
    return {
        "wheel": Samples(
            values=position,
            unit=wheel_unit(position, notes),
            channels=Channels(ids=("wheel",)),
            modality="wheel",
            valid=spans.stamped(at, np.isfinite(position), gap_s=np.inf),
            times_s=at,
        )
    }


def wheel_unit(position: np.ndarray, notes: list[str]) -> str:
    """Radians or centimetres of the rim, by the smallest step that the encoder can make.

    A turn has 1024, 2048 or 4096 steps, so a step is ``2 pi / counts`` rad, or that times 3.1 in the old ALF.

    Args:
        position: (N,) wheel position.
        notes: takes what was decided and why.
    """
    steps = np.abs(np.diff(position[np.isfinite(position)]))
    steps = steps[steps > 1e-9]
    step = float(np.median(steps[steps < 1.5 * steps.min()])) if steps.size else 0.0
    for unit, radius in (("rad", 1.0), ("cm", RIM_CM)):
        for counts in _ENCODER_COUNTS:
            if abs(step * counts / (2 * np.pi * radius) - 1) < 0.01:
                whose = "as ALF states today" if unit == "rad" else "of rim, the old ALF unit; 1/3.1 gives radians"
                notes.append(f"wheel: unit by its step {step:.6g} = 2 pi {radius:g} / {counts}: {unit} {whose}")
                return unit
    notes.append(f"wheel: step {step:.6g} is no encoder's step; taken as radians, as ALF states today")
    return "rad"


def wheel_moves(root: Path, found: Objects, collection: str, notes: list[str]) -> dict[str, Stream]:
    """Movements that were found in the wheel's trace; arguments as `trials`.

    Raises:
        MalformedFile: attributes of different lengths.
    """
    own = found[collection, "wheelMoves"]
    if "intervals" not in own:
        return _lacking("wheelMoves", own, "intervals", notes)
    intervals = np.asarray(load(root, own["intervals"]), np.float64).reshape(-1, 2)
    columns = {name: column(load(root, a)) for name, a in own.items() if name != "intervals" and a.extension == "npy"}
    if any(len(values) != len(intervals) for values in columns.values()):
        raise MalformedFile(own["intervals"].path, got=f"{len(intervals)} rows", expected="as many as its attributes")
    valid = np.array([[intervals.min(), intervals.max()]]) if len(intervals) else np.empty((0, 2))
    return {
        "wheel_moves": Intervals(
            start_s=intervals[:, 0], stop_s=intervals[:, 1], columns=columns, modality="epochs", valid=valid
        )
    }


def licks(root: Path, found: Objects, collection: str, notes: list[str]) -> dict[str, Stream]:
    """The times at which the tongue touched; arguments as `trials`."""
    own = found[collection, "licks"]
    if "times" not in own:
        return _lacking("licks", own, "times", notes)
    at = np.asarray(load(root, own["times"]), np.float64).reshape(-1)
    if np.any(np.diff(at) < 0):
        notes.append("licks: put in order of time")
    return {"licks": _moments(np.sort(at), "lick", "licks")}


def _camera(root: Path, found: Objects, collection: str, notes: list[str], *, view: str) -> dict[str, Stream]:
    """Points of a tracked animal in px, their likelihood, and the motion energy, at the times of the frames."""
    own = found[collection, f"{view}Camera"]
    if "times" not in own:
        return _lacking(f"{view}Camera", own, "times", notes)
    at = np.asarray(load(root, own["times"]), np.float64).reshape(-1)
    streams: dict[str, Stream] = {}
    pose = next((own[name] for name in ("lightningPose", "dlc") if name in own), None)
    if pose is not None:
        frame = load(root, pose)
        for name, ends, unit in ((f"pose_{view}", ("_x", "_y"), "px"), (f"pose_{view}_likelihood", "_likelihood", "1")):
            columns = [str(c) for c in frame.columns if str(c).endswith(ends)]
            modality = "pose" if unit == "px" else "pose_likelihood"
            values = frame[columns].to_numpy(np.float32)
            streams[name] = _frames(values, columns, name, modality, unit, at, notes)
    if "ROIMotionEnergy" in own:
        name = f"motion_energy_{view}"
        energy = np.asarray(load(root, own["ROIMotionEnergy"]), np.float32).reshape(-1)
        streams[name] = _frames(energy, [name], name, "motion_energy", "a.u.", at, notes)
    return streams or {f"frames_{view}": _moments(at, f"{view}Camera", "frames")}


left_camera = partial(_camera, view="left")
right_camera = partial(_camera, view="right")
body_camera = partial(_camera, view="body")


def _lacking(kind: str, own: dict[str, Attribute], what: str, notes: list[str]) -> dict[str, Stream]:
    notes.append(f"incomplete: {kind} holds {', '.join(own)} and no {what}")
    return {}


def _moments(at: np.ndarray, channel: str, modality: str) -> Events:
    valid = np.array([[at[0], at[-1]]]) if len(at) else np.empty((0, 2))
    return Events(
        times_s=at, codes=np.zeros(len(at), np.int32), channels=Channels(ids=(channel,)), modality=modality, valid=valid
    )


def _frames(
    values: np.ndarray, ids: list[str], stream: str, modality: str, unit: str, at: np.ndarray, notes: list[str]
) -> Samples:
    """Values of video frames; where the two files differ in length, the frames that both have."""
    n = min(len(values), len(at))
    if len(values) != len(at):
        notes.append(f"{stream}: {len(values)} rows, {len(at)} frame times: the first {n} of both taken")
    return Samples(
        values=values[:n],
        unit=unit,
        channels=Channels(ids=tuple(ids)),
        modality=modality,
        valid=spans.stamped(at[:n], spans.finite_rows(values[:n])),
        times_s=at[:n],
    )
