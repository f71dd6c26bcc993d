"""Did a binary file come through a transfer as text, which turns every line feed into two bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from neurofmx.ingest.sessions import RemoteFile

_PIECE = 1 << 22
_FEW = 8  # line feeds; all of them after a carriage return by chance: 256 ** -8
_BINARY = (
    ".edf", ".bdf", ".nwb", ".snirf", ".h5", ".dat", ".mat", ".eeg", ".nii", ".gz", ".npy", ".pqt", ".parquet", ".wav",
    ".fif", ".fdt", ".otb+",
)  # fmt: skip


def text_transfer(path: Path, file: RemoteFile) -> str:
    """What is wrong where every line feed of a binary file follows a carriage return, and whether it can be undone.

    Args:
        path: the file; it is read until a lone line feed shows that it is sound, and never changed.
        file: its published digests.

    Returns:
        A sentence, ``""`` for a sound file or one that holds text by nature.
    """
    if path.suffix.lower() not in _BINARY:
        return ""
    feeds, previous = 0, b""
    with path.open("rb") as handle:
        for piece in _pieces(handle):
            here = piece.count(b"\n")
            # a feed that opens this piece may follow a return that closed the last one
            pairs = piece.count(b"\r\n") + (previous.endswith(b"\r") and piece.startswith(b"\n"))
            if pairs < here:
                return ""
            feeds, previous = feeds + here, piece[-1:]
    if feeds < _FEW:
        return ""
    return (
        f"{path.name} is corrupt: it is binary, yet all of its {feeds:,} line feeds follow a carriage return (CRLF), "
        f"the mark of a transfer as text; {_remedy(path, file, feeds)}"
    )


def _remedy(path: Path, file: RemoteFile, feeds: int) -> str:
    size, digest = 0, hashlib.sha256()
    for piece in _restored(path):
        size += len(piece)
        digest.update(piece)
    was = path.stat().st_size
    found, published = digest.hexdigest(), file.digests.get("sha256")
    if published == found:
        return f"replacing CRLF by LF restores the published sha256 {found}; fetch it again in binary mode"
    if published:
        return (
            f"replacing CRLF by LF gives sha256 {found}, not the published {published}: not repairable, fetch it again"
        )
    implied = _implied(path)
    if implied == size:
        return (
            f"it has {was:,} bytes where the header implies {implied:,}, and replacing CRLF by LF gives just that, "
            f"with sha256 {found}: compare it with the archive's, or fetch it again in binary mode"
        )
    if implied == was:
        return (
            f"its size agrees with the header only because the end was cut off: at least {feeds:,} bytes are gone, so "
            "it cannot be repaired; fetch it again in binary mode"
        )
    return "fetch it again in binary mode"


def _restored(path: Path) -> Iterator[bytes]:
    held = b""
    with path.open("rb") as handle:
        for piece in _pieces(handle):
            whole = held + piece
            held = b"\r" if whole.endswith(b"\r") else b""
            yield whole[: len(whole) - len(held)].replace(b"\r\n", b"\n")
    yield held


def _pieces(handle: BinaryIO) -> Iterator[bytes]:
    while piece := handle.read(_PIECE):
        yield piece


def _implied(path: Path) -> int | None:
    """The size that an EDF or BDF header implies; its own reader refuses such a file before it says."""
    if path.suffix.lower() not in (".edf", ".bdf"):
        return None
    with path.open("rb") as handle:
        main = handle.read(256)
        try:
            records, n = int(main[236:244]), int(main[252:256])
            handle.seek(256 + 216 * n)  # the ninth field of the signals
            samples = [int(handle.read(8)) for _ in range(n)]
        except ValueError:
            return None
    return None if records < 0 else 256 * (n + 1) + records * sum(samples) * (3 if main[:1] == b"\xff" else 2)
