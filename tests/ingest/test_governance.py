"""Terms and identities: what gives a person away is found and shown masked, what only looks like it is let through."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from neurofmx.ingest import governance
from neurofmx.ingest.archives.licences import licence
from neurofmx.ingest.governance_words import hits, masked, years
from neurofmx.ingest.judged import blocking
from neurofmx.ingest.sessions import RemoteFile, Session
from neurofmx.types import (
    Channels,
    Check,
    Events,
    Intervals,
    Licence,
    Provenance,
    Recording,
    RecordingId,
    Subject,
)

OPEN = Licence(spdx="CC0-1.0", text="CC0", source="test")
HUMAN, MOUSE = Subject(id="s1", species="Homo sapiens"), Subject(id="m1", species="Mus musculus")


def session(*paths: str, subject: Subject | None = HUMAN, terms: Licence | None = OPEN) -> Session:
    files = tuple(RemoteFile(path=path, url=f"file:///{path}") for path in paths)
    name = RecordingId("test", "terms", "1", "one")
    return Session(id=name, files=files, reader="bids", licence=terms, subject=subject)


def recording(**changes) -> Recording:
    spikes = Events(
        times_s=np.array([1.0]), codes=np.zeros(1, np.int32), channels=Channels(ids=("u",)), modality="spikes",
        valid=np.array([[0.0, 9.0]]),
    )  # fmt: skip
    one = Recording(
        id=RecordingId("test", "terms", "1", "one"), streams={"spikes": spikes}, subject=HUMAN, domain_s=(0.0, 9.0),
        provenance=Provenance(files=(), reader="test@1"), licence=OPEN,
    )  # fmt: skip
    return replace(one, **changes)


def failed(found: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in found if not check.passed}


def judged(root: Path, name: str, content: str | bytes, subject: Subject | None = HUMAN) -> dict[str, Check]:
    """The failed checks of a session of one file."""
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return failed(governance.judge_files(root, session(name, subject=subject)))


# terms


@pytest.mark.parametrize("terms", [None, Licence(spdx=""), Licence(spdx=" ")])
def test_a_missing_licence_is_not_an_open_one(tmp_path, terms):
    found = failed(governance.judge_files(tmp_path, session(terms=terms)))
    assert found["licence"].severity == "block" and "missing is not open" in found["licence"].evidence
    if terms is not None:
        assert "missing is not open" in failed(governance.judge(recording(licence=terms)))["licence_kept"].evidence


def test_the_word_unrestricted_is_no_restriction():
    terms = Licence(
        spdx="GPL-3.0-only", text="affirms your unrestricted permission; any further restriction", source="x"
    )
    assert failed(governance.judge(recording(licence=terms))) == {}


def test_restricted_data_may_not_be_marked_as_free():
    text = "PhysioNet Credentialed Health Data License 1.5.0"
    terms = licence(text, "LICENSE.txt")
    assert terms is not None
    assert failed(governance.judge(recording(licence=terms))) == {}
    found = failed(governance.judge(recording(licence=replace(terms, redistribute=True))))
    assert found["redistribution"].severity == "block" and "Restricted" in found["redistribution"].evidence


# words in context

TOLD = [
    ("Recording of Jane Doe, MRN 12345, on the ward.", {"name", "record number"}),
    ("medical record number: A-99812", {"record number"}),
    ("patient ID: 00123456", {"record number"}),
    ("DOB 04-MAR-1930", {"birth date"}),
    ("born on 1930-03-04 in a small town", {"birth date"}),
    ("date of birth: 4/3/1930", {"birth date"}),
    ("Patient name: DOE^JANE", {"name"}),
    ("the patient's name is withheld; patient: Jane Doe", {"name"}),
    ("Mrs. Doe moved during the run", {"name"}),
    ("ask jane.doe@example.org", {"e-mail address"}),
]
UNTOLD = [
    "Healthy or unspecified volunteer; only the number is kept.",
    "Recorded by the Cortex Lab in New York with a Blackrock Cereplex amplifier",
    "Open Hand, Close Hand, Side Grip; Left Temporal Lobe; Task Name: Resting State",
    "patient 12 moved; Patient Health Questionnaire 9; patients with Parkinson Disease",
    "Patient name: X; Participant name: Anonymous; patient name: n/a; Patient Name: Removed",
    "subject_id: sub-0012; subject: S00012; record 100 of 2274 beats; patient number 12",
    "session_start_time is a PLACEHOLDER (2000-01-01): the true date was left out",
    "electrode born of a new design; 20 Hz at 3.5 mV; 2019-05-04 was a Saturday",
    "array@64 channels; doi:10.1186/1751-0473-8-11; MRN withheld; DOB unknown",
    "MS patients, 5 Ms a bin; Mr. 7",
]


@pytest.mark.parametrize(("text", "kinds"), TOLD)
def test_what_names_a_person_is_found_in_its_context(text, kinds):
    assert {hit.kind for hit in hits("here", text)} == kinds


@pytest.mark.parametrize("text", UNTOLD)
def test_what_only_looks_like_a_name_is_let_through(text):
    assert hits("here", text) == []


def test_evidence_does_not_spread_what_it_found(tmp_path):
    evidence = judged(tmp_path, "a.json", '{"PatientName": "DOE^JANE", "PatientID": "00123456"}')[
        "identifiers"
    ].evidence
    assert "PatientName of a.json" in evidence and "J***" in evidence
    assert not any(word in evidence for word in ("DOE", "JANE", "00123456"))
    assert masked("Jane_Doe-04") == "J***_D**-0*"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("P95Y", 95), ("P18M", 1.5), ("P36525D", 100), ("95", 95), ("24 years", 24), ("089Y", 89), ("89+", 89),
        ("n/a", None), ("", None),
    ],
)  # fmt: skip
def test_ages_as_archives_write_them(text, value):
    assert years(text) == (None if value is None else pytest.approx(value, rel=0.01))


# places in files


def edf(patient: str, recording: str = "Startdate X X X X", start: str = "01.01.85", kind: str = "EDF+C") -> bytes:
    head = b"0       " + patient.encode().ljust(80) + recording.encode().ljust(80) + f"{start}00.00.00".encode()
    return head + b"512".ljust(8) + kind.encode().ljust(44) + b"1".ljust(8) + b"1".ljust(8) + b"1".ljust(4)


PATIENTS = [
    ("MRN-00012345 F 04-MAR-1930 Jane_Doe_FAKE", ["birth date", "name", "record number"]),
    ("X F 04-MAR-1930 X", ["birth date"]),
    ("X X X Doe_Jane", ["name"]),
    ("1234567 M X X", ["record number"]),
    ("X X X X", []),
    ("S001 M 01-JAN-1978 S001 Age:39", []),
    ("X F X Female_33yr", []),
    ("X X X Test_Subject", []),
]


@pytest.mark.parametrize(("patient", "kinds"), PATIENTS)
def test_the_patient_field_of_edf_plus(tmp_path, patient, kinds):
    found = judged(tmp_path, "a.edf", edf(patient), subject=None)
    evidence = found["identifiers"].evidence if "identifiers" in found else ""
    assert [kind for kind in ("birth date", "name", "record number") if f"{kind} " in evidence] == kinds, evidence
    assert not any(word in evidence for word in ("Doe", "1930", "1234567", "12345"))


def test_the_patient_field_of_plain_edf_needs_no_context(tmp_path):
    found = judged(tmp_path, "a.edf", edf("Doe, Jane 04.03.1930", kind=""), subject=None)
    assert "name" in found["identifiers"].evidence and "birth date" in found["identifiers"].evidence


def test_dates_only_warn_and_placeholders_do_not(tmp_path):
    found = judged(tmp_path, "a.edf", edf("X X X X", "Startdate 12-AUG-2009 X X BCI2000", "12.08.09"))
    assert set(found) == {"real_dates"} and found["real_dates"].severity == "warn"
    assert "12.08.09" in found["real_dates"].evidence
    assert judged(tmp_path, "a.edf", edf("X X X X")) == {}


def nwb(path: Path, **texts: str) -> None:
    with h5py.File(path, "w") as handle:
        handle["specifications/core/2.11.0/namespace"] = (
            '{"author": "Jane Doe", "contact": "jane@example.org", "MRN": 12345}'
        )
        for name, text in texts.items():
            handle[name.replace("__", "/")] = text


NWB = [
    ({"session_description": "Jane Doe, MRN 12345"}, {"identifiers"}),
    ({"general__subject__date_of_birth": "1930-03-04T00:00:00+00:00"}, {"identifiers"}),
    ({"general__subject__subject_id": "Jane Doe"}, {"identifiers"}),
    ({"general__subject__age": "P95Y"}, {"subject_age"}),
    ({"general__subject__age": "P85Y"}, set()),
    ({"general__notes": "ask jane.doe@example.org"}, {"identifiers"}),
    ({"general__experimenter": "Doe, Jane", "general__related_publications": "jane.doe@example.org"}, set()),
    ({"session_start_time": "2019-05-04T10:00:00+00:00"}, {"real_dates"}),
    ({"session_start_time": "2000-01-01T00:00:00+00:00"}, set()),
    ({"session_description": "a task"}, set()),
]


@pytest.mark.parametrize(("texts", "names"), NWB)
def test_the_texts_of_nwb_but_not_its_schema(tmp_path, texts, names):
    nwb(tmp_path / "a.nwb", general__subject__species="Homo sapiens", **texts)
    assert set(failed(governance.judge_files(tmp_path, session("a.nwb", subject=None)))) == names


@pytest.mark.parametrize("texts", [texts for texts, _ in NWB])
def test_where_the_subject_is_no_person_nothing_is_looked_for(tmp_path, texts):
    nwb(tmp_path / "a.nwb", general__subject__species="Rattus norvegicus", **texts)
    assert failed(governance.judge_files(tmp_path, session("a.nwb", subject=None))) == {}


def test_a_file_that_says_human_outweighs_an_archive_that_says_mouse(tmp_path):
    nwb(tmp_path / "a.nwb", general__subject__species="Homo sapiens", session_description="Jane Doe, MRN 12345")
    assert "identifiers" in failed(governance.judge_files(tmp_path, session("a.nwb", subject=MOUSE)))


def test_without_a_species_an_address_only_warns_and_a_name_stops(tmp_path):
    nwb(tmp_path / "a.nwb", session_description="mail jane.doe@example.org")
    assert failed(governance.judge_files(tmp_path, session("a.nwb", subject=None)))["identifiers"].severity == "warn"
    nwb(tmp_path / "a.nwb", session_description="patient: Jane Doe")
    assert failed(governance.judge_files(tmp_path, session("a.nwb", subject=None)))["identifiers"].severity == "block"


TABLE = "participant_id\tspecies\tage\tsex\n"
BESIDE = [
    ("participants.tsv", TABLE + "sub-01\tHomo sapiens\t95\tF\n", {"subject_age"}),
    ("participants.tsv", TABLE + "sub-01\tHomo sapiens\t89+\tF\n", set()),
    ("participants.tsv", TABLE + "sub-01\tMacaca mulatta\t95\tF\n", {"subject_age"}),  # the archive says human
    ("participants.tsv", "participant_id\tsurname\nsub-01\tDoe\n", {"identifiers"}),
    ("participants.tsv", "participant_id\tsurname\nsub-01\tn/a\n", set()),
    ("participants.tsv", "participant_id\tbirth_date\nsub-01\t1930-03-04\n", {"identifiers"}),
    ("sub-01_scans.tsv", "filename\tacq_time\neeg/a.edf\t2019-05-04T10:00:00\n", {"real_dates"}),
    ("sub-01_scans.tsv", "filename\tacq_time\neeg/a.edf\t1901-05-04T10:00:00\n", set()),
    ("sub-01_eeg.json", '{"PatientBirthDate": "1930-03-04"}', {"identifiers", "real_dates"}),
    ("sub-01_eeg.json", '{"AcquisitionDateTime": "2019-05-04T10:00:00"}', {"real_dates"}),
    ("dataset_description.json", '{"Authors": ["Doe J", "jane.doe@example.org"]}', set()),
    ("sub-01_eeg.vmrk", "Brain Vision\nMk1=New Segment,,1,1,0,20190504101500000000\n", {"real_dates"}),
    ("sub-01_eeg.vmrk", "Brain Vision\nMk1=New Segment,,1,1,0,00000000000000000000\n", set()),
    ("sub-01_eeg.vhdr", "Brain Vision\n[Comment]\nPatient name: Jane Doe\n", {"identifiers"}),
    ("100.hea", "100 2 360 650000\n100.dat 212\n# 69 M 1085 1629 x1\n# Aldomet, Inderal\n", {"clinical_remarks"}),
    ("100.hea", "100 2 360 650000 17:27:45 15/08/1994\n100.dat 212\n", {"real_dates"}),
    ("100.hea", "100 2 360 650000\n100.dat 212\n# age: 93 sex: F\n", {"clinical_remarks", "subject_age"}),
    ("100.hea", "100 2 360 650000\n100.dat 212\n# made by rdsamp\n", set()),
]


@pytest.mark.parametrize(("name", "content", "names"), BESIDE)
def test_tables_sidecars_and_headers(tmp_path, name, content, names):
    assert set(judged(tmp_path, name, content)) == names


@pytest.mark.parametrize("name", ["a.nwb", "a.json"])
def test_what_could_not_be_looked_through_is_said(tmp_path, name):
    found = judged(tmp_path, name, b"\xff\xfe\x00 no such thing")
    assert set(found) == {"identifiers"} and found["identifiers"].severity == "warn"
    assert f"{name} could not be read" in found["identifiers"].evidence


def test_a_face_needs_proof_that_it_was_removed(tmp_path):
    def faces(*names: str, subject: Subject = HUMAN) -> Check | None:
        for name in names:
            (tmp_path / name).write_text(json.dumps({"Defaced": True}) if name.endswith(".json") else "x")
        return failed(governance.judge_files(tmp_path, session(*names, subject=subject))).get("faces")

    bare = faces("sub-01_T1w.nii.gz")
    assert bare is not None and bare.severity == "block" and "a person must look" in bare.evidence
    assert faces("sub-01_desc-defaced_T1w.nii.gz") is None
    assert faces("sub-01_T1w.nii.gz", "sub-01_mod-T1w_defacemask.nii.gz") is None
    assert faces("sub-01_T1w.nii.gz", "sub-01_T1w.json") is None
    assert faces("sub-01_T1w.nii.gz", subject=MOUSE) is None
    assert faces("sub-01_task-rest_bold.nii.gz") is None


# what the recording keeps


def told(text: str, subject: Subject = HUMAN) -> Recording:
    trials = Intervals(
        start_s=np.zeros(2), stop_s=np.ones(2), columns={"label": np.array(["rest", text])}, modality="trials",
        valid=np.array([[0.0, 9.0]]),
    )  # fmt: skip
    return recording(streams={"trials": trials}, subject=subject)


def test_annotations_are_read_too():
    found = failed(governance.judge(told("patient: Jane Doe")))
    assert found["kept_identifiers"].severity == "block" and "trials.label" in found["kept_identifiers"].evidence
    assert failed(governance.judge(told("seizure onset; Left Temporal"))) == {}
    assert failed(governance.judge(told("patient: Jane Doe", MOUSE))) == {}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"subject": replace(HUMAN, age="P95Y")}, "kept_age"),
        ({"subject": replace(HUMAN, id="Jane_Doe")}, "kept_identifiers"),
        ({"provenance": Provenance(files=(), reader="r@1", notes=("the file says: MRN 12345",))}, "kept_identifiers"),
    ],
)
def test_what_the_recording_says_of_its_subject(changes, name):
    assert set(failed(governance.judge(recording(**changes)))) == {name}


def test_a_good_recording_passes_every_check_and_each_says_what_it_saw(tmp_path):
    found = (*governance.judge_files(tmp_path, session()), *governance.judge(recording()))
    assert failed(found) == {} and blocking(found) == ()
    assert all(len(check.evidence) > 6 for check in found) and len({check.name for check in found}) == len(found)
