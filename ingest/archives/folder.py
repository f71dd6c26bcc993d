"""One's own files: NWB, EDF, WFDB, WAV, torch_brain, video, BIDS datasets and ALF sessions, wherever they lie."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from neurofmx.errors import ConfigError, NotThere
from neurofmx.ingest.archives import bids
from neurofmx.ingest.archives.licences import licence
from neurofmx.ingest.archives.trees import Tree, folder_tree
from neurofmx.ingest.formats.torch_brain import is_torch_brain
from neurofmx.ingest.formats.video import SUFFIXES, named_in
from neurofmx.ingest.sessions import RemoteFile, Session, Source
from neurofmx.ingest.web import local_path
from neurofmx.types import Licence, RecordingId, Subject, sanitise

VERSION = "local"
# suffix -> reader, for files that are a recording by themselves
READERS = {
    ".nwb": "nwb", ".edf": "edf", ".bdf": "edf", ".hea": "wfdb", ".wav": "wav", ".h5": "torch_brain",
    **dict.fromkeys(SUFFIXES, "video"),
}  # fmt: skip
# names of annotation files beside a WFDB header; another file of the same name is not one
ANNOTATORS = {
    "atr", "ari", "al", "ann", "apn", "arousal", "ecg", "gqrs", "gqrsh", "gqrsl", "hypn", "marker", "pu", "pu0", "pu1",
    "qrs", "seizures", "st", "sqrs", "sta", "stb", "stc", "wabp", "wqrs",
}  # fmt: skip
# one's own files need no licence to be looked at; their bytes never leave this lake
OWN = Licence(spdx="LicenseRef-own", text="one's own file, no terms stated", source="local folder", redistribute=False)


def list_sessions(source: Source) -> Iterator[Session]:
    """Lists what a folder, or a single file, holds.

    Args:
        source: ``address`` is the folder or file.

    Raises:
        NotThere: no such path.
        ConfigError: a single file of a kind that nothing here reads.
    """
    path = Path(source.address).expanduser().resolve()
    if path.is_dir() and (inside := _bids_root(path)) and inside != path:  # a subject's folder of a dataset
        runs = bids.sessions(folder_tree(inside), source)
        yield from (run for run in runs if (inside / run.files[0].path).is_relative_to(path))
    elif path.is_dir():
        session = _alf_root(path)
        yield from [_alf(folder_tree(session), "", source)] if session else _folder(folder_tree(path), source)
    elif path.is_file():
        yield from _single(path, source)
    else:
        raise NotThere(f"path {path}", expected="a file or a folder", fix="Check the spelling.")


def _single(path: Path, source: Source) -> Iterator[Session]:
    """One file: a run where it lies in a BIDS dataset, else what its suffix says."""
    root = _bids_root(path.parent)
    if root:
        name = path.relative_to(root).as_posix()
        stem = bids.split(path.name)[0]
        runs = [
            s for s in bids.sessions(folder_tree(root), source) if bids.split(s.files[0].path)[0].endswith(f"/{stem}")
        ]
        if not runs:
            raise ConfigError(f"file {name} of {root}", expected="the data file of a BIDS run", fix="Name that file.")
        yield from runs
        return
    if path.suffix.lower() not in READERS:
        raise ConfigError(f"file {path}", got=path.suffix or "no suffix", expected=f"one of {', '.join(READERS)}",
                          fix="Give NWB, EDF, WFDB, WAV, torch_brain, video, a BIDS run or an ALF folder.")  # fmt: skip
    tree = Tree(
        {p.name: _local(p, path.parent) for p in sorted(path.parent.iterdir()) if p.is_file()}, str(path.parent)
    )
    yield _file(path.name, tree, source, OWN)


def _folder(tree: Tree, source: Source) -> Iterator[Session]:
    """Datasets and ALF sessions inside first; what they hold is not listed again by suffix."""
    stated = next((p for p in tree.files if p.upper() in ("LICENSE", "LICENSE.TXT", "LICENSE.MD")), None)
    terms = (licence(tree.text(stated), stated) if stated else None) or OWN
    taken: set[str] = set()
    datasets = [path for path in tree.files if PurePosixPath(path).name == "dataset_description.json"]
    for root in sorted({_parent(path) for path in datasets if "derivatives" not in PurePosixPath(path).parts}):
        taken.update(path for path in tree.files if not root or path.startswith(f"{root}/"))
        for run in bids.sessions(tree, source, root):
            yield replace(run, id=_named(source, f"{root}/{run.id.name}" if root else run.id.name))
    alf = {path.split("/alf/")[0] if "/alf/" in path else "" for path in tree.files if "/alf/" in f"/{path}"}
    for root in sorted(alf):
        inside = {path: file for path, file in tree.files.items() if not root or path.startswith(f"{root}/")}
        taken.update(inside)
        yield _alf(Tree(inside, tree.origin), root, source)
    taken |= _segments(tree)
    taken |= {film for path in tree.files if path not in taken for film in _films(path, tree)}
    for path in tree.files:
        suffix = PurePosixPath(path).suffix.lower()
        if path in taken or suffix not in READERS or (suffix == ".h5" and not is_torch_brain(_on_disk(path, tree))):
            continue  # HDF5 is a container of anything
        yield _file(path, tree, source, terms)


def _on_disk(path: str, tree: Tree) -> Path:
    return local_path(tree.files[path].url)


def _films(path: str, tree: Tree) -> list[str]:
    """Videos that an NWB file names as its own."""
    if not path.lower().endswith(".nwb") or not any(p.lower().endswith(SUFFIXES) for p in tree.files):
        return []
    inside = PurePosixPath(path).parent
    named = [posixpath.normpath(inside / name) for name in named_in(_on_disk(path, tree))]
    return [name for name in named if name in tree.files]


def _segments(tree: Tree) -> set[str]:
    """Headers that are segments of another WFDB record: not recordings of their own."""
    found: set[str] = set()
    for path in tree.files:
        if PurePosixPath(path).suffix.lower() != ".hea":
            continue
        lines = [line.split() for line in tree.text(path).splitlines() if line.strip() and not line.startswith("#")]
        if lines and "/" in lines[0][0]:  # name/number of segments
            found.update(str(PurePosixPath(path).with_name(f"{line[0]}.hea")) for line in lines[1:])
    return found


def _file(path: str, tree: Tree, source: Source, terms: Licence) -> Session:
    name = PurePosixPath(path)
    reader = READERS[name.suffix.lower()]
    folder = [p for p in tree.files if PurePosixPath(p).parent == name.parent and p != path]
    beside = _films(path, tree)
    if reader == "wfdb":
        beside = [p for p in folder if PurePosixPath(p).suffix != ".hea" and _wfdb_part(p, path, tree)]
    elif reader == "edf":
        beside = [p for p in folder if p.startswith(f"{path}.")]
    elif reader == "wav":
        beside = [p for p in folder if PurePosixPath(p).stem == name.stem and p.lower().endswith(".json")]
    return Session(
        id=_named(source, str(name.with_suffix(""))),
        files=(tree.files[path], *(tree.files[p] for p in beside)),
        reader=reader,
        licence=terms,
        session=name.stem,
        # these name their own subject; the other formats have no place for one that can be trusted
        subject=None if reader in ("nwb", "torch_brain") else Subject(id=name.stem),
        options={"annotators": sorted({PurePosixPath(p).suffix[1:] for p in beside} & ANNOTATORS)}
        if reader == "wfdb"
        else {},
    )


def _wfdb_part(path: str, header: str, tree: Tree) -> bool:
    name = PurePosixPath(path)
    if name.stem == PurePosixPath(header).stem:
        return True
    lines = [line.split() for line in tree.text(header).splitlines() if line.strip() and not line.startswith("#")]
    return any(line[0] == name.name for line in lines[1:])


def _alf(tree: Tree, root: str, source: Source) -> Session:
    folder = Path(tree.origin) / root
    number, date, subject = (folder.parts[-1], folder.parts[-2], folder.parts[-3])
    return Session(
        id=_named(source, root or f"{subject}_{date}_{number}"),
        files=tuple(tree.files.values()),
        reader="alf",
        licence=OWN,
        subject=Subject(id=subject),
        session=f"{date}_{number}",
        options={"session_dir": root or "."},
    )


def _bids_root(folder: Path) -> Path | None:
    """The dataset that a folder lies in, itself included."""
    for one in (folder, *folder.parents):
        if (one / "dataset_description.json").exists() and "derivatives" not in one.parts:
            return one
    return None


def _alf_root(path: Path) -> Path | None:
    """The session folder, where ``path`` is one or its ``alf`` folder."""
    if path.name == "alf":
        return path.parent
    return path if (path / "alf").is_dir() else None


def _local(path: Path, root: Path) -> RemoteFile:
    return RemoteFile(path=path.relative_to(root).as_posix(), url=path.resolve().as_uri(), size=path.stat().st_size)


def _named(source: Source, text: str) -> RecordingId:
    return RecordingId(source.archive, source.dataset, source.version, sanitise(text))


def _parent(path: str) -> str:
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "." else parent
