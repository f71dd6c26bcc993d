"""The header of an EDF, EDF+ or BDF file, read byte by byte and held against the size of the file.

Kemp et al. 1992, Electroenceph. Clin. Neurophysiol. 82:391; EDF+: Kemp and Olivan 2003, Clin. Neurophysiol. 114:1755.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from neurofmx.errors import MalformedFile

_FIXED = 256  # bytes before the signals' fields; each signal adds as many
_WIDTHS = (
    ("label", 16), ("transducer", 80), ("unit", 8), ("physical_min", 8), ("physical_max", 8), ("digital_min", 8),
    ("digital_max", 8), ("prefilter", 80), ("samples", 8), ("reserved", 32),
)  # fmt: skip
_ENOUGH_LINE_ENDS = 8  # by chance alone, so many LF bytes all behind a CR do not occur in samples


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One signal of the header.

    Args:
        label: as the file has it.
        unit: physical dimension as the file has it.
        samples: samples in one record.
        offset: bytes before it in a record.
        gain: physical units a digital step, NaN where the ranges give none.
        base: physical value of the digital zero.
        prefilter: filters applied, as the file states them.
    """

    label: str
    unit: str
    samples: int
    offset: int
    gain: float
    base: float
    prefilter: str

    @property
    def is_annotations(self) -> bool:
        """Whether it holds EDF+ annotations in place of samples."""
        return self.label in ("EDF Annotations", "BDF Annotations")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a header says.

    Args:
        width: bytes a sample: 2 for EDF, 3 for BDF.
        kind: ``EDF``, ``EDF+C``, ``EDF+D``, ``BDF``, ``BDF+C`` or ``BDF+D``.
        start: bytes of the header.
        records: number of data records.
        record_s: seconds of a record, 0 where the file holds annotations alone.
        record_bytes: bytes of a record.
        signals: in the order of the file.
        sex: what EDF+ says of the patient: ``M``, ``F`` or nothing.
        notes: what had to be decided.
    """

    width: int
    kind: str
    start: int
    records: int
    record_s: float
    record_bytes: int
    signals: tuple[Signal, ...]
    sex: str
    notes: tuple[str, ...]


def read_header(path: Path, name: str) -> Header:
    """Reads a header and holds the size of the file against it.

    Args:
        path: the file.
        name: its name in the dataset, for messages.

    Raises:
        MalformedFile: no EDF or BDF header; line ends that a transfer in text mode changed; or another size than
            header and records imply.
    """
    with path.open("rb") as handle:
        fixed = handle.read(_FIXED)
        if len(fixed) < _FIXED or not (fixed[:8] == b"0       " or fixed[:8] == b"\xffBIOSEMI"):
            raise MalformedFile(
                name, got=f"{fixed[:8]!r}", expected="a first field of '0' (EDF) or BIOSEMI (BDF)",
                fix="Fetch it again, or name it by what it is.",
            )  # fmt: skip
        width = 2 if fixed[:1] == b"0" else 3
        count = _whole(fixed[252:256], "number of signals", name)
        fields = handle.read(_FIXED * count)
    if count < 1 or len(fields) < _FIXED * count:
        raise MalformedFile(f"header of {name}", got=f"{count} signals, {_FIXED + len(fields)} bytes",
                            expected="256 bytes and 256 more for each signal")  # fmt: skip
    start = _whole(fixed[184:192], "bytes of the header", name)
    if start != _FIXED * (1 + count):
        raise MalformedFile(f"header of {name}", got=f"{start} bytes for {count} signals",
                            expected=f"{_FIXED * (1 + count)}")  # fmt: skip
    record_s = _number(fixed[244:252], "seconds of a record", name)
    signals = _signals(fields, count, width, name)
    record_bytes = width * sum(signal.samples for signal in signals)
    if record_bytes < 1 or record_s < 0 or (record_s == 0 and not all(s.is_annotations for s in signals)):
        raise MalformedFile(f"header of {name}", got=f"records of {record_s:g} s and {record_bytes} bytes",
                            expected="a duration and samples")  # fmt: skip
    stated = _whole(fixed[236:244], "number of records", name)
    records, notes = _records(path, name, stated, start, record_bytes)
    if records < 1:
        raise MalformedFile(name, got="no data record", expected="at least one")
    plus = fixed[192:197].decode("latin-1")
    kind = plus if plus in ("EDF+C", "EDF+D", "BDF+C", "BDF+D") else "EDF" if width == 2 else "BDF"
    patient = fixed[8:88].decode("latin-1").split()
    return Header(
        width=width, kind=kind, start=start, records=records, record_s=record_s, record_bytes=record_bytes,
        signals=signals, sex=patient[1] if "+" in kind and len(patient) > 1 and patient[1] in ("M", "F") else "",
        notes=notes,
    )  # fmt: skip


def _signals(fields: bytes, count: int, width: int, name: str) -> tuple[Signal, ...]:
    columns: dict[str, list[bytes]] = {}
    at = 0
    for field, size in _WIDTHS:
        columns[field] = [fields[at + i * size : at + (i + 1) * size] for i in range(count)]
        at += size * count
    found: list[Signal] = []
    offset = 0
    for i in range(count):
        label = columns["label"][i].decode("latin-1").strip()
        samples = _whole(columns["samples"][i], f"samples of {label}", name)
        if samples < 0:
            raise MalformedFile(f"header of {name}", got=f"{samples} samples of {label}", expected="0 or more")
        low, high, first, last = (
            _number(columns[field][i], f"{field} of {label}", name)
            for field in ("physical_min", "physical_max", "digital_min", "digital_max")
        )
        gain = (high - low) / (last - first) if last > first and high != low else math.nan
        found.append(
            Signal(
                label=label, unit=columns["unit"][i].decode("latin-1").strip(), samples=samples, offset=offset,
                gain=gain, base=low - first * gain, prefilter=columns["prefilter"][i].decode("latin-1").strip(),
            )
        )  # fmt: skip
        offset += width * samples
    return tuple(found)


def _records(path: Path, name: str, stated: int, start: int, record_bytes: int) -> tuple[int, tuple[str, ...]]:
    """The number of records, once the file is sure to hold them.

    A transfer in text mode is looked for whatever the size is: a file that was cut as well can have the right one.
    """
    size = path.stat().st_size
    implied = start + stated * record_bytes
    line_ends, behind_cr = _line_ends(path)
    if line_ends >= _ENOUGH_LINE_ENDS and behind_cr == line_ends:
        whole = stated >= 0 and size - line_ends == implied
        raise MalformedFile(
            name,
            got=f"{size} bytes, in which each of {line_ends} LF bytes stands behind a CR: a transfer in text mode "
            f"made CRLF of LF",
            expected=f"{implied} bytes ({start} of header, {stated} records of {record_bytes}) with lone LF bytes",
            fix="Fetch it again in binary mode. "
            + (
                f"Taking the {line_ends} CR bytes out would give the implied size; that is left to a person."
                if whole
                else f"Taking the {line_ends} CR bytes out would leave {size - line_ends} bytes: bytes are lost."
            ),
        )
    if stated == -1 and size > start and (size - start) % record_bytes == 0:
        records = (size - start) // record_bytes
        return records, (f"the header leaves the number of records open; the size of the file gives {records}",)
    if size != implied:
        raise MalformedFile(
            name,
            got=f"{size} bytes",
            expected=f"{implied} bytes: {start} of header and {stated} records of {record_bytes}",
            fix="Fetch it again, or ask its authors.",
        )
    return stated, ()


def _line_ends(path: Path) -> tuple[int, int]:
    """Number of LF bytes in a file, and of those behind a CR."""
    every = behind = 0
    last = b""
    with path.open("rb") as handle:
        while block := handle.read(1 << 24):
            every += block.count(b"\n")
            behind += block.count(b"\r\n") + (last == b"\r" and block[:1] == b"\n")
            last = block[-1:]
    return every, behind


def _number(field: bytes, what: str, name: str) -> float:
    text = field.decode("latin-1").strip().rstrip("\0")
    try:
        value = float(text)
    except ValueError as error:
        raise MalformedFile(f"{what} in {name}", got=repr(text), expected="a number") from error
    if not math.isfinite(value):
        raise MalformedFile(f"{what} in {name}", got=repr(text), expected="a finite number")
    return value


def _whole(field: bytes, what: str, name: str) -> int:
    value = _number(field, what, name)
    if value != int(value):
        raise MalformedFile(f"{what} in {name}", got=f"{value:g}", expected="a whole number")
    return int(value)
