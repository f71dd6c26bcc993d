"""OpenNeuro: a BIDS tree in a folder, or the file list that its GraphQL API answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from neurofmx.errors import MalformedFile, NotThere
from neurofmx.ingest.archives import bids
from neurofmx.ingest.archives.trees import Tree, folder_tree
from neurofmx.ingest.sessions import RemoteFile, Session, Source
from neurofmx.ingest.web import is_url, read_json

GRAPHQL = "https://openneuro.org/crn/graphql"
_QUERY = """query files($dataset: ID!, $tag: String!) {
  snapshot(datasetId: $dataset, tag: $tag) { files(recursive: true) { filename urls size directory } }
}"""


def list_sessions(source: Source) -> Iterator[Session]:
    """Lists the runs of a dataset.

    Args:
        source: ``address`` is a folder that holds ``<dataset>/dataset_description.json``, the URL of a GraphQL
            endpoint, or ``""`` for the public archive.

    Raises:
        NotThere: no such dataset or snapshot.
        MalformedFile: an answer that is not OpenNeuro's.
    """
    address = source.address or GRAPHQL
    if is_url(address):
        tree = _asked(address, source)
    else:
        root = Path(address).expanduser().resolve() / source.dataset
        tree = folder_tree(root)
    yield from bids.sessions(tree, source)


def datasets(folder: Path) -> list[tuple[str, str]]:
    """The (dataset, version) pairs that a folder holds; the version is the end of the DOI, as OpenNeuro writes it."""
    found = []
    for path in sorted(folder.glob("*/dataset_description.json")):
        about = json.loads(path.read_text())
        version = re.search(r"\.v([\w.]+)$", str(about.get("DatasetDOI", "")))
        found.append((path.parent.name, version.group(1) if version else "draft"))
    return found


def _asked(endpoint: str, source: Source) -> Tree:
    variables = {"dataset": source.dataset, "tag": source.version}
    answer = read_json(endpoint, body={"query": _QUERY, "variables": variables})
    where = f"{source.dataset} {source.version} of {endpoint}"
    if answer.get("errors"):
        raise NotThere(f"dataset {where}", got=str(answer["errors"][0].get("message")), expected="a snapshot")
    snapshot = (answer.get("data") or {}).get("snapshot")
    if snapshot is None:
        raise NotThere(f"dataset {where}", got="no snapshot", expected="a dataset and tag that exist")
    files = {}
    for row in snapshot["files"]:
        if row.get("directory"):
            continue
        if not row.get("urls"):
            raise MalformedFile(f"{row.get('filename')} of {where}", got="no URL", expected="at least one")
        files[row["filename"]] = RemoteFile(path=row["filename"], url=row["urls"][0], size=row.get("size"))
    return Tree(dict(sorted(files.items())), where)
