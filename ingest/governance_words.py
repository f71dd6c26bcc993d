"""Words that give a person away: patterns that ask for context, never for a capital letter alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_DATE = r"(?:\d{1,4}[-/. ](?:\d{1,2}|[A-Za-z]{3,9})[-/. ]\d{1,4}|(?:19|20)\d\d[01]\d[0-3]\d)"
_WORD = r"[A-Z][A-Za-z'-]+"
# what stands where a name was
_BLANK = (
    r"(?!(?:X|NA|None|Not|Unknown|Anon\w*|Removed|Withheld|Redacted|De-?identified|Placeholder|Test|Healthy|Control|Subject|"
    r"Patient|Participant|Volunteer|Surrogate|Female|Male|Sleep)(?![A-Za-z]))"
)
# age in years above which a person is one of few (45 CFR 164.514(b)(2)(i)(C))
OLDEST = 89


@dataclass(frozen=True)
class Mark:
    """One kind of identifier and how it shows in free text.

    Args:
        kind: in words.
        pattern: the identifier itself is its first group.
        contact: belongs to authors as often as to subjects.
    """

    kind: str
    pattern: re.Pattern[str]
    contact: bool = False


_RECORD = (
    r"\b(?:MRN|medical record|hospital (?:record|number|no|id)|record (?:number|no))\b"
    r"[^\w\n]{0,4}(?:(?:number|no|id)\b[^\w\n]{0,4})?((?=(?:[A-Za-z-]*\d){4})[\w-]+)"
)
# a study's own code has fewer digits
_PATIENT_ID = r"\bpatient (?:id|identifier|number|no)\b[^\w\n]{0,4}((?=(?:[A-Za-z-]*\d){6})[\w-]+)"
_BORN = rf"\b(?:date of birth|birth ?date|birthday|d\.?o\.?b\.?|born(?: on)?)\b[^\w\n]{{0,4}}({_DATE})"
_WHO = r"\b(?i:(?:patient|participant|subject|volunteer)(?:'s)?[ _]?name)\b"
MARKS = (
    Mark("record number", re.compile(_RECORD, re.IGNORECASE)),
    Mark("record number", re.compile(_PATIENT_ID, re.IGNORECASE)),
    Mark("birth date", re.compile(_BORN, re.IGNORECASE)),
    Mark("name", re.compile(rf"{_WHO}\W{{0,4}}{_BLANK}({_WORD}(?:[ ^,_]+{_WORD})?)\b")),
    Mark("name", re.compile(rf"\b(?i:patient)(?::| is| was)\s+{_BLANK}({_WORD} {_WORD})\b")),
    Mark("name", re.compile(rf"\b(?:Mr|Mrs|Ms|Miss)\.?\s+({_WORD})\b")),
    Mark("name", re.compile(rf"\b({_WORD} {_WORD})\W{{1,3}}(?:MRN|DOB|born\b|date of birth)")),
    Mark("e-mail address", re.compile(r"\b([\w.+-]+@[\w-]+\.[\w.-]*[A-Za-z])"), contact=True),
)
# without one of these no mark above can be met: most texts are done with one look
_CONTEXT = re.compile(r"@|mrn|record|hospital|patient|birth|born|d\.?o\.?b|name|\bm(?:rs?|s|iss)\b", re.IGNORECASE)
# in a field that is made for a person, no context is needed
_PATIENT_FIELD = (
    Mark("name", re.compile(rf"(?<![A-Za-z]){_BLANK}({_WORD}[ _^,.]+(?!X\b){_WORD})(?![A-Za-z])")),
    Mark("birth date", re.compile(rf"(?<!\d)(?!01-JAN-)({_DATE})(?!\d)", re.IGNORECASE)),  # 1 January: the year alone
)
_PERSON = re.compile(rf"{_BLANK}({_WORD})[ _^,.]+({_WORD})(?:[ _^,.]+{_WORD})*")


@dataclass(frozen=True)
class Hit:
    """One identifier that was found: what it is, where, and enough of it to find it again."""

    kind: str
    where: str
    masked: str
    contact: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.masked} in {self.where}"


def hits(where: str, text: str) -> list[Hit]:
    """The identifiers that a text gives away.

    Args:
        where: the place that it stands in, for the evidence.
        text: free text, or ``field: value`` for a field of its own.
    """
    return _found(MARKS, where, text)


def hits_in_patient_field(where: str, text: str) -> list[Hit]:
    """The identifiers in a field that is made for a patient: there a name or a date needs no context."""
    return _found((*MARKS, *_PATIENT_FIELD), where, f"patient id: {text}")


def _found(marks: Iterable[Mark], where: str, text: str) -> list[Hit]:
    if not _CONTEXT.search(text):
        return []
    return [
        Hit(mark.kind, where, masked(found.group(1)), mark.contact)
        for mark in marks
        for found in mark.pattern.finditer(text)
    ]


def masked(text: str) -> str:
    """First letter of each word, the rest as stars: evidence must not spread what it found."""
    return re.sub(r"[^\W_]+", lambda word: word.group(0)[0] + "*" * (len(word.group(0)) - 1), text)


def as_words(key: str) -> str:
    """``PatientBirthDate`` and ``patient_birth_date`` as the words that the patterns look for."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).replace("_", " ")


def person(text: str) -> bool:
    """Whether a whole field reads as a first name and a surname: ``Jane_Doe``, ``DOE^JANE``."""
    return _PERSON.fullmatch(text.strip()) is not None


def years(age: str) -> float | None:
    """An age as archives write it, in years: ``P95Y``, ``95 years``, ``95Y``, ``095Y``, ``P34675D``, ``95``.

    Returns:
        None where it states none.
    """
    found = re.search(r"(\d+(?:\.\d+)?)\s*([A-Za-z]?)", age)
    if not found:
        return None
    per_year = {"D": 365.25, "W": 52.18, "M": 12.0, "H": 8766.0}.get(found.group(2).upper(), 1.0)
    return float(found.group(1)) / per_year


def species_of(text: str) -> str:
    """``human``, ``animal``, or ``unknown`` where nothing is stated."""
    known = text.strip().lower()
    if not known or known in ("n/a", "unknown"):
        return "unknown"
    return "human" if re.search(r"homo sapiens|\bhumans?\b|ncbitaxon_9606\b", known) else "animal"
