"""A process that imports everything once and forks a writer for each line it is given: writers that can be killed.

A line is ``<lake> <round> <report>``, parted by tabs. The writer works through the round's steps again and again and
appends what it did to the report, the digests of the snapshots that it took among it. Killed anywhere, it leaves a
lake that must be whole.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from neurofmx import collect, pack, parts, snapshots, versions
from neurofmx.lake import Lake
from neurofmx.tables import TABLES
from neurofmx.types import Provenance, RawFile

_FILE = importlib.util.spec_from_file_location("lakes", Path(__file__).with_name("lakes.py"))
assert _FILE is not None
assert _FILE.loader is not None
lakes: Any = importlib.util.module_from_spec(_FILE)
_FILE.loader.exec_module(lakes)

NAMES, CONTENTS = ("r0", "r1", "r2"), 5
STEPS = 9  # that a round says


def publish(lake: Lake, name: str, content: int) -> None:
    """A raw file, a recording and its tokens; the same for the same content."""
    data = f"raw of {name}, {content}".encode()
    given = lake.root / "tmp" / f"given-{os.getpid()}"
    given.write_bytes(data)
    file = RawFile(path="f", url="u", sha256=lake.add_raw(given), size=len(data))
    made = replace(lakes.recording(name, content), provenance=Provenance(files=(file,), reader="t@1"))
    lake.publish_recording(made)
    lake.publish_tokens(made.id, lakes.spec(), lakes.tokens(content))


def work(lake: Lake, round_: int, say: Callable[[str], object] = str) -> str:
    """All steps of a round; returns the digest of the snapshot at its end, which the round alone determines."""
    for i, name in enumerate(NAMES):
        publish(lake, name, (round_ + i) % CONTENTS)
        say(f"published {name}")
        if i == 1:
            say(snapshots.take(lake, f"name-{round_ % 3}", move=True))
            for table in TABLES:
                parts.compact(lake, table)
            say("compacted")
    pack.convert(lake, "lz4" if round_ % 2 else "none", [f"a:b@1/{NAMES[2]}"])
    say("converted")
    digest = snapshots.take(lake)
    say(digest)
    packed = lake.root.parent / f"{lake.root.name}-packed"
    if packed.exists():
        shutil.rmtree(packed.rename(packed.with_suffix(f".old{os.getpid()}")))
    pack.pack(lake, packed)
    say("packed")
    collect.gc(lake, grace_s=0)
    say("collected")
    return digest


def _until_killed(root: str, round_: int, report: str) -> None:
    lake = Lake.open(root)
    with open(report, "a", buffering=1) as out:
        while True:
            digest = work(lake, round_, lambda said: out.write(f"{said}\n"))
            versions.publish(lake, digest)
            round_ += 1


def main() -> None:
    """Forks a writer a line and says its process id; the writer is waited for at the next line."""
    for name in ("pyarrow.parquet", "pyarrow.compute", "zarr", "icechunk"):  # or every writer imports them again
        importlib.import_module(name)
    child = 0
    for line in sys.stdin:
        if child:
            os.waitpid(child, 0)
        child = os.fork()
        if not child:
            root, round_, report = line.rstrip("\n").split("\t")
            _until_killed(root, int(round_), report)
        print(child, flush=True)


if __name__ == "__main__":
    main()
