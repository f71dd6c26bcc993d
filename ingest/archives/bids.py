"""Which files of a BIDS dataset belong to one recording: one run, its sidecars by inheritance, its masks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from neurofmx.errors import MalformedFile
from neurofmx.ingest.archives.licences import licence
from neurofmx.ingest.archives.trees import Tree
from neurofmx.ingest.sessions import RemoteFile, Session, Source
from neurofmx.types import RecordingId, Subject, sanitise

# suffix -> extensions of the file that a reader opens
PRIMARY = {
    "bold": (".nii.gz", ".nii"),
    "eeg": (".vhdr", ".edf", ".bdf", ".set"),
    "ieeg": (".vhdr", ".edf", ".nwb"),
    "meg": (".fif",),
    "nirs": (".snirf",),
    "physio": (".tsv.gz",),
}
_ROOT_FILES = ("participants.tsv", "participants.json", "dataset_description.json")


def sessions(tree: Tree, source: Source, root: str = "") -> Iterator[Session]:
    """Groups a BIDS tree into recordings, one a run.

    Args:
        tree: the dataset's files.
        source: names the recordings.
        root: folder of the dataset inside the tree, ``""`` for the tree itself.

    Raises:
        NotThere: dataset_description.json is missing.
        MalformedFile: it, or participants.tsv, is not what BIDS says.
    """
    prefix = f"{root}/" if root else ""
    about = _json(tree, f"{prefix}dataset_description.json")
    terms = licence(str(about.get("License", "")), f"License in dataset_description.json of {tree.origin}")
    people = _participants(tree, f"{prefix}participants.tsv")
    citation = "; ".join(str(about[k]) for k in ("HowToAcknowledge", "DatasetDOI") if about.get(k))
    paths = [path for path in tree.files if path.startswith(prefix)]
    beside = _by_folder(path.removeprefix(prefix) for path in paths)
    for path in paths:
        inner = PurePosixPath(path.removeprefix(prefix))
        stem, extension = split(inner.name)
        wanted = entities(stem)
        if extension not in PRIMARY.get(stem.rpartition("_")[2], ()) or not inner.parts[0].startswith("sub-"):
            continue
        if inner.parts[-2] != "beh" and stem.endswith("_physio"):
            continue  # physiology beside a scan is a sidecar of the scan
        near = [name for folder in ("derivatives", *map(str, inner.parents)) for name in beside.get(folder, ())]
        companions = sorted(prefix + name for name in near if name != str(inner) and _belongs(name, inner, wanted))
        files: list[RemoteFile] = [tree.files[name] for name in (path, *companions)]
        yield Session(
            id=RecordingId(source.archive, source.dataset, source.version, sanitise(stem)),
            files=tuple(files),
            reader="bids",
            licence=terms,
            citation=citation,
            subject=people.get(f"sub-{wanted['sub']}", Subject(id=f"sub-{wanted['sub']}")),
            session=f"ses-{wanted['ses']}" if "ses" in wanted else "",
            task=wanted.get("task", ""),
            options={"bids_root": root},
        )


def split(name: str) -> tuple[str, str]:
    """Stem and extension, where the extension begins at the first dot."""
    stem, dot, extension = name.partition(".")
    return stem, dot + extension


def entities(stem: str) -> dict[str, str]:
    """The ``key-value`` pairs of a BIDS name: ``sub-01_task-rest_bold`` -> {sub: 01, task: rest}."""
    return {key: value for key, dash, value in (part.partition("-") for part in stem.split("_")) if dash}


def _by_folder(names: Iterable[str]) -> dict[str, list[str]]:
    """Folder -> names in it, all of derivatives under one key: a run looks at its own folders, not at the dataset."""
    found: dict[str, list[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        found.setdefault("derivatives" if path.parts[0] == "derivatives" else str(path.parent), []).append(name)
    return found


def _belongs(other: str, primary: PurePosixPath, wanted: dict[str, str]) -> bool:
    """BIDS inheritance: a file applies to all below its folder whose names carry all of its entities."""
    if other in _ROOT_FILES:
        return True
    path = PurePosixPath(other)
    stem, extension = split(path.name)
    has = entities(stem)
    if path.parts[0] == "derivatives":
        has.pop("desc", None)
        return stem.endswith("_mask") and has.get("sub") == wanted["sub"] and has.items() <= wanted.items()
    if stem.endswith(("_electrodes", "_coordsystem")):
        has.pop("space", None)  # says in which space positions are, not which run they belong to
    if stem == split(primary.name)[0]:
        return path.parent == primary.parent
    if not has or not has.items() <= wanted.items() or path.parent not in primary.parents:
        return False
    # another recording in the same folder is no sidecar
    return extension not in PRIMARY.get(stem.rpartition("_")[2], ()) or stem.endswith("_physio")


def _json(tree: Tree, path: str) -> dict[str, Any]:
    try:
        return json.loads(tree.text(path))
    except json.JSONDecodeError as error:
        raise MalformedFile(f"{path} of {tree.origin}", got=str(error), expected="JSON") from error


def _participants(tree: Tree, path: str) -> dict[str, Subject]:
    if path not in tree.files:
        return {}
    lines = [line.split("\t") for line in tree.text(path).splitlines() if line.strip()]
    if not lines or lines[0][0] != "participant_id":
        raise MalformedFile(f"{path} of {tree.origin}", got=str(lines[:1]), expected="a first column participant_id")
    found = {}
    for line in lines[1:]:
        row = dict(zip(lines[0], line))
        known = {key: value for key, value in row.items() if value and value.lower() != "n/a"}
        found[row["participant_id"]] = Subject(
            id=row["participant_id"],
            # the standard: a table without this column is about humans
            species=known.get("species", "" if "species" in row else "Homo sapiens"),
            sex=known.get("sex", ""),
            age=known.get("age", ""),
        )
    return found
