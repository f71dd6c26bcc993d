"""What an archive writes about terms, as an SPDX identifier."""

from __future__ import annotations

import re

from neurofmx.types import Licence, sanitise

# the terms of data before those of code: a text that names both speaks of the data first
_KNOWN = (
    (r"credentialed health data|restricted health data", "LicenseRef-PhysioNet-Restricted", False),
    (r"cc0|creative commons zero", "CC0-1.0", True),
    (r"pddl|public domain dedication", "PDDL-1.0", True),
    (r"odc-by|open data commons attribution", "ODC-By-1.0", True),
    (r"odbl|open database licen[cs]e", "ODbL-1.0", True),
    (r"cc[ -]by[ -]nc[ -]sa[ -]?4", "CC-BY-NC-SA-4.0", True),
    (r"cc[ -]by[ -]nc[ -]nd[ -]?4", "CC-BY-NC-ND-4.0", True),
    (r"cc[ -]by[ -]nc[ -]?4", "CC-BY-NC-4.0", True),
    (r"cc[ -]by[ -]sa[ -]?3", "CC-BY-SA-3.0", True),
    (r"cc[ -]by[ -]sa[ -]?4", "CC-BY-SA-4.0", True),
    (r"cc[ -]by[ -]?3", "CC-BY-3.0", True),
    (r"cc[ -]by[ -]?4|creative commons attribution 4", "CC-BY-4.0", True),
    (r"lgpl-3\.0-or-later", "LGPL-3.0-or-later", True),
    (r"lgpl-?3|lesser general public licen[cs]e.{0,20}3", "LGPL-3.0-only", True),
    (r"gpl-3\.0-or-later", "GPL-3.0-or-later", True),
    (r"gpl-?3|gnu general public licen[cs]e.{0,20}3", "GPL-3.0-only", True),
    (r"gpl-2\.0-or-later", "GPL-2.0-or-later", True),
    (r"gpl-?2|gnu general public licen[cs]e.{0,20}2", "GPL-2.0-only", True),
    (r"apache.{0,20}2", "Apache-2.0", True),
    (r"bsd-3|bsd 3", "BSD-3-Clause", True),
    (r"bsd-2|bsd 2", "BSD-2-Clause", True),
    (r"\bmit\b", "MIT", True),
)


def licence(text: str, source: str) -> Licence | None:
    """The licence that a text states, or None where it states nothing.

    Args:
        text: the archive's own words.
        source: where they stand.

    Returns:
        A known SPDX identifier, else ``LicenseRef-`` with the first words and no right to pass the bytes on.
    """
    words = text.removeprefix("spdx:").strip()
    if not words or words.lower() in ("n/a", "none", "unknown", "tbd"):
        return None
    for pattern, spdx, redistribute in _KNOWN:
        if re.search(pattern, words, re.IGNORECASE | re.DOTALL):
            return Licence(spdx=spdx, text=words, source=source, redistribute=redistribute)
    return Licence(spdx=f"LicenseRef-{sanitise(words[:40])}", text=words, source=source, redistribute=False)
