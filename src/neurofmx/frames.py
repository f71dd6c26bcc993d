"""Frames of a video as an array that is decoded on demand: the file stays as it is, an index says where frames are.

A frame is reached by seeking to the keyframe before it and decoding on from there, which gives the same bytes as
decoding the file from its beginning.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from neurofmx import remote
from neurofmx.errors import ConfigError, LakeCorrupt, NotThere

CACHE_BYTES = 64 << 20  # decoded frames kept of one file
OPEN_FILES = 8  # files kept open, with their frames
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True, kw_only=True)
class FrameIndex:
    """Where the frames of a video file are.

    Args:
        pts: (N,) int64 ascending presentation stamps, in ``time_base``.
        keyframes: (K,) int64 rows of ``pts`` at which decoding can begin.
        time_base: numerator and denominator of one step of ``pts`` in seconds.
        shape: height, width and colours of a frame.
        sha256: digest of the file.
        path: the file's own name.
    """

    pts: np.ndarray
    keyframes: np.ndarray
    time_base: tuple[int, int]
    shape: tuple[int, int, int]
    sha256: str
    path: str

    def times_s(self) -> np.ndarray:
        """(N,) float64 seconds of the file's own clock."""
        return self.pts.astype(np.float64) * self.time_base[0] / self.time_base[1]


def video_library() -> Any:
    """PyAV.

    Raises:
        ConfigError: it is not installed; the message names the extra that has it.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigError(
            "video", got="no package av", expected="PyAV", fix="Install the extra: pip install 'neurofmx[video]'"
        ) from error
    return av


class Frames:
    """(N, height, width, 3) uint8 of a video file, decoded when it is looked at.

    An integer gives one frame, a list of integers an array; a slice gives frames that are still not decoded, so that
    cutting a recording costs nothing. Threads may share it.

    Args:
        index: where the frames are.
        file: the video file; None where it is not at hand, so that only shape and index can be read.
        rows: the frames of the file that this array holds, all when None.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, index: FrameIndex, file: Path | None, rows: range | None = None) -> None:
        self.index, self.file = index, file
        self._rows = range(len(index.pts)) if rows is None else rows

    def __reduce__(self) -> tuple[Any, ...]:
        return Frames, (self.index, self.file, self._rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, height, width, 3)."""
        return (len(self._rows), *self.index.shape)

    @property
    def nbytes(self) -> int:
        """Size of all frames decoded."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            first, *rest = key if key else (slice(None),)
            if not rest:
                return self[first]
            inner = (slice(None), *rest) if isinstance(first, (slice, list, np.ndarray)) else tuple(rest)
            return np.asarray(self[first])[inner]
        if isinstance(key, slice):
            return Frames(self.index, self.file, self._rows[key])
        if isinstance(key, (int, np.integer)):
            return self._decoded(self._rows[int(key)])
        chosen = np.asarray(key)
        rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        return self._stack([self._rows[int(row)] for row in rows])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._decoded(row) for row in self._rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("frames of a video are decoded into a new array")
        return self._stack(self._rows).astype(dtype or self.dtype, copy=False)

    def _stack(self, rows: Any) -> np.ndarray:
        out = np.empty((len(rows), *self.index.shape), np.uint8)
        for i in np.argsort(np.asarray(rows, np.int64), kind="stable"):  # forward is how a video is decoded
            out[i] = self._decoded(rows[int(i)])
        return out

    def original(self) -> Path:
        """The video file.

        Raises:
            NotThere: it is not at hand.
        """
        if self.file is None or not remote.at_hand(self.file, self.index.sha256).exists():
            raise NotThere(
                f"video {self.index.path}", got=f"no file {self.file or self.index.sha256}",
                expected="its file in the raw layer", fix="Fetch the recording again: neurofmx fetch",
            )  # fmt: skip
        return self.file

    def _decoded(self, row: int) -> np.ndarray:
        return _decoder(self.original()).frame(self.index, row)


class _Decoder:
    """One open video file: where it stands, and the frames that were asked for last."""

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._container: Any = None
        self._coming: Iterator[Any] = iter(())
        self._next = -1  # the row that decoding on would give; -1 for none

    def frame(self, index: FrameIndex, row: int) -> np.ndarray:
        """(height, width, 3) uint8, not to be written to."""
        with self._lock:
            if row in self._kept:
                self._kept.move_to_end(row)
                return self._kept[row]
            try:
                image = self._decode(index, row)
            except (OSError, EOFError, ValueError, StopIteration) as error:
                self._next = -1
                raise _damaged(index, row, f"{type(error).__name__}: {error}") from error
            image.flags.writeable = False
            self._kept[row] = image
            while len(self._kept) > max(1, CACHE_BYTES // image.nbytes):
                self._kept.popitem(last=False)
            return image

    def _decode(self, index: FrameIndex, row: int) -> np.ndarray:
        key = int(np.searchsorted(index.keyframes, row, side="right")) - 1
        begin = int(index.keyframes[max(key, 0)])
        frame = None
        if not max(begin, 0) <= self._next <= row:
            frame = self._seek(index, key, row)
        while frame is None or (at := _row(index, frame)) < row:
            frame = next(self._coming)
        self._next = row + 1
        if at != row:
            raise _damaged(index, row, f"row {at} in its place")
        image = frame.to_ndarray(format="rgb24", threads=1)
        if image.shape != index.shape:
            raise _damaged(index, row, f"a frame of {image.shape}")
        return image

    def _seek(self, index: FrameIndex, key: int, row: int) -> Any:
        """The first frame after a jump that does not land beyond ``row``."""
        if self._container is None:
            self._open()
        container: Any = self._container
        for number in range(key, -1, -1):
            stream = container.streams.video[0]
            container.seek(int(index.pts[index.keyframes[number]]), stream=stream, backward=True)
            self._coming = container.decode(stream)
            frame = next(self._coming)
            if frame.pts is not None and _row(index, frame) <= row:
                return frame
        self._open()  # from the very beginning
        again: Any = self._container
        self._coming = again.decode(video=0)
        return next(self._coming)

    def _open(self) -> None:
        self._container = video_library().open(str(self._file))
        # one thread, here and for colours: others do not live on in a forked child, which would wait for them for ever
        self._container.streams.video[0].codec_context.thread_count = 1


def _row(index: FrameIndex, frame: Any) -> int:
    if frame.pts is None:
        raise ValueError("a frame without a time")
    return int(np.searchsorted(index.pts, frame.pts))


def _damaged(index: FrameIndex, row: int, got: str) -> LakeCorrupt:
    return LakeCorrupt(
        f"video {index.path}, frame {row}", got=got, expected=f"the frame of its index, out of {len(index.pts)}",
        fix="Fetch the recording again.",
    )  # fmt: skip


@lru_cache(maxsize=OPEN_FILES)
def _decoder(file: Path) -> _Decoder:
    return _Decoder(file)


os.register_at_fork(after_in_child=_decoder.cache_clear)  # a child must not share a file's position with its parent
