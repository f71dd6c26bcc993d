"""Rows of many arrays at once from a lake that is elsewhere: one call an object, several objects side by side.

A single range request costs twice the processor time of one among several of a call, and a batch that reads its windows
one after the other waits for each: this asks for them all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from neurofmx.errors import LakeCorrupt
from neurofmx.remote import Remote
from neurofmx.shards import ShardedArray


def read_ahead(wanted: Sequence[tuple[ShardedArray, int, int] | None]) -> dict[int, np.ndarray]:
    """Fetches what can be had in whole calls; nothing, at once, for a lake on this disk.

    Args:
        wanted: array and rows [lo, hi), None for nothing.

    Returns:
        Number in ``wanted`` -> its rows, flat. What is missing there is read by `ShardedArray.read_into`, which
        also names what is damaged.
    """
    far = {}
    for i, one in enumerate(wanted):
        if one is not None and isinstance(one[0].source, Remote) and one[0].codec == "none" and one[2] > one[1]:
            array, lo, hi = one
            shard = lo // array.shard_rows
            if hi <= (shard + 1) * array.shard_rows and not os.path.exists(array.shard_files[shard]):
                far.setdefault((array.source, array.shard_files[shard]), []).append(i)

    def fetched(where: tuple[Remote, str]) -> dict[int, np.ndarray]:
        remote, file = where
        spans = []
        for i in far[where]:
            array, lo, hi = wanted[i] or (None, 0, 0)
            assert array is not None
            spans.append((lo % array.shard_rows * array.row_bytes, (hi - lo) * array.row_bytes, array.dtype))
        try:
            blocks = remote.ranges(file, [at for at, *_ in spans], [size for _, size, _ in spans])
        except LakeCorrupt:
            return {}
        return {i: np.frombuffer(block, span[2]) for i, block, span in zip(far[where], blocks, spans, strict=True)}

    if not far:
        return {}
    remote = next(iter(far))[0]
    return {i: rows for part in remote.each(fetched, far) for i, rows in part.items()}
