"""Real recordings that come from no archive: folders of a mirror whose terms are stated here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from neurofmx.errors import NotThere
from neurofmx.ingest.archives.trees import Tree, tree
from neurofmx.ingest.sessions import Session, Source
from neurofmx.types import Licence, RecordingId, Subject

VERSION = "1"
_LOG = logging.getLogger(__name__)
_TERMS = {"audio-pykanto": ("MIT", "Merino Recalde 2023, pykanto", "Parus major")}
# a pose without labels, subject or clock beside it has nothing to be aligned with or decoded from
_LEFT_OUT = {"pose-dlcanalyzer": "pose alone, with no label, subject or second stream"}


def list_sessions(source: Source) -> Iterator[Session]:
    """Lists the songs of ``audio-pykanto``.

    Args:
        source: ``address`` is a folder that holds the dataset's, or a server that `neurofmx mirror serve` runs.

    Raises:
        NotThere: no such dataset.
    """
    if source.dataset in _LEFT_OUT:
        _LOG.warning("other:%s is left out: %s", source.dataset, _LEFT_OUT[source.dataset])
        return
    if source.dataset not in _TERMS:
        raise NotThere(f"dataset {source.dataset}", expected=f"one of {', '.join(_TERMS)}")
    yield from songs(tree(source.address, source.dataset), source, *_TERMS[source.dataset])


def songs(listing: Tree, source: Source, spdx: str, citation: str, species: str) -> Iterator[Session]:
    """One recording a WAV file, with the JSON of the same name beside it; the bird's id is in the name."""
    notes = {PurePosixPath(path).stem: path for path in listing.files if path.lower().endswith(".json")}
    for path, file in listing.files.items():
        name = PurePosixPath(path)
        if name.suffix.lower() != ".wav":
            continue
        beside = [listing.files[notes[name.stem]]] if name.stem in notes else []
        parts = name.stem.split("-")  # 2021-B32-0415_05-11: year, bird, day and hour, song
        yield Session(
            id=RecordingId(source.archive, source.dataset, source.version, name.stem),
            files=(file, *beside),
            reader="wav",
            licence=Licence(spdx=spdx, text=spdx, source=f"licence of the files of {source.text}"),
            citation=citation,
            subject=Subject(id=parts[1] if len(parts) > 1 else name.stem, species=species),
            session="-".join(parts[2:]),
            task="song",
        )


def datasets(folder: Path) -> list[tuple[str, str]]:
    """The (dataset, version) pairs that a folder holds, those left out included: their listing says why."""
    return [(path.name, VERSION) for path in sorted(folder.iterdir()) if path.name in _TERMS or path.name in _LEFT_OUT]
