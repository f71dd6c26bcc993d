"""NeuroFM-X: from raw neural recordings to numbers that can be traced, re-derived and refuted.

Three lines take a session to a decoding table with baselines and intervals:

    import neurofmx
    result = neurofmx.decode("session.nwb", target="position")
    print(result.table())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neurofmx.errors import NeurofmxError
from neurofmx.lake import Lake
from neurofmx.types import Recording, RecordingId, Score

if TYPE_CHECKING:
    from neurofmx.evaluate.decode import DecodeResult

__all__ = ["Lake", "NeurofmxError", "Recording", "RecordingId", "Score", "decode", "open_recording", "sql"]


def decode(path: str, *, target: str | None = None, **options: Any) -> DecodeResult:
    """Decodes one's own recording: see `neurofmx.evaluate.decode.decode`, imported on first use."""
    from neurofmx.evaluate.decode import decode as run

    return run(path, target=target, **options)


def open_recording(path: str) -> Recording:
    """Opens one's own NWB, EDF, BIDS run or ALF folder as a validated Recording, without a lake."""
    from neurofmx.ingest.ingest import open_local

    return open_local(path)


def sql(query: str, lake: str | None = None) -> Any:
    """Runs SQL over the lake's catalog and returns a pyarrow Table."""
    from neurofmx import catalog

    return catalog.query(Lake.open(lake), query)
