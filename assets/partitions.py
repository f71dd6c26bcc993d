"""One set of dynamic partitions a dataset, keyed by recording id; and what a dataset is called in the graph."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import dagster as dg

from neurofmx.errors import ConfigError
from neurofmx.ingest.sessions import Source
from neurofmx.ingest.sources import sources_of
from neurofmx.lake import Lake

LAYERS = ("raw", "recording", "tokens")
# archives that are asked over the network when a source gives no address of its own
REMOTE = ("sample", "dandi", "physionet", "openneuro", "ibl")


def inbox_source(lake: Lake) -> Source:
    """The folder ``<lake>/inbox`` as a dataset: what is dropped there becomes a partition."""
    return Source(archive="folder", dataset="inbox", version="1", address=str(lake.root / "inbox"))


def known_sources(lake: Lake) -> list[Source]:
    """The sources of a lake, the demo's where it has none yet, and its inbox.

    Raises:
        ConfigError: two sources would have the same asset keys.
    """
    sources = {s.text: s for s in [*sources_of(lake), inbox_source(lake)]}
    taken: dict[tuple[str, ...], str] = {}
    for text, source in sources.items():
        other = taken.setdefault(tuple(key_prefix(source)), text)
        if other != text:
            raise ConfigError(
                f"sources {other} and {text}", expected="names that differ in letters or digits", fix="Rename one."
            )
    return list(sources.values())


def partitions_of(source: Source) -> dg.DynamicPartitionsDefinition:
    """The partitions of a dataset; each key is the text of a RecordingId."""
    return dg.DynamicPartitionsDefinition(name=source.text)


def key_prefix(source: Source) -> list[str]:
    """Archive, dataset and version as parts of an asset key."""
    return [_name(part) for part in (source.archive, source.dataset, source.version)]


def layer_key(source: Source, layer: str) -> dg.AssetKey:
    """The key of one layer of a dataset, such as ``dandi/000140/0_220113_0408/raw``."""
    return dg.AssetKey([*key_prefix(source), layer])


def group_of(source: Source) -> str:
    """The group that a dataset's assets are drawn in; also the name of its job, less the prefix."""
    return "__".join(key_prefix(source))


def pool_of(source: Source) -> str | None:
    """The pool that keeps the number of connections to a host polite; None where nothing remote is asked."""
    if source.address.startswith(("http://", "https://")):
        return f"archive_{_name(urlsplit(source.address).netloc)}"
    return f"archive_{source.archive}" if not source.address and source.archive in REMOTE else None


def add_partitions(instance: dg.DagsterInstance, source: Source, keys: list[str]) -> list[str]:
    """Adds the keys that a dataset lacks; returns those, in the order given."""
    known = set(instance.get_dynamic_partitions(source.text))
    new = [key for key in keys if key not in known]
    if new:
        instance.add_dynamic_partitions(source.text, new)
    return new


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "all"
