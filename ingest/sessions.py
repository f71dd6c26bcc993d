"""What a connector hands on: the files of one recording, where they are, and what the archive says of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neurofmx.errors import ConfigError
from neurofmx.types import Licence, RecordingId, Subject

_SOURCE = re.compile(r"^(?P<archive>[^:@/]+):(?P<dataset>[^:@/]+)@(?P<version>[^:@/]+)$")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file as an archive offers it.

    Args:
        path: its name inside the dataset, with ``/``.
        url: ``file://``, ``http(s)://`` or ``wheel://package==version/inner/path``.
        size: bytes, or None where the archive does not say.
        digests: published digests by algorithm: ``sha256``, ``md5``, ``dandi-etag``.
    """

    path: str
    url: str
    size: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Session:
    """One recording before it is read.

    Args:
        id: the recording's name for ever.
        files: what must be fetched; the first one is the file that the reader opens.
        reader: row of ``ingest.formats.table``.
        licence: terms, or None where the archive states none (which blocks).
        citation: how to cite the data.
        subject: who was recorded, or None where only the file can tell.
        session: the archive's own session label.
        task: what the subject did.
        options: what the reader must be told, JSON types only.
    """

    id: RecordingId
    files: tuple[RemoteFile, ...]
    reader: str
    licence: Licence | None = None
    citation: str = ""
    subject: Subject | None = None
    session: str = ""
    task: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One dataset of one archive, and where to reach it.

    Args:
        archive: row of ``ingest.archives.table``.
        dataset: the archive's own id, or ``*`` for all that the address holds.
        version: dataset version or snapshot.
        address: a folder laid out as the archive lays it out, a base URL, or ``""`` where the archive needs none.
    """

    archive: str
    dataset: str
    version: str
    address: str = ""

    @property
    def text(self) -> str:
        """``archive:dataset@version``, as in a RecordingId."""
        return f"{self.archive}:{self.dataset}@{self.version}"

    @classmethod
    def parse(cls, text: str, address: str = "") -> Source:
        """Reads ``archive:dataset@version`` back.

        Raises:
            ConfigError: the text has another shape.
        """
        found = _SOURCE.match(text)
        if not found:
            raise ConfigError("source", got=text, expected="archive:dataset@version")
        return cls(**found.groupdict(), address=address)
