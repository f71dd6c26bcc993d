"""Are the bytes what their names say: present, of the right kind, whole, and moved without being changed."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from neurofmx.errors import MalformedFile
from neurofmx.ingest.checks_transfer import text_transfer
from neurofmx.ingest.formats.edf_header import read_header
from neurofmx.ingest.sessions import Session
from neurofmx.ingest.verdict import some
from neurofmx.types import Check

_HDF5 = b"\x89HDF\r\n\x1a\n"
_MARKUP = re.compile(
    rb"^(?:\xef\xbb\xbf)?\s*(?:<!doctype html|<html|<\?xml[^>]*>\s*<(?:error|html|!doctype html))", re.I
)


def judge_bytes(root: Path, session: Session) -> tuple[Check, ...]:
    """Judges every file of a session, none of them further than its own faults allow.

    Args:
        root: folder in which the files have their own relative names.
        session: names the files, and their published digests where the archive has them.

    Returns:
        ``files_present``, ``file_kind``, ``text_transfer`` and ``file_size``, all blocking.
    """
    faults: dict[str, list[str]] = {"files_present": [], "file_kind": [], "text_transfer": [], "file_size": []}
    sized: list[str] = []
    for file in session.files:
        path = root / file.path
        if fault := _absent(path, file.path):
            faults["files_present"].append(fault)
        elif fault := _page(path):
            faults["file_kind"].append(fault)
        elif fault := text_transfer(path, file):  # before the kind: it changes the signature of HDF5 too
            faults["text_transfer"].append(fault)
        elif fault := _other_kind(path):
            faults["file_kind"].append(fault)
        elif path.suffix.lower() in SIZES:
            sized.append(path.name)
            if fault := SIZES[path.suffix.lower()](path):
                faults["file_size"].append(fault)
    n, one = len(session.files), len(session.files) == 1
    good = {
        "files_present": "the file is there and not empty" if one else f"all {n} files are there, none empty",
        "file_kind": "the file is what its name says" if one else f"all {n} files are what their names say",
        "text_transfer": "no binary file has lost its lone line feeds",
        "file_size": f"as long as the header says: {some(sized, 3)}" if sized else "no header states a length",
    }
    return tuple(
        Check(name=name, passed=not found, severity="block", evidence="; ".join(found[:3]) or good[name])
        for name, found in faults.items()
    )


def _absent(path: Path, name: str) -> str:
    if not path.is_file():
        return f"{name} is missing: expected every file of the recording"
    return "" if path.stat().st_size else f"{name} is empty: 0 bytes, expected a recording"


# what a name promises


def _page(path: Path) -> str:
    head = _head(path)
    if not _MARKUP.match(head):
        return ""
    title = re.search(rb"<(?:title|code|message)>\s*([^<]{1,80})", head, re.IGNORECASE)
    said = f" titled '{title.group(1).decode('latin-1').strip()}'" if title else ""
    return (
        f"{path.name} is a page of HTML or XML text{said}, not {KINDS.get(_kind(path), _ANY)[0]}: a server's "
        "answer was saved under its name, so the fetch failed (often for lack of access); fetch it again"
    )


def _other_kind(path: Path) -> str:
    head = _head(path)
    promised, holds = KINDS.get(_kind(path), _ANY)
    return "" if holds(path, head) else f"{path.name} is not {promised}: it begins with {head[:8]!r}"


def _head(path: Path) -> bytes:
    with path.open("rb") as handle:
        return handle.read(4096)


def _kind(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else PurePosixPath(name).suffix


def _starts(*magic: bytes) -> Callable[[Path, bytes], bool]:
    return lambda path, head: head.startswith(magic)


def _is_hdf5(path: Path, head: bytes) -> bool:
    return _superblock(path) is not None


def _is_nifti(path: Path, head: bytes) -> bool:
    """NIfTI-1 or -2 by the length of its header, in either byte order."""
    return head[:4] in (struct.pack(order + "i", size) for size in (348, 540) for order in "<>")


def _is_zipped_nifti(path: Path, head: bytes) -> bool:
    try:
        with gzip.open(path) as handle:
            return _is_nifti(path, handle.read(352))
    except (OSError, EOFError, zlib.error):
        return False


# suffix -> (what it must be, test of path and first bytes)
KINDS: dict[str, tuple[str, Callable[[Path, bytes], bool]]] = {
    **dict.fromkeys((".nwb", ".snirf", ".h5"), ("an HDF5 file", _is_hdf5)),
    ".edf": ("an EDF file (version field '0')", _starts(b"0       ")),
    ".bdf": ("a BDF file (version field 255 BIOSEMI)", _starts(b"\xffBIOSEMI")),
    ".wav": ("a WAV file (RIFF header)", lambda path, head: head[:4] == b"RIFF" and head[8:12] == b"WAVE"),
    ".nii": ("a NIfTI file (header of 348 or 540 bytes)", _is_nifti),
    ".nii.gz": ("a gzipped NIfTI file", _is_zipped_nifti),
    ".gz": ("a gzip file", _starts(b"\x1f\x8b")),
    ".vhdr": (
        "a BrainVision header",
        lambda path, head: re.match(rb"(?:\xef\xbb\xbf)?Brain ?Vision", head) is not None,
    ),
    ".vmrk": (
        "a BrainVision marker file",
        lambda path, head: re.match(rb"(?:\xef\xbb\xbf)?Brain ?Vision", head) is not None,
    ),
    ".npy": ("a NumPy array", _starts(b"\x93NUMPY")),
    **dict.fromkeys((".pqt", ".parquet"), ("a Parquet file", _starts(b"PAR1"))),
    ".json": ("a JSON file", lambda path, head: head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")),
}
_ANY: tuple[str, Callable[[Path, bytes], bool]] = ("what its name says", lambda path, head: True)


# the length that a header states


def _edf_size(path: Path) -> str:
    try:
        read_header(path, path.name)
    except MalformedFile as error:
        return f"{error}"
    return ""


def _hdf5_size(path: Path) -> str:
    found = _superblock(path)
    stated, size = found if found else 0, path.stat().st_size
    if stated <= size:
        return ""
    return (
        f"{path.name} is truncated HDF5: {size:,} bytes where its superblock states {stated:,}, so the last "
        f"{stated - size:,} are missing; fetch it again"
    )


def _superblock(path: Path) -> int | None:
    """The end of an HDF5 file as its superblock states it, None where there is no superblock.

    HDF5 File Format Specification 3.0, II.A; a user block may come before it.
    """
    with path.open("rb") as handle:
        end, at = handle.seek(0, 2), 0
        while at < end:
            handle.seek(at)
            head = handle.read(64)
            if head.startswith(_HDF5):
                return _end_of_file(head)
            at = 2 * at or 512
    return None


def _end_of_file(head: bytes) -> int:
    version = head[8]
    width = head[13] if version < 2 else head[9]
    base = {0: 24, 1: 28}.get(version, 12)
    at = base + 2 * width  # base address and one more address come first
    return int.from_bytes(head[at : at + width], "little")


def _wav_size(path: Path) -> str:
    with path.open("rb") as handle:
        stated = int.from_bytes(handle.read(8)[4:], "little") + 8
    size = path.stat().st_size
    if stated <= size or stated in (8, 0xFFFFFFFF + 8):  # a writer that did not know
        return ""
    return f"{path.name} has {size:,} bytes, its RIFF header states {stated:,}: cut off"


def _parquet_size(path: Path) -> str:
    with path.open("rb") as handle:
        handle.seek(-4, 2)
        tail = handle.read()
    return "" if tail == b"PAR1" else f"{path.name} ends with {tail!r}, expected PAR1: cut off"


# suffix -> what is wrong with the file's length, "" for nothing
SIZES: dict[str, Callable[[Path], str]] = {
    **dict.fromkeys((".edf", ".bdf"), _edf_size),
    **dict.fromkeys((".nwb", ".snirf", ".h5"), _hdf5_size),
    ".wav": _wav_size,
    **dict.fromkeys((".pqt", ".parquet"), _parquet_size),
}
