"""Recordings as WebDataset shards: tar files of one sample a window, the same bytes for the same lake.

Convention: https://github.com/webdataset/webdataset, files of one sample are neighbours that share the name up to
its first dot; what follows says what they are, and ``.npy`` and ``.json`` are what every reader decodes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from neurofmx.errors import ConfigError, Refused
from neurofmx.files import clear_faults
from neurofmx.frames import Frames
from neurofmx.lake import Lake
from neurofmx.provenance import canonical_json
from neurofmx.types import Events, Intervals, Recording, RecordingId, Samples

INDEX = "index.json"


def export_webdataset(
    lake: Lake, recordings: Iterable[RecordingId | str], folder: Path, window_s: float, shard_mb: float = 256.0
) -> Path:
    """Cuts recordings into windows laid end to end and packs them into tar shards.

    A sample holds ``<stream>.values.npy`` of signals (with ``<stream>.times_s.npy`` where they have no rate),
    ``<stream>.times_s.npy`` and ``<stream>.codes.npy`` of events, and a ``json`` that says which recording and which
    seconds it is, and each stream's modality, unit, channels, valid seconds and intervals. Windows begin at the
    start of a recording; what is left at its end, windows without valid time and frames of video are left out.

    Args:
        lake: holds the recordings.
        recordings: their ids; shards are in the order of the ids.
        folder: an empty or new folder.
        window_s: length of a window in seconds.
        shard_mb: a shard is closed once it holds this much.

    Returns:
        The folder: ``shard-000000.tar`` and so on, and ``index.json`` with samples, size and sha256 of each and with
        terms and citation of every recording.

    Raises:
        ConfigError: a length that is not above 0, or a folder that holds something.
        NotThere: the lake has no such recording.
        Refused: there is no window with valid time.
        NoSpace, Denied: the disk does not take the files.
    """
    ids, folder = sorted({str(rid) for rid in recordings}), Path(folder)
    if not (window_s > 0 and shard_mb > 0):
        raise ConfigError("window_s, shard_mb", got=f"{window_s:g}, {shard_mb:g}", expected="above 0")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"folder {folder}", got="files in it", expected="an empty folder", fix="Name another one.")
    shards: list[dict[str, Any]] = []
    about = []
    with clear_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
        samples = _samples_of(lake, ids, window_s, about)
        while (shard := _write_shard(folder, len(shards), samples, int(shard_mb * 1e6))) is not None:
            shards.append(shard)
        if not shards:
            raise Refused("export to webdataset", got="no window with valid time",
                          expected=f"one of {window_s:g} s in {len(ids)} recordings")  # fmt: skip
        index = {"window_s": window_s, "shards": shards, "recordings": about}
        (folder / INDEX).write_text(json.dumps(json.loads(canonical_json(index)), indent=1, sort_keys=True) + "\n")
    return folder


def _samples_of(
    lake: Lake, ids: list[str], window_s: float, about: list[dict[str, Any]]
) -> Iterator[list[tuple[str, bytes]]]:
    """The files of one sample after the other."""
    number = 0
    for rid in ids:
        recording = lake.recording(rid)
        first, last = recording.domain_s
        before = number
        for k in range(int((last - first) / window_s + 1e-9)):
            start = first + k * window_s
            files = _sample(recording, start, first + (k + 1) * window_s)
            if files:
                yield [(f"{number:09d}.{name}", data) for name, data in files]
                number += 1
        terms = recording.licence
        about.append({
            "recording_id": rid, "digest": lake.recording_digest(rid), "samples": number - before,
            "licence": terms.spdx, "redistribute": terms.redistribute, "citation": recording.provenance.citation,
            "source": [{"url": f.url, "sha256": f.sha256} for f in recording.provenance.files],
        })  # fmt: skip


def _sample(recording: Recording, start: float, stop: float) -> list[tuple[str, bytes]]:
    """Names without the key, and bytes; none where no signal or event is valid."""
    files, streams = [], {}
    seen = False
    for name, stream in sorted(recording.streams.items()):
        if isinstance(stream, Samples) and isinstance(stream.values, Frames):
            continue
        cut, key = stream.slice(start, stop), name.replace(".", "_").replace("/", "_")
        valid = np.asarray(cut.valid, np.float64).reshape(-1, 2)
        said: dict[str, Any] = {"stream": name, "modality": stream.modality, "valid": valid.tolist()}
        if isinstance(cut, Intervals):
            said |= {"start_s": cut.start_s.tolist(), "stop_s": cut.stop_s.tolist(),
                     "columns": {c: np.asarray(v).tolist() for c, v in cut.columns.items()}}  # fmt: skip
        else:
            seen |= len(valid) > 0
            said |= {"channels": list(cut.channels.ids), "regions": list(cut.channels.regions)}
        if isinstance(cut, Events):
            files += [(f"{key}.times_s.npy", _npy(cut.times_s)), (f"{key}.codes.npy", _npy(cut.codes))]
        elif isinstance(cut, Samples):
            said |= {"unit": cut.unit, "rate_hz": cut.rate_hz, "t0_s": cut.t0_s}
            files.append((f"{key}.values.npy", _npy(cut.values)))
            if cut.times_s is not None:
                files.append((f"{key}.times_s.npy", _npy(cut.times_s)))
        streams[key] = said
    if not seen:
        return []
    about = {
        "recording_id": str(recording.id), "subject_id": recording.subject.id, "task": recording.task,
        "start_s": start, "stop_s": stop, "streams": streams,
    }  # fmt: skip
    return [*sorted(files), ("json", canonical_json(about).encode())]


def _npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


class _Hashed:
    """A file that is digested while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256, self.size = file, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)


def _write_shard(
    folder: Path, number: int, samples: Iterator[list[tuple[str, bytes]]], limit: int
) -> dict[str, Any] | None:
    """The next shard, of at least one sample; None when there is none left."""
    sample = next(samples, None)
    if sample is None:
        return None
    path = folder / f"shard-{number:06d}.tar"
    partial, count = path.with_name(f".{path.name}.tmp"), 0
    with partial.open("wb") as file:
        out = _Hashed(file)
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
            while sample is not None:
                for name, data in sample:
                    info = tarfile.TarInfo(name)
                    info.size, info.mtime, info.mode = len(data), 0, 0o644
                    tar.addfile(info, io.BytesIO(data))
                count += 1
                sample = next(samples, None) if out.size < limit else None
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return {"file": path.name, "samples": count, "bytes": out.size, "sha256": out.sha256.hexdigest()}
