"""Where text stands in each kind of file: fields, comments, annotations and tables, never the signals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neurofmx.ingest.governance_words import Hit, as_words, hits_in_patient_field, masked, person, species_of, years

_MOST = 1 << 20  # characters of a text file, and entries of a column, that are looked at
_SHIFTED = 1925  # BIDS: dates before it were shifted
_NAMES = ("name", "first_name", "last_name", "surname", "full_name")
# what authors write of themselves
_AUTHORS = re.compile(
    r"experimenter|^general/(lab|institution|related_publications|source_script)|author|acknowledg|funding|references|"
    r"contact|generatedby|institution",
    re.IGNORECASE,
)


@dataclass
class Said:
    """What the texts of a session's files say, gathered file by file.

    Args:
        texts: (place, text) pairs to look for identifiers in.
        hits: identifiers in fields that are made for them.
        dates: (place, date) pairs that tell when a person was recorded.
        ages: (place, years) pairs.
        notes: clinical remarks that a person should read.
        species: what the files say of it.
        unread: what could not be looked through.
    """

    texts: list[tuple[str, str]] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    dates: list[tuple[str, str]] = field(default_factory=list)
    ages: list[tuple[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    species: str = "unknown"
    unread: list[str] = field(default_factory=list)


def gather(path: Path, said: Said) -> None:
    """Adds what one file says; of a kind that holds no text of its own, nothing."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        return
    try:
        reader(path, said)
    except (OSError, json.JSONDecodeError, TypeError, RuntimeError):  # h5py raises the last two on types it lacks
        said.unread.append(path.name)


def _edf(path: Path, said: Said) -> None:
    """Who and when, by the header's own places; its annotations are judged as the recording's, once it is read."""
    with path.open("rb") as handle:
        main = handle.read(256).decode("latin-1")
    patient, recording, start = main[8:88].strip(), main[88:168].strip(), main[168:176].strip()
    where = f"the patient field of {path.name}"
    said.hits += hits_in_patient_field(where, patient)
    age = re.search(r"(?i)\bage\W{0,2}(\d{1,3})", patient)
    if age:
        _age(where, age.group(1), said)
    said.texts.append((f"the recording field of {path.name}", recording))
    if start not in ("01.01.85", "01.01.00", "00.00.00", ""):
        said.dates.append((f"the header of {path.name}", start))


def _hdf5(path: Path, said: Said) -> None:
    """NWB and SNIRF; the schema that NWB files carry names its own authors, so it is left out."""
    import h5py

    def visit(name: str, node: Any) -> None:
        for key, value in node.attrs.items():
            if isinstance(value, str):
                take(f"{name}@{key}", value)
        if not (isinstance(node, h5py.Dataset) and h5py.check_string_dtype(node.dtype) and node.size):
            return
        if node.size > _MOST:
            said.unread.append(f"{name} of {path.name}")
        else:
            values = node.asstr(errors="replace")[()]
            for value in {values} if isinstance(values, str) else set(values.ravel().tolist()):
                take(name, value)

    def take(name: str, value: str) -> None:
        last = name.rsplit("/", 1)[-1]
        if name == "general/subject/species":
            said.species = species_of(value)
        elif name == "general/subject/age":
            _age(f"{name} of {path.name}", value, said)
        elif name == "general/subject/date_of_birth":
            said.hits.append(Hit("birth date", f"{name} of {path.name}", masked(value[:10])))
        elif name == "general/subject/subject_id" and person(value):
            said.hits.append(Hit("name", f"{name} of {path.name}", masked(value)))
        elif (name == "session_start_time" or last == "MeasurementDate") and _real(value):
            said.dates.append((f"{last} of {path.name}", value[:10]))
        if not _AUTHORS.search(name):
            said.texts.append((f"{name} of {path.name}", f"{as_words(last)}: {value}"))

    with h5py.File(path, "r") as handle:
        for key, value in handle.attrs.items():
            if isinstance(value, str):
                take(f"@{key}", value)
        for key in sorted(set(handle) - {"specifications"}):
            node = handle[key]
            visit(key, node)
            if isinstance(node, h5py.Group):
                node.visititems(lambda name, node, top=key: visit(f"{top}/{name}", node))


def _real(date: str) -> bool:
    """Whether an ISO date may be one: the first of January stands for an unknown day."""
    return re.match(r"\d{4}-\d\d-\d\d", date) is not None and date[5:10] != "01-01"


def _json(path: Path, said: Said) -> None:
    for key, value in _leaves(json.loads(path.read_text(encoding="utf-8-sig", errors="replace")), ""):
        last = key.rsplit("/", 1)[-1]
        if _AUTHORS.search(key):
            continue
        if re.search(r"date|time$", last, re.IGNORECASE) and re.match(r"\d{4}-\d\d-\d\d|\d{8}", value):
            said.dates.append((f"{key} of {path.name}", value[:10]))
        said.texts.append((f"{key} of {path.name}", f"{as_words(last)}: {value}"))


def _leaves(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, f"{key}/{name}" if key else str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, key)
    elif isinstance(node, str) or (isinstance(node, (int, float)) and not isinstance(node, bool)):
        yield key, str(node)


def _table(path: Path, said: Said) -> None:
    """A TSV or CSV table: each different cell, with its column's name before it."""
    text = _start(path)
    cut = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = [line.split(cut) for line in text.splitlines() if line.strip()]
    for number, column in enumerate(rows[0] if rows else ()):
        where, name = f"column {column} of {path.name}", column.strip().lower()
        for value in sorted({row[number].strip() for row in rows[1:] if len(row) > number} - {"", "n/a", "NA", "X"}):
            if name == "age":
                _age(where, value, said)
            elif name == "species" and said.species == "unknown":
                said.species = species_of(value)
            elif name == "acq_time" and re.match(r"\d{4}", value) and int(value[:4]) > _SHIFTED:
                said.dates.append((where, value[:10]))
            elif name in _NAMES and path.name == "participants.tsv":
                said.hits.append(Hit("name", where, masked(value)))
            if not value.replace(".", "", 1).lstrip("-").isdigit() or re.search(r"birth|id|mrn|record|number", name):
                said.texts.append((where, f"{as_words(column)}: {value}"))


def _lines(path: Path, said: Said) -> None:
    """BrainVision headers and markers, and WFDB headers, line by line."""
    for line in _start(path).splitlines():
        said.texts.append((path.name, line))
        stamp = re.match(r"Mk\d+=New Segment,[^,]*,[^,]*,[^,]*,[^,]*,(\d{8})", line)
        if stamp and not stamp.group(1).startswith("0000"):
            said.dates.append((f"a marker of {path.name}", stamp.group(1)))


def _wfdb(path: Path, said: Said) -> None:
    _lines(path, said)
    lines = [line for line in _start(path).splitlines() if line.strip()]
    record = next((line for line in lines if not line.startswith("#")), "")
    date = re.search(r"\s(\d{1,2}/\d{1,2}/\d{4})\s*$", record)
    if date:
        said.dates.append((f"the record line of {path.name}", date.group(1)))
    comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
    for comment in comments:
        age = re.match(r"(?i)(?:age\W*)(\d{1,3})|(\d{1,3})\s+[MF]\b", comment)
        if age:
            _age(f"a comment of {path.name}", age.group(1) or age.group(2), said)
            said.notes.append(f"a comment of {path.name} holds an age or a sex ({len(comments)} comments in all)")


def _start(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as handle:
        return handle.read(_MOST)


def _age(where: str, value: str, said: Said) -> None:
    age = years(value)
    if age is not None:
        said.ages.append((where, age))


_READERS = {
    **dict.fromkeys((".edf", ".bdf"), _edf),
    **dict.fromkeys((".nwb", ".snirf", ".h5"), _hdf5),
    ".json": _json,
    **dict.fromkeys((".tsv", ".csv"), _table),
    **dict.fromkeys((".vhdr", ".vmrk", ".txt"), _lines),
    ".hea": _wfdb,
}
