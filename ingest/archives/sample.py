"""The sample archive: real recordings that wheels of a Python package index carry; a fresh machine needs no other.

Each inner file is pinned by its sha256, so that another build of the same version changes nothing unseen.
"""

from __future__ import annotations

from collections.abc import Iterator

from neurofmx.errors import NotThere
from neurofmx.ingest.archives.other import songs
from neurofmx.ingest.archives.trees import Tree
from neurofmx.ingest.sessions import RemoteFile, Session, Source
from neurofmx.ingest.wheels import wheel_url
from neurofmx.types import Licence, RecordingId, Subject

VERSIONS = {"openhdemg": "0.1.2", "nitime": "0.12.1", "pykanto": "0.1.8"}
_FOLDERS = {
    "openhdemg": "openhdemg/library/decomposed_test_files",
    "nitime": "nitime/data",
    "pykanto": "pykanto/data/segmented",
}
_LICENCES = {"openhdemg": "GPL-3.0-only", "nitime": "BSD-3-Clause", "pykanto": "MIT"}
_CITATIONS = {
    "openhdemg": "Valli et al. 2024, openhdemg",
    "nitime": "nitime, NIPY developers; grasshopper data of CRCNS ia-1",
    "pykanto": "Merino Recalde 2023, pykanto",
}
# sha256, bytes, path below the package's data folder
_PINNED = """
060bca2886c1393e74ad69b7f4af1fa8e7a271e359fb247768d73f8daa0fc84e 11755625 otb_testfile.mat
840014ad9a8f591d02ab108bcbd46715badb3459e0ef7eac95fdd661ff134e3d     7695 grasshopper_spike_times1.txt
4b47a4cbca8c5f694f87dd510db608a868dffbaba96845199c8afa545a4c37fa  3627459 grasshopper_stimulus1.txt
389e5dccb709fbe0552589ff2e0b64e15d46665e4d2d4172071f2175c8641541     7216 grasshopper_spike_times2.txt
69f257a8e7a5019897111b07f9cd317b136357d256e99682d40c09d5add18e6a  3627474 grasshopper_stimulus2.txt
b272a7a8e1981d1b4542e739e5244be41c1bfee8a8d3cd224b87605ec72c2ffd    66972 fmri_timeseries.csv
b0636bef205564ffe8abc7ef9351f9157448082e9100cf96402ac760055998e7   109412 great_tit/WAV/2021-B32-0415_05-11.wav
dc144708f53be1927d255a849f719b7b2aab9e2a9fbc2bc594a070392620e878      869 great_tit/JSON/2021-B32-0415_05-11.JSON
4327b94153186768d715629bd706a5a3fcb5c9740224a533fdc0a12ffc62c1a5   114704 great_tit/WAV/2021-B32-0415_05-15.wav
7e8fbd21be527c96207813241f1501929e08a5bbec7f5aff3d082dc3d9ba449f      870 great_tit/JSON/2021-B32-0415_05-15.JSON
4c226512afa7ec0238d4d37506574ac2f247dce49e44593236cc1237de08693b   114116 great_tit/WAV/2021-B32-0415_05-21.wav
e1ff3c7bcc600a39a7a48cc4e30b8dba056047ee0fa35300dac4176c11f70926      869 great_tit/JSON/2021-B32-0415_05-21.JSON
2a9b10022875bad263c1a9702a8bf04364e8655add0f8b2ec034459b56ff93fd    97652 great_tit/WAV/2021-SW83-0418_04-77.wav
5dba0a1a40358b8afdd5b018db3683e62158ba9e545c687695eebc3a751b5530      872 great_tit/JSON/2021-SW83-0418_04-77.JSON
65cb6bb3ab98dea13aa29f0d57b0ec5e4a80f8a274c9c15fc5ea0f1f1d57519f   183500 great_tit/WAV/2021-SW83-0418_04-78.wav
c2649775a670e462381a1e90d0931c46ddcea4501261af23b9f65520e202c9e9      868 great_tit/JSON/2021-SW83-0418_04-78.JSON
7b50bdea6effcb182c6c84b93e6a9964cf84a044651ebd1132dca61a7b132ba2   222308 great_tit/WAV/2021-SW83-0418_04-79.wav
1f07ef3c2e9d478dc18adcb9641c27bf57c0af51cc89726b19a15a4ac2d4f09c      872 great_tit/JSON/2021-SW83-0418_04-79.JSON
"""
_FILES = {path: (int(size), digest) for digest, size, path in map(str.split, _PINNED.strip().splitlines())}


def list_sessions(source: Source) -> Iterator[Session]:
    """Lists the recordings of one package.

    Raises:
        NotThere: another package or version than those that are pinned.
    """
    if VERSIONS.get(source.dataset) != source.version:
        pinned = ", ".join(f"{name}@{version}" for name, version in VERSIONS.items())
        raise NotThere(f"sample dataset {source.dataset}@{source.version}", expected=f"one of {pinned}")
    if source.dataset == "openhdemg":
        yield _session(
            source, "otb_testfile", "otb", ("otb_testfile.mat",), Subject(id="openhdemg-1", species="Homo sapiens"),
            "ramp contraction",
        )  # fmt: skip
    elif source.dataset == "nitime":
        # the files name neither species nor animal: two stimuli, perhaps one cell, so one subject
        receptor = Subject(id="grasshopper", species="grasshopper")
        for n in (1, 2):
            files = (f"grasshopper_spike_times{n}.txt", f"grasshopper_stimulus{n}.txt")
            yield _session(source, f"grasshopper{n}", "nitime_spikes", files, receptor, "listening to amplitude noise")
        human = Subject(id="nitime-fmri", species="Homo sapiens")
        yield _session(source, "fmri_timeseries", "nitime_fmri", ("fmri_timeseries.csv",), human, "rest")
    else:
        listing = Tree({path: _remote(source, path) for path in _FILES if path.startswith("great_tit/")}, source.text)
        yield from songs(listing, source, _LICENCES["pykanto"], _CITATIONS["pykanto"], "Parus major")


def _session(source: Source, name: str, reader: str, paths: tuple[str, ...], subject: Subject, task: str) -> Session:
    spdx = _LICENCES[source.dataset]
    return Session(
        id=RecordingId(source.archive, source.dataset, source.version, name),
        files=tuple(_remote(source, path) for path in paths),
        reader=reader,
        licence=Licence(spdx=spdx, text=spdx, source=f"metadata of the wheel {source.dataset}=={source.version}"),
        citation=_CITATIONS[source.dataset],
        subject=subject,
        session=name,
        task=task,
    )


def _remote(source: Source, path: str) -> RemoteFile:
    size, digest = _FILES[path]
    url = wheel_url(f"{source.dataset}=={source.version}", f"{_FOLDERS[source.dataset]}/{path}")
    return RemoteFile(path=path, url=url, size=size, digests={"sha256": digest})
