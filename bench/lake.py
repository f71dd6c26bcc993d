"""The lake: reading and writing, the loader beside its peers, alignment, the catalog at scale, a lake on S3."""

from __future__ import annotations

from bench import catalog_scale, lake_align, lake_loader, lake_read, lake_remote
from bench.figure import Figure

PARTS = (lake_read, lake_loader, lake_align, catalog_scale, lake_remote)


def figures() -> list[Figure]:
    """All figures of the lake, each part with a lake of its own."""
    return [figure for part in PARTS for figure in part.figures()]
