"""May this recording be kept, may it be passed on, and does it give away who was recorded.

What stops a recording: no stated licence, a direct identifier of a person, an age over 89, a face. What only warns:
real dates, clinical remarks. Identifiers are shown masked: evidence goes to catalogs and pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from neurofmx.ingest.governance_text import Said, gather
from neurofmx.ingest.governance_words import OLDEST, Hit, hits, masked, person, species_of, years
from neurofmx.ingest.sessions import Session
from neurofmx.ingest.verdict import Verdict, named, some
from neurofmx.types import Check, Events, Intervals, Licence, Recording, Samples

_RESTRICTED = re.compile(
    r"\b(?:credentialed|restricted)[ -](?:access|health data|data)\b|-restricted\b|data use agreement|\bembargoed\b",
    re.IGNORECASE,
)
_ANATOMY = re.compile(r"_(T1w|T2w|FLAIR|PDw|T1rho|UNIT1|MP2RAGE)\.nii(\.gz)?$")
_DEFACED = re.compile(
    r"desc-defaced|rec-defaced|_mod-\w+_defacemask|\"?deface(d|_?method)\"?\s*:\s*(?!false|null)", re.I
)
_NO_PERSON = "the subject is no person"


def judge_files(root: Path, session: Session) -> tuple[Check, ...]:
    """Judges the terms that the archive states, and the texts in and beside the files.

    Args:
        root: folder in which the files have their own relative names.
        session: what the archive says of them.

    Returns:
        ``licence``, ``identifiers``, ``subject_age`` and ``faces`` (blocking), ``real_dates`` and
        ``clinical_remarks`` (warnings).
    """
    said = Said()
    for file in session.files:
        path = root / file.path
        if path.is_file() and path.stat().st_size:
            gather(path, said)
    stated = species_of(session.subject.species) if session.subject else "unknown"
    # a person where either says so; the archive first where they differ otherwise
    species = said.species if stated == "unknown" or said.species == "human" else stated
    found = [*said.hits, *(hit for where, text in said.texts for hit in hits(where, text))]
    ages = list(said.ages)
    if session.subject and (age := years(session.subject.age)) is not None:
        ages.append(("the archive's subject", age))
    return (
        named("licence", _licence(session.licence, str(session.id))),
        named("identifiers", _identifiers(species, found, f"{len(said.texts):,} texts of its files", said.unread)),
        named("subject_age", _ages(species, ages)),
        named("faces", _faces(root, session, species)),
        named("real_dates", _dates(species, said.dates)),
        named("clinical_remarks", _remarks(species, said.notes)),
    )


def judge(recording: Recording) -> tuple[Check, ...]:
    """Judges what a recording carries with it into the lake.

    Args:
        recording: its terms, its subject, and the texts in its tables, channel names and notes.

    Returns:
        ``licence_kept``, ``redistribution``, ``kept_age`` and ``kept_identifiers``, all blocking.
    """
    species = species_of(recording.subject.species)
    texts = _texts(recording)
    found = [hit for where, text in texts for hit in hits(where, text)]
    if species == "human" and person(recording.subject.id):
        found.append(Hit("name", "the subject's id", masked(recording.subject.id)))
    age = years(recording.subject.age)
    return (
        named("licence_kept", _licence(recording.licence, str(recording.id))),
        named("redistribution", _redistribution(recording.licence)),
        named("kept_age", _ages(species, [] if age is None else [("the subject", age)])),
        named("kept_identifiers", _identifiers(species, found, f"{len(texts):,} texts that it keeps")),
    )


def _licence(licence: Licence | None, what: str) -> Verdict:
    if licence is None or not licence.spdx.strip():
        said = f"no licence is stated for {what}: missing is not open, so a person must ask for the terms and let it in"
        return False, "block", said
    return True, "block", f"{licence.spdx}, from {licence.source or 'no stated source'}"


def _redistribution(licence: Licence) -> Verdict:
    restricted = _RESTRICTED.search(f"{licence.spdx} {licence.text}")
    may = "may be passed on" if licence.redistribute else "may not leave this lake"
    if restricted and licence.redistribute:
        said = f"the terms say '{restricted.group(0)}', yet the bytes are marked as free to be passed on: expected not"
        return False, "block", said
    return True, "block", f"bytes under {licence.spdx or 'no licence'} {may}"


def _identifiers(species: str, found: list[Hit], looked: str, unread: Sequence[str] = ()) -> Verdict:
    """An address belongs to an author as often as to a subject: alone it stops only what is known to be human."""
    if species == "animal":
        return True, "block", _NO_PERSON
    who = "a person" if species == "human" else "no species stated, so taken as a person"
    if not found and unread:
        return False, "warn", f"{who}: no direct identifier in {looked}, but {some(list(unread), 3)} could not be read"
    if not found:
        return True, "block", f"{who}: no direct identifier in {looked}"
    stops = species == "human" or any(not hit.contact for hit in found)
    # one a kind and place: patterns overlap, the longest says most
    each = {(hit.kind, hit.where): str(hit) for hit in sorted(found, key=lambda hit: len(hit.masked))}
    shown = some(list(each.values()), 4)
    return False, "block" if stops else "warn", f"direct identifiers ({who}; shown masked): {shown}; expected none"


def _ages(species: str, ages: Iterable[tuple[str, float]]) -> Verdict:
    if species == "animal":
        return True, "block", _NO_PERSON
    old = [where for where, age in ages if age > OLDEST]
    if old:
        said = f"human age over {OLDEST} in {some(old, 3)}: so few live so long that it names the person"
        return False, "block", f"{said}; expected '{OLDEST}+'"
    return True, "block", f"no age over {OLDEST} years"


def _faces(root: Path, session: Session, species: str) -> Verdict:
    names = [file.path for file in session.files]
    anatomy = [name for name in names if _ANATOMY.search(name)]
    if species == "animal" or not anatomy:
        return True, "block", "no image of a human head"
    sidecars = [root / name for name in names if name.endswith(".json") and (root / name).is_file()]
    proof = _DEFACED.search(" ".join([*names, *(path.read_text(errors="replace") for path in sidecars)]))
    if proof:
        return True, "block", f"{anatomy[0]} shows a head, and '{proof.group(0)}' says that its face was removed"
    said = f"{anatomy[0]} shows a head, and nothing says that its face was removed: a person must look"
    return False, "block", f"{said}; expected desc-defaced, a defacemask, or Defaced in its JSON"


def _dates(species: str, dates: list[tuple[str, str]]) -> Verdict:
    if species == "animal" or not dates:
        return True, "warn", "no date on which a person was recorded"
    shown = some([f"{date} in {where}" for where, date in dates], 3)
    return False, "warn", f"dates that may be real: {shown}; expected shifted or placeholder dates"


def _remarks(species: str, notes: list[str]) -> Verdict:
    if species == "animal" or not notes:
        return True, "warn", "none in the headers"
    return False, "warn", f"{some(notes, 3)}: a person should read them"


def _texts(recording: Recording) -> list[tuple[str, str]]:
    found = [("a note of the reader", note) for note in recording.provenance.notes]
    for name, stream in recording.streams.items():
        if isinstance(stream, Intervals):
            for column, values in stream.columns.items():
                if getattr(values, "dtype", None) is not None and values.dtype.kind in "UO":
                    found += [(f"{name}.{column}", f"{column}: {value}") for value in sorted(set(map(str, values)))]
        elif isinstance(stream, (Events, Samples)):
            found += [(f"channel names of {name}", one) for one in stream.channels.ids]
    return found
