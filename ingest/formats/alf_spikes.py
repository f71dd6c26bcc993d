"""Sorted spikes of an IBL probe: every cluster a channel, with its region and place where the session has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats.alf_files import Attribute, Objects, column, load
from neurofmx.types import Channels, Events, Stream

_ACRONYMS = ("brainLocationAcronyms_ccf_2017", "acronym")


def streams(root: Path, found: Objects, collection: str, notes: list[str]) -> dict[str, Stream]:
    """The spikes of one folder.

    Args:
        root: folder of the files.
        found: the session's ALF objects.
        collection: folder that holds ``spikes``, and ``clusters`` and ``channels`` where it has them.
        notes: takes one sentence for each thing that was decided.

    Raises:
        MalformedFile: times and clusters differ in number, or a cluster has no row.
    """
    own = found[(collection, "spikes")]
    if not {"times", "clusters"} <= set(own):
        notes.append(f"incomplete: spikes of {collection or 'alf'} holds {', '.join(own)}, not times and clusters")
        return {}
    times = np.asarray(load(root, own["times"]), np.float64).reshape(-1)
    codes = np.asarray(load(root, own["clusters"])).reshape(-1).astype(np.int64)
    if len(times) != len(codes):
        raise MalformedFile(own["times"].path, got=f"{len(times)} times", expected=f"{len(codes)}, one a cluster label")
    if np.any(np.diff(times) < 0):
        notes.append("spikes: put in order of time")
        order = np.argsort(times, kind="stable")
        times, codes = times[order], codes[order]
    channels = _clusters(root, found, collection, int(codes.max(initial=-1)) + 1)
    if codes.size and (codes.min() < 0 or codes.max() >= len(channels)):
        raise MalformedFile(own["clusters"].path, got=f"cluster {codes.max()}", expected=f"below {len(channels)}")
    notes.append(f"spikes of {collection or 'alf'}: all {len(channels)} clusters of the sorter, good and bad; observed "
                 "from the first spike to the last")  # fmt: skip
    valid = np.array([[times[0], times[-1]]]) if len(times) else np.empty((0, 2))
    return {
        "spikes": Events(times_s=times, codes=codes.astype(np.int32), channels=channels, modality="spikes", valid=valid)
    }


def _clusters(root: Path, found: Objects, collection: str, n_seen: int) -> Channels:
    clusters, sites = found.get((collection, "clusters"), {}), found.get((collection, "channels"), {})
    site = np.asarray(load(root, clusters["channels"])).reshape(-1).astype(np.int64) if "channels" in clusters else None
    n = len(site) if site is not None else n_seen
    text = _first(root, clusters, _ACRONYMS)
    if text is None and site is not None:
        of_site = _first(root, sites, _ACRONYMS)
        text = None if of_site is None else of_site[site]
        if text is None and "brainLocationIds_ccf_2017" in sites:
            ids = np.asarray(load(root, sites["brainLocationIds_ccf_2017"])).reshape(-1)[site]
            text = np.array([f"ccf2017:{int(i)}" for i in ids], dtype=str)
    if text is not None and len(text) != n:
        raise MalformedFile(f"clusters of {collection or 'alf'}", got=f"{len(text)} regions", expected=f"{n}")
    places = None
    if site is not None and "mlapdv" in sites:
        places = np.asarray(load(root, sites["mlapdv"]), np.float64).reshape(-1, 3)[site]
    return Channels(
        ids=tuple(map(str, range(n))), regions=tuple(map(str, text)) if text is not None else (), positions_um=places
    )


def _first(root: Path, own: dict[str, Attribute], names: tuple[str, ...]) -> np.ndarray | None:
    name = next((name for name in names if name in own and own[name].extension == "npy"), None)
    return None if name is None else column(load(root, own[name]))
