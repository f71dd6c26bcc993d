"""fMRI of a BIDS run, with nibabel: voxels as channels, volumes as samples."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import spans
from neurofmx.ingest.formats.bids_files import Run, metadata, number
from neurofmx.types import Channels, Samples, Stream

_IN_S = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


def streams(run: Run, notes: list[str]) -> dict[str, Stream]:
    """The voxels of the dataset's own mask, or all that vary.

    Time 0 is the start of the first volume. Neither slice timing nor the haemodynamic delay is corrected: whether
    a dataset's events have the delay in them is for the analysis to find out.

    Args:
        run: the run, with its masks.
        notes: takes one sentence for each thing that was decided.

    Raises:
        MalformedFile: no 4-D image, no repetition time, or nothing in it varies.
    """
    image = _load(run, run.primary)
    if len(image.shape) != 4:
        raise MalformedFile(run.primary, got=f"shape {image.shape}", expected="four dimensions, the last one time")
    data = np.asanyarray(image.dataobj)
    inside = _mask(run, image, data, notes)
    voxels = np.argwhere(inside)
    if not len(voxels):
        raise MalformedFile(run.primary, got="no voxel that varies", expected="an image with signal")
    values = np.ascontiguousarray(data[inside].T).astype(np.float32)
    about = metadata(run, "bold")
    notes.append("not shifted by the haemodynamic delay; whether the events have it in them is not stated")
    if about.get("SliceTiming"):
        notes.append("SliceTiming is stated and not corrected: a volume's time is its start")
    where = voxels @ image.affine[:3, :3].T + image.affine[:3, 3]
    channels = Channels(ids=tuple("_".join(map(str, v)) for v in voxels.tolist()), positions_um=where * 1e3)
    known = spans.finite_rows(values)
    common: dict[str, Any] = {"values": values, "unit": "a.u.", "channels": channels, "modality": "fmri"}
    if about.get("VolumeTiming"):
        times = np.asarray(about["VolumeTiming"], np.float64)
        if len(times) != len(values):
            raise MalformedFile(
                f"VolumeTiming of {run.primary}", got=f"{len(times)} times", expected=f"{len(values)}, one a volume"
            )
        return {"fmri": Samples(**common, times_s=times, valid=spans.stamped(times, known))}
    rate = 1.0 / _repetition_s(about, image, run, notes)
    n = len(values)
    valid = spans.whole(n, rate) if known.all() else spans.stamped(np.arange(n) / rate, known)
    return {"fmri": Samples(**common, rate_hz=rate, valid=valid)}


def _load(run: Run, name: str) -> Any:
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        image: Any = nibabel.load(run.root / name)
        np.asanyarray(image.dataobj[..., :1] if len(image.shape) == 4 else image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError) as error:
        raise MalformedFile(name, got=f"{type(error).__name__}: {error}", expected="a NIfTI image") from error
    return image


def _repetition_s(about: dict[str, Any], image: Any, run: Run, notes: list[str]) -> float:
    stated = number(about, "RepetitionTime", f"the sidecar of {run.primary}")
    header = float(image.header.get_zooms()[3]) * _IN_S.get(image.header.get_xyzt_units()[1], 0.0)
    if stated and header and abs(stated - header) > 1e-3 * stated:
        notes.append(f"RepetitionTime is {stated:g} s in the sidecar, {header:g} s in the image: the sidecar's is kept")
    if not stated and header:
        notes.append(f"no RepetitionTime in the sidecars: {header:g} s of the image taken")
    found = stated or header
    if found <= 0:
        raise MalformedFile(f"RepetitionTime of {run.primary}", got=f"{found:g}", expected="more than 0 s")
    return found


def _mask(run: Run, image: Any, data: np.ndarray, notes: list[str]) -> np.ndarray:
    """(X, Y, Z) bool: the first mask on the run's own grid, a brain mask before others."""
    names = [*run.beside("mask", ".nii.gz"), *run.beside("mask", ".nii")]
    for name in sorted(names, key=lambda n: "desc-brain" not in n):
        mask = _load(run, name)
        if mask.shape[:3] == image.shape[:3] and np.allclose(mask.affine, image.affine, atol=1e-3):
            inside = np.asanyarray(mask.dataobj).reshape(image.shape[:3]) > 0
            notes.append(f"voxels: the {int(inside.sum())} inside {name}")
            return inside
        notes.append(f"voxels: {name} lies on another grid, not used")
    with np.errstate(invalid="ignore"):
        inside = (data.max(axis=3) > data.min(axis=3)) & np.isfinite(data).any(axis=3)
    notes.append(f"voxels: no mask, the {int(inside.sum())} of {inside.size} that vary")
    return inside
