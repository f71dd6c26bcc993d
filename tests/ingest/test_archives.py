"""Every archive lists the same recordings from a folder and over loopback HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from neurofmx.errors import ConfigError, Denied, MalformedFile, NotThere
from neurofmx.ingest import sources
from neurofmx.ingest.archives import bids, folder, licences, sample
from neurofmx.ingest.archives.table import ARCHIVES, list_sessions
from neurofmx.ingest.archives.trees import folder_tree
from neurofmx.ingest.fetch import fetch_file
from neurofmx.ingest.local import local_sessions
from neurofmx.ingest.sessions import Session, Source
from neurofmx.ingest.web import local_path
from neurofmx.types import Subject

# source -> number of recordings in the mirror, its licence
MIRROR = {
    "dandi:900001@draft": (2, "MIT"),
    "dandi:900003@draft": (15, "LGPL-3.0-or-later"),
    "dandi:900008@draft": (10, "CC-BY-4.0"),
    "physionet:eegmmidb@1.0.0": (14, "ODC-By-1.0"),
    "physionet:wfdb-sample@1.0.0": (9, "ODC-By-1.0"),
    "openneuro:ds900101@1.0.0": (12, "CC-BY-SA-3.0"),
    "openneuro:ds900102@1.0.0": (36, "BSD-3-Clause"),
    "openneuro:ds900103@1.0.0": (68, "GPL-3.0-only"),
    "openneuro:ds900104@1.0.0": (2, "LicenseRef-BSD-type-licence-of-Homer3-see-LICENSES"),
    "openneuro:ds900106@1.0.0": (1, "BSD-3-Clause"),
    "ibl:cortexlab@public": (1, "CC-BY-4.0"),
    "ibl:unknownlab@public": (2, "CC-BY-4.0"),
    "other:audio-pykanto@1": (6, "MIT"),
}
FOLDERS = {"dandi": "dandi", "physionet": "physionet/files", "openneuro": "openneuro", "ibl": "ibl", "other": "other"}
ADDRESSES = FOLDERS | {"dandi": "dandi/api", "openneuro": "openneuro/graphql"}


def at(mirror: Path, text: str) -> Source:
    source = Source.parse(text)
    return replace(source, address=str(mirror / FOLDERS[source.archive]))


def served(server, text: str) -> Source:
    source = Source.parse(text)
    return replace(source, address=f"{server.url}/{ADDRESSES[source.archive]}")


@pytest.mark.parametrize("text", MIRROR)
def test_folder(mirror, text):
    sessions = list(list_sessions(at(mirror, text)))
    count, spdx = MIRROR[text]
    assert len(sessions) == count and len({str(s.id) for s in sessions}) == count
    for session in sessions:
        assert session.id.source == text and session.licence and session.licence.spdx == spdx
        assert session.citation and session.files and all(f.size for f in session.files)


@pytest.mark.parametrize("text", MIRROR)
def test_http_lists_what_the_folder_holds(mirror, mirror_server, text):
    """Same ids, files, subjects and terms; only the addresses differ, and nothing but loopback is asked."""

    def facts(session: Session):
        terms = session.licence
        return (session.id, session.reader, session.subject, session.session, session.task, session.options,
                terms and terms.spdx, [f.path for f in session.files])  # fmt: skip

    here, there = list(list_sessions(at(mirror, text))), list(list_sessions(served(mirror_server, text)))
    assert [facts(s) for s in there] == [facts(s) for s in here]
    assert all(f.url.startswith(mirror_server.url) for s in there for f in s.files)


@pytest.mark.parametrize(
    "text", ["dandi:900007@draft", "physionet:eegmmidb@1.0.0", "openneuro:ds900104@1.0.0", "ibl:wittenlab@public"]
)
def test_files_come_over_http_with_the_bytes_of_the_folder(mirror, mirror_server, lake, text):
    here, there = next(list_sessions(at(mirror, text))), next(list_sessions(served(mirror_server, text)))
    for local, remote in zip(here.files, there.files):
        raw = fetch_file(remote, lake)
        assert lake.raw_path(raw.sha256).read_bytes() == local_path(local.url).read_bytes()
        assert local.digests.get("sha256", raw.sha256) == raw.sha256


def test_dandi_follows_pages_and_gives_digests(mirror_server):
    sessions = list(list_sessions(served(mirror_server, "dandi:900003@draft")))
    assert len(mirror_server.asked("/assets/")) == 8, "fifteen assets, two a page"
    assert all(set(s.files[0].digests) == {"sha256", "dandi-etag"} for s in sessions)


def test_physionet_groups_a_record_with_its_signals_and_annotations(mirror):
    by_name = {s.id.name: s for s in list_sessions(at(mirror, "physionet:wfdb-sample@1.0.0"))}
    assert [f.path for f in by_name["100"].files] == ["100.hea", "100.dat", "100.atr", "100.qrs"]
    assert [f.path for f in by_name["100-no-len"].files] == ["100-no-len.hea", "100.dat"]
    assert [f.path for f in by_name["a103l"].files] == ["a103l.hea", "a103l.mat"]
    runs = {s.id.name: s for s in list_sessions(at(mirror, "physionet:eegmmidb@1.0.0"))}
    assert runs["S001-S001R04"].task == "imagine left or right fist"
    assert runs["S001-S001R04"].subject == Subject(id="S001", species="Homo sapiens")
    assert [f.path for f in runs["S001-S001R04"].files] == ["S001/S001R04.edf", "S001/S001R04.edf.event"]


def test_bids_runs_get_their_sidecars_by_inheritance(mirror):
    run = next(list_sessions(at(mirror, "openneuro:ds900101@1.0.0")))
    paths = [f.path for f in run.files]
    assert paths[0] == "sub-01/func/sub-01_task-objectviewing_run-01_bold.nii.gz"
    for wanted in (
        "task-objectviewing_bold.json",
        "sub-01/func/sub-01_task-objectviewing_run-01_events.tsv",
        "derivatives/pymvpa/sub-01/func/sub-01_task-objectviewing_desc-brain_mask.nii.gz",
        "participants.tsv",
        "dataset_description.json",
    ):
        assert wanted in paths
    assert not any("run-02" in path for path in paths)


def test_bids_stays_inside_its_own_subject_and_session(tmp_path):
    for name in (
        "dataset_description.json",
        "sub-1/ses-a/eeg/sub-1_ses-a_task-x_eeg.edf",
        "sub-1/ses-a/eeg/sub-1_ses-a_task-x_events.tsv",
        "sub-1/ses-b/eeg/sub-1_ses-b_task-x_eeg.edf",
        "sub-1/sub-1_task-x_eeg.json",
        "sub-1/ses-b/eeg/sub-1_ses-b_electrodes.tsv",
        "sub-2/eeg/sub-2_task-x_events.tsv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"License": "CC0"}')
    a, b = bids.sessions(folder_tree(tmp_path), Source(archive="openneuro", dataset="d", version="1"))
    assert [f.path for f in a.files[1:]] == [
        "dataset_description.json",
        "sub-1/ses-a/eeg/sub-1_ses-a_task-x_events.tsv",
        "sub-1/sub-1_task-x_eeg.json",
    ]
    assert "sub-1/ses-b/eeg/sub-1_ses-b_electrodes.tsv" in [f.path for f in b.files]
    assert a.subject == Subject(id="sub-1"), "no table of participants: nothing is guessed"
    assert (a.session, b.session) == ("ses-a", "ses-b")


def test_ibl_sessions_hold_all_their_files_and_an_alyx_url_says_what_is_needed(mirror, files_server):
    (session,) = list_sessions(at(mirror, "ibl:cortexlab@public"))
    assert session.options["session_dir"] == "cortexlab/Subjects/CQ002/2024-11-05/001" and len(session.files) == 4
    for address in ("", files_server.url):
        with pytest.raises(NotThere, match=r"neurofmx\[archives\]"):
            list(list_sessions(replace(Source.parse("ibl:cortexlab@public"), address=address)))


def test_pose_is_left_out_with_a_reason(mirror, caplog):
    assert list(list_sessions(at(mirror, "other:pose-dlcanalyzer@1"))) == []
    assert "pose alone" in caplog.text


def test_sample_is_pinned():
    for name, version in sample.VERSIONS.items():
        for session in list_sessions(Source(archive="sample", dataset=name, version=version)):
            assert session.licence and all(f.url.startswith("wheel://") for f in session.files)
            assert all(len(f.digests["sha256"]) == 64 and f.size for f in session.files)
    with pytest.raises(NotThere, match="nitime@0.12.1"):
        list(list_sessions(Source(archive="sample", dataset="nitime", version="9")))


@pytest.mark.parametrize(
    "text",
    ["dandi:123456@draft", "physionet:nothing@1.0.0", "openneuro:ds000000@1.0.0", "ibl:nolab@public", "other:x@1"],
)
@pytest.mark.parametrize("web", [False, True])
def test_an_unknown_dataset_is_named(mirror, mirror_server, text, web):
    with pytest.raises(NotThere, match=text.split(":")[1].split("@")[0]):
        list(list_sessions(served(mirror_server, text) if web else at(mirror, text)))


def test_an_unknown_archive_and_version(mirror_server):
    with pytest.raises(ConfigError, match="dandi"):
        list(list_sessions(Source(archive="dandee", dataset="1", version="1")))
    with pytest.raises(NotThere):
        list(list_sessions(served(mirror_server, "openneuro:ds900101@9.9.9")))


def test_refusals_while_listing(mirror_server, faults):
    mirror_server.faults.append(faults.Fault("/assets/", "status", times=-1, status=403))
    with pytest.raises(Denied, match="HTTP 403"):
        list(list_sessions(served(mirror_server, "dandi:900001@draft")))


def test_a_listing_recovers_from_a_busy_server(mirror_server, faults, monkeypatch):
    from neurofmx.ingest import web

    monkeypatch.setattr(web.time, "sleep", lambda seconds: None)
    mirror_server.faults += [
        faults.Fault("/assets/", "status", times=2, status=429, retry_after="1"),
        faults.Fault("/graphql", "status", times=2, status=502),
    ]
    assert len(list(list_sessions(served(mirror_server, "dandi:900001@draft")))) == 2
    assert len(list(list_sessions(served(mirror_server, "openneuro:ds900104@1.0.0")))) == 2


def test_malformed_listings(files_server):
    base = files_server.folder / "p" / "1"
    base.mkdir(parents=True)
    (base / "SHA256SUMS.txt").write_text("not a digest file\n")
    with pytest.raises(MalformedFile, match="line 1"):
        list(list_sessions(Source(archive="physionet", dataset="p", version="1", address=files_server.url)))
    (base / "SHA256SUMS.txt").write_text("")
    (base / "RECORDS").write_text("a.edf\n")
    with pytest.raises(NotThere, match=r"a\.edf"):
        list(list_sessions(Source(archive="physionet", dataset="p", version="1", address=files_server.url)))
    listing = files_server.folder / "dandi" / "000001"
    listing.mkdir(parents=True)
    (listing / "dandiset.yaml").write_text("version: draft\n")
    twice = {"path": "a.nwb", "blob": "b", "size": 1, "asset_id": "x"}
    (listing / "assets.json").write_text(json.dumps({"results": [twice, twice]}))
    source = Source(archive="dandi", dataset="000001", version="draft", address=str(listing.parent))
    with pytest.raises(MalformedFile, match="one recording an id"):
        list(list_sessions(source))


@pytest.mark.parametrize(
    ("text", "spdx", "pass_on"),
    [
        ("spdx:CC-BY-4.0", "CC-BY-4.0", True),
        ("CC0", "CC0-1.0", True),
        ("Open Data Commons Attribution License v1.0", "ODC-By-1.0", True),
        ("CC BY-SA 3.0 for the data; MIT for the package", "CC-BY-SA-3.0", True),
        ("PhysioNet Credentialed Health Data License 1.5.0", "LicenseRef-PhysioNet-Restricted", False),
        ("ask Bob", "LicenseRef-ask-Bob", False),
    ],
)
def test_terms(text, spdx, pass_on):
    found = licences.licence(text, "here")
    assert found and (found.spdx, found.redistribute, found.source) == (spdx, pass_on, "here")


@pytest.mark.parametrize("text", ["", "  ", "n/a", "None"])
def test_no_terms_is_not_open(text):
    assert licences.licence(text, "here") is None


def test_own_files(mirror, tmp_path):
    bad = {s.id.name: s for s in local_sessions(mirror / "bad")}
    assert len(bad) == 14
    run = bad["bids_no_license-sub-01_task-objectviewing_run-01_bold"]
    assert run.licence is None and run.options == {"bids_root": "bids_no_license"}
    assert bad["truncated"].licence == folder.OWN and not folder.OWN.redistribute
    (one,) = local_sessions(mirror / "dandi/900001/sub-nelpyrat/sub-nelpyrat_ses-wmaze_behavior+ecephys.nwb")
    assert one.reader == "nwb" and one.subject is None
    (wave,) = local_sessions(mirror / "other/audio-pykanto/great_tit/WAV/2021-B32-0415_05-11.wav")
    assert wave.reader == "wav"
    vhdr = "openneuro/ds900102/sub-01/ses-01/eeg/sub-01_ses-01_task-P300_run-01_eeg.vhdr"
    (run,) = local_sessions(mirror / vhdr)
    assert run.reader == "bids" and len(run.files) == 11
    assert len(local_sessions(mirror / "openneuro/ds900102/sub-01")) == 16
    for below in ("", "/alf"):
        (alf,) = local_sessions(mirror / f"ibl/cortexlab/Subjects/CQ002/2024-11-05/001{below}")
        assert alf.reader == "alf" and alf.subject == Subject(id="CQ002") and alf.options == {"session_dir": "."}
    assert [f.path for f in next(iter(local_sessions(mirror / "physionet/files/wfdb-sample/1.0.0/100.hea"))).files] == [
        "100.hea",
        "100.atr",
        "100.dat",
        "100.qrs",
    ]
    with pytest.raises(NotThere, match="gone"):
        local_sessions(tmp_path / "gone")
    with pytest.raises(NotThere, match="no recording"):
        local_sessions(tmp_path)
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(ConfigError, match=r"\.docx"):
        local_sessions(tmp_path / "notes.docx")


def test_sources_file(lake, mirror):
    assert sources.read_sources(lake) == []
    chosen = sources.demo_sources(mirror)
    assert {s.archive for s in chosen} == set(ARCHIVES) - {"folder"}
    assert {s.text for s in chosen} >= set(MIRROR)
    sources.write_sources(lake, chosen)
    assert sources.read_sources(lake) == chosen
    with pytest.raises(NotThere, match="no dataset"):
        sources.demo_sources(lake.root)
    (lake.root / "sources.toml").write_text('[[source]]\narchive = "dandi"\n')
    with pytest.raises(ConfigError, match="dataset, version"):
        sources.read_sources(lake)
    (lake.root / "sources.toml").write_text("[[source\n")
    with pytest.raises(ConfigError, match="TOML"):
        sources.read_sources(lake)


def test_one_recording_is_found_without_listing_all(lake, mirror, monkeypatch):
    wanted = "dandi:900001@draft/sub-nelpyrat_ses-wmaze_behavior+ecephys"
    with pytest.raises(NotThere, match="no source dandi:900001@draft"):
        sources.find_session(lake, wanted)
    sources.write_sources(lake, [at(mirror, "dandi:900001@draft")])
    first = sources.find_session(lake, wanted)
    monkeypatch.setattr(sources, "list_sessions", None)
    assert sources.find_session(lake, wanted) == first
    monkeypatch.undo()
    with pytest.raises(NotThere, match="one of the 2"):
        sources.find_session(lake, "dandi:900001@draft/nobody")
    with pytest.raises(ConfigError):
        sources.find_session(lake, "nobody")
