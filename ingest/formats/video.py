"""Video files, with PyAV: the file stays as it is, its frames are found by an index that is made here."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.frames import COLOURS, FrameIndex, Frames, video_library
from neurofmx.ingest.formats import spans
from neurofmx.ingest.formats.assemble import assemble
from neurofmx.ingest.sessions import Session
from neurofmx.types import Channels, RawFile, Recording, Samples

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov")
Opener: TypeAlias = Callable[[str], Frames | None]


def read(root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Reads the times of a video file's frames; nothing is decoded.

    Args:
        root: folder in which the file has its own relative name.
        session: what the archive says of it.
        files: the file; its first video stream is taken, its clock is the file's own.

    Raises:
        MalformedFile: the file holds no video, or two frames at one time.
        ConfigError: PyAV is not installed.
    """
    frames, notes = open_video(root / files[0].path, files[0])
    times = frames.index.times_s()
    video = Samples(
        values=frames, unit="a.u.", channels=Channels(ids=COLOURS), modality="video", valid=spans.stamped(times),
        times_s=times,
    )  # fmt: skip
    return assemble(session, files, {"video": video}, notes=notes)


def open_video(path: Path, file: RawFile) -> tuple[Frames, list[str]]:
    """A video file as frames that are decoded when they are looked at.

    Args:
        path: where the file is; links are followed, so that a folder of links may go.
        file: its name and digest.

    Returns:
        The frames, and what the file says of itself.

    Raises:
        MalformedFile: the file holds no video, or two frames at one time.
        ConfigError: PyAV is not installed.
    """
    av = video_library()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MalformedFile(file.path, got="no video stream", expected="one", fix="Give a video file.")
            stream = container.streams.video[0]
            pts, keys = _packets(container, stream, file.path)
            codec = stream.codec_context
            shape, base = (int(codec.height), int(codec.width), len(COLOURS)), stream.time_base
            said = [f"video: {codec.name} in {container.format.name}, {shape[1]} x {shape[0]} pixels"]
            said += [f"{len(container.streams) - 1} further streams left out"] if len(container.streams) > 1 else []
    except (OSError, ValueError) as error:
        raise MalformedFile(
            file.path, got=f"{type(error).__name__}: {error}", expected="a video that PyAV can read",
            fix="Fetch it again.",
        ) from error  # fmt: skip
    order = np.argsort(pts, kind="stable")
    pts, keys = pts[order], keys[order]
    if not len(pts) or base is None or np.any(np.diff(pts) <= 0) or not keys[0]:
        got = "no frame" if not len(pts) else "two frames at one time, or a first frame that cannot be decoded alone"
        raise MalformedFile(file.path, got=got, expected="frames with ascending times", fix="Encode it anew.")
    index = FrameIndex(
        pts=pts, keyframes=np.flatnonzero(keys), time_base=(base.numerator, base.denominator), shape=shape,
        sha256=file.sha256, path=file.path,
    )  # fmt: skip
    return Frames(index, path.resolve()), said


def beside(root: Path, files: tuple[RawFile, ...], notes: list[str]) -> Opener:
    """Opens videos that are files of the same recording, by their name relative to its first file.

    Args:
        root: folder in which the files have their own relative names.
        files: the files of the recording.
        notes: takes what the videos say of themselves.

    Returns:
        A function from that name to the frames, None where no such file belongs to the recording.
    """
    folder, known = PurePosixPath(files[0].path).parent, {PurePosixPath(file.path): file for file in files[1:]}

    def open_one(name: str) -> Frames | None:
        file = known.get(PurePosixPath(posixpath.normpath(folder / name)))
        if file is None:
            return None
        frames, said = open_video(root / file.path, file)
        notes.extend(said)
        return frames

    return open_one


def named_in(nwb: Path) -> list[str]:
    """The names of external videos that an NWB file holds, relative to it; none where it cannot be read."""
    import h5py

    found: list[str] = []
    try:
        with h5py.File(nwb, "r") as file:
            for place in ("acquisition", "stimulus/presentation"):
                group: Any = file.get(place, {})
                for item in group.values():
                    if isinstance(item, h5py.Group) and "external_file" in item:
                        names: Any = item["external_file"]
                        found += [name.decode() for name in names[:]]
    except OSError:
        return []  # the checks of its bytes say what is wrong with it
    return found


def _packets(container: Any, stream: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(N,) stamps and (N,) whether decoding can begin there, without decoding anything."""
    found = [
        (packet.pts, packet.dts, packet.is_keyframe)
        for packet in container.demux(stream)
        if packet.size and not packet.is_discard
    ]
    unstated = any(pts is None for pts, _, _ in found)
    # AVI keeps the order of decoding only, from which FFmpeg makes stamps up: right where no frame was reordered
    made_up = "avi" in container.format.name and stream.codec_context.has_b_frames
    if not unstated and made_up and len({pts - (dts or 0) for pts, dts, _ in found}) == 1:
        container.seek(0)
        unstated = [frame.pts for frame in container.decode(stream)] != [pts for pts, _, _ in found]
    if unstated:
        raise MalformedFile(
            name, got=f"{stream.codec_context.name} with reordered frames in a container that does not state when "
            "each is shown", expected="a time stamp a frame", fix="Encode it anew as MP4 or Matroska.",
        )  # fmt: skip
    return np.array([pts for pts, _, _ in found], np.int64), np.array([key for _, _, key in found], bool)
