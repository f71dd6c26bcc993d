"""What leaves the lake comes back as it was, and others read it as it was meant."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from neurofmx.errors import ConfigError, MalformedFile, Refused
from neurofmx.ingest import simulate
from neurofmx.ingest.archives.table import list_sessions
from neurofmx.ingest.exports.nwb import UNKNOWN_START, export_nwb
from neurofmx.ingest.exports.torch_brain import export_torch_brain
from neurofmx.ingest.exports.webdataset import export_webdataset
from neurofmx.ingest.formats import nwb_own, table
from neurofmx.ingest.formats.torch_brain import is_torch_brain
from neurofmx.ingest.local import judge_local, local_sessions, open_local
from neurofmx.ingest.sessions import Source
from neurofmx.ingest.web import local_path
from neurofmx.scaled import Scaled
from neurofmx.types import (
    Channels,
    Events,
    Intervals,
    Licence,
    Provenance,
    RawFile,
    Recording,
    RecordingId,
    Samples,
    Stream,
    Subject,
)

EXPORTS = {"nwb": (export_nwb, "one.nwb"), "torch_brain": (export_torch_brain, "one.h5")}
# source -> where the mirror keeps the archive
REAL = {
    "dandi:900001@draft": "dandi",
    "dandi:900003@draft": "dandi",
    "dandi:900005@draft": "dandi",
    "physionet:eegmmidb@1.0.0": "physionet/files",
    "physionet:wfdb-sample@1.0.0": "physionet/files",
    "openneuro:ds900103@1.0.0": "openneuro",
    "ibl:cortexlab@public": "ibl",
}


def odd() -> Recording:
    """A recording with everything that a format may trip over."""
    rng = np.random.default_rng(0)
    whole = np.array([[0.0, 10.0]])

    def spikes(*ids: str, valid: list, regions: tuple[str, ...] = ()) -> Events:
        times = np.sort(rng.uniform(valid[0][0], valid[-1][1], 60))
        codes = rng.integers(0, len(ids) - 1, 60).astype(np.int32)  # the last unit is silent
        return Events(times_s=times, codes=codes, channels=Channels(ids=ids, regions=regions), modality="spikes",
                      valid=np.array(valid, float))  # fmt: skip

    def samples(values, unit, modality, **clock) -> Samples:
        ids = clock.pop("ids", tuple(f"{modality}{i}" for i in range(values.shape[1] if values.ndim > 1 else 1)))
        channels = Channels(ids=ids, regions=clock.pop("regions", ()), positions_um=clock.pop("where", None))
        return Samples(values=values, unit=unit, channels=channels, modality=modality,
                       valid=np.array(clock.pop("valid", whole), float), **clock)  # fmt: skip

    stamps = np.concatenate([np.arange(40) * 0.1 + 1 / 3, 6.0 + np.arange(40) * 0.1])
    leading = rng.normal(size=(1000, 2))
    leading[:7], leading[990:] = np.nan, np.nan
    streams: dict[str, Stream] = {
        "spikes_1": spikes("u7", "ü-8", "u9", valid=[[0.0, 4.0], [5.0, 10.0]], regions=("CA1", "", "VISp")),
        "spikes_2": spikes("0", "1", valid=[[2.0, 10.0]]),
        "licks": Events(times_s=np.array([0.5, 0.5, 7.25]), codes=np.array([1, 0, 1], np.int32), modality="licks",
                        channels=Channels(ids=("left", "right")), valid=whole),
        "lfp": samples(rng.integers(-3000, 3000, (2000, 3)).astype(np.float32), "uV", "lfp", rate_hz=200.1, t0_s=1 / 3,
                       regions=("CA1", "CA3", ""), where=np.array([[0, 1, 2], [3, 4, 5], [np.nan] * 3], float),
                       valid=[[1 / 3, 2.0], [3.0, 10.0]]),
        "eeg": samples(rng.normal(size=(1500, 2)), "mV", "eeg", rate_hz=150.0, t0_s=0.0, ids=("Fp1", "µ2")),
        "position": samples(rng.normal(size=(80, 2)), "px", "position", times_s=stamps, ids=("x", "y"),
                            valid=[[stamps[0], stamps[39] + 0.1], [6.0, 10.0]]),
        "behaviour": samples(rng.normal(size=1000), "a.u.", "behaviour", rate_hz=100.0, t0_s=0.0),
        "force": samples(leading, "N", "force", rate_hz=100.0, t0_s=0.0, valid=[[0.07, 9.9]]),
        "song": samples(rng.integers(0, 255, (300, 4, 5)).astype(np.uint8), "a.u.", "song", rate_hz=30.0, t0_s=0.0),
        "trials": Intervals(
            start_s=np.array([0.0, 2.5, 5.0]), stop_s=np.array([2.0, 4.5, 7.0]), modality="trials", valid=whole,
            columns={"choice": np.array([1, -1, 0], np.int8), "go_time": np.array([0.5, np.nan, 5.5]),
                     "side": np.array(["left", "", "Gauß"]), "hit": np.array([True, False, True]),
                     "tags": np.array(["a,b", "c", ""]), "a/b": np.array([0.1, 0.2, 0.3], np.float32),
                     "id": np.array([3, 2, 1])}),
        "sleep": Intervals(start_s=np.array([0.0, 3.0]), stop_s=np.array([3.0, 10.0]), modality="epochs", valid=whole,
                           columns={"label": np.array(["wake", "nrem"])}),
    }  # fmt: skip
    return Recording(
        id=RecordingId("folder", "odd", "local", "one"),
        streams=streams,
        subject=Subject(id="m1", species="Mus musculus", sex="F", age="P90D"),
        domain_s=(0.0, 10.5),
        provenance=Provenance(
            files=(RawFile(path="a.dat", url="https://example.org/a.dat", sha256="ab" * 32, size=7),),
            reader="formats.odd@1", notes=("a clock was assumed",), citation="Someone (2020)",
        ),
        licence=Licence(spdx="CC-BY-4.0", text="Attribution", source="LICENSE"),
        session="s1",
        task="odd",
        clock_error_s=0.001,
    )  # fmt: skip


def streams_of(recording: Recording) -> dict[str, Any]:
    return dict(recording.streams)


def assert_same(a: Recording, b: Recording) -> None:
    """Times and values bit for bit; events at one instant in any order."""
    assert set(a.streams) == set(b.streams)
    for name, x in a.streams.items():
        y = b.streams[name]
        assert (type(x), x.modality) == (type(y), y.modality), name
        np.testing.assert_array_equal(x.valid, y.valid, err_msg=name)
        if isinstance(x, Intervals):
            assert isinstance(y, Intervals) and list(x.columns) and set(x.columns) == set(y.columns)
            np.testing.assert_array_equal(x.start_s, y.start_s)
            np.testing.assert_array_equal(x.stop_s, y.stop_s)
            for column, values in x.columns.items():
                assert y.columns[column].dtype.kind == np.asarray(values).dtype.kind, column
                np.testing.assert_array_equal(values, y.columns[column], err_msg=column)
            continue
        assert not isinstance(y, Intervals)
        assert (x.channels.ids, x.channels.regions) == (y.channels.ids, y.channels.regions), name
        if x.channels.positions_um is not None:
            np.testing.assert_array_equal(x.channels.positions_um, y.channels.positions_um)
        if isinstance(x, Events):
            assert isinstance(y, Events)
            np.testing.assert_array_equal(x.times_s, y.times_s, err_msg=name)
            order_x, order_y = np.lexsort((x.codes, x.times_s)), np.lexsort((y.codes, y.times_s))
            np.testing.assert_array_equal(x.codes[order_x], y.codes[order_y], err_msg=name)
        else:
            assert isinstance(y, Samples)
            assert (x.unit, x.rate_hz, x.t0_s if x.rate_hz else 0) == (y.unit, y.rate_hz, y.t0_s if y.rate_hz else 0)
            np.testing.assert_array_equal(x.times(), y.times(), err_msg=name)
            assert np.asarray(x.values).dtype == np.asarray(y.values).dtype, name
            if isinstance(x.values, Scaled) and isinstance(y.values, Scaled):
                np.testing.assert_array_equal(x.values.values, y.values.values)
            np.testing.assert_array_equal(x.values, y.values, err_msg=name)
    assert {n: c.plain() for n, c in a.clocks.items()} == {n: c.plain() for n, c in b.clocks.items()}
    for field in ("subject", "domain_s", "session", "task", "clock_error_s"):
        assert getattr(a, field) == getattr(b, field), field


def read_back(read_files, kind: str, path: Path) -> Recording:
    return read_files(kind, path.parent, path.name)


@pytest.fixture(scope="module")
def tiny() -> Recording:
    spec = simulate.SimSpec(seed=3, duration_s=20.0, n_units=6, lfp_channels=4, eeg_channels=2, calcium_cells=3)
    return simulate.simulate(spec)[0]


@pytest.mark.parametrize("kind", EXPORTS)
def test_round_trip_of_everything_odd(kind, tmp_path, read_files):
    export, name = EXPORTS[kind]
    recording = odd()
    path = export(recording, tmp_path / "deep" / name)
    assert path == tmp_path / "deep" / name and [p.name for p in path.parent.iterdir()] == [name]
    assert_same(recording, read_back(read_files, kind, path))
    export(recording, path)  # replaces
    assert_same(recording, read_back(read_files, kind, path))


@pytest.mark.parametrize("kind", EXPORTS)
def test_round_trip_out_of_the_lake(kind, tmp_path, lake, tiny, read_files):
    lake.publish_recording(tiny)
    export, name = EXPORTS[kind]
    path = export(lake.recording(tiny.id), tmp_path / name)
    assert_same(tiny, read_back(read_files, kind, path))


@pytest.mark.parametrize("text", REAL)
@pytest.mark.parametrize("kind", EXPORTS)
def test_round_trip_of_real_recordings(kind, text, tmp_path, mirror, read_files):
    session = next(iter(list_sessions(Source.parse(text, str(mirror / REAL[text])))))
    first = local_path(session.files[0].url)
    files = tuple(RawFile(path=f.path, url=f.url, sha256="0" * 64, size=0) for f in session.files)
    recording = table.read(session.reader, first.parents[len(Path(files[0].path).parts) - 1], session, files)
    export, name = EXPORTS[kind]
    assert_same(recording, read_back(read_files, kind, export(recording, tmp_path / name)))


# NWB


@pytest.fixture(scope="module")
def nwb_of_odd(tmp_path_factory) -> Path:
    return export_nwb(odd(), tmp_path_factory.mktemp("nwb") / "odd.nwb")


def test_nwb_says_what_a_stranger_must_know(nwb_of_odd):
    pynwb: Any = pytest.importorskip("pynwb")

    recording = odd()
    with pynwb.NWBHDF5IO(path=nwb_of_odd, mode="r") as io_:
        nwb = io_.read()
        assert nwb.session_start_time == UNKNOWN_START and "placeholder" in nwb.notes
        for words in ("CC-BY-4.0", "Someone (2020)", "https://example.org/a.dat", "ab" * 32, "a clock was assumed"):
            assert words in nwb.notes
        assert "licence:CC-BY-4.0" in nwb.keywords[:] and nwb.related_publications[:] == ("Someone (2020)",)
        assert (nwb.subject.subject_id, nwb.subject.species, nwb.subject.age) == ("m1", "Mus musculus", "P90D")
        lfp = nwb.processing["ecephys"]["LFP"].electrical_series["lfp"]
        assert lfp.unit == "volts"
        np.testing.assert_allclose(lfp.data[:] * lfp.conversion, streams_of(recording)["lfp"].values * 1e-6, rtol=1e-6)
        assert list(lfp.electrodes.to_dataframe()["location"]) == ["CA1", "CA3", "unknown"]
        eeg = nwb.acquisition["eeg"]
        np.testing.assert_allclose(eeg.data[:] * eeg.conversion, streams_of(recording)["eeg"].values * 1e-3, rtol=1e-12)
        position = nwb.processing["behavior"]["Position"].spatial_series["position"]
        assert position.unit == "px" and position.timestamps.shape == (80,)
        units = nwb.units.to_dataframe()
        assert list(units["unit_name"]) == ["u7", "ü-8", "u9", "0", "1"]
        first = streams_of(recording)["spikes_1"]
        np.testing.assert_array_equal(units["spike_times"].iloc[0], first.times_s[first.codes == 0])
        np.testing.assert_array_equal(units["obs_intervals"].iloc[0], first.valid)
        assert len(units["spike_times"].iloc[2]) == 0
        assert list(nwb.trials["choice"][:]) == [1, -1, 0]
        gaps = nwb.invalid_times.to_dataframe()
        named = {(row.timeseries[0].timeseries.name, row.start_time, row.stop_time) for row in gaps.itertuples()}
        assert ("lfp", 2.0, 3.0) in named and ("force", 0.0, 0.07) in named


def test_nwb_is_valid_for_others(nwb_of_odd):
    pynwb: Any = pytest.importorskip("pynwb")

    assert not any(pynwb.validate(path=str(nwb_of_odd)))
    inspector = pytest.importorskip("nwbinspector", reason="nwbinspector is not a dependency")
    found = [m for m in inspector.inspect_nwbfile(nwbfile_path=nwb_of_odd) if "CRITICAL" in str(m.importance)]
    assert found == []


def test_nwb_without_our_own_tables_still_reads_as_the_same_signals(nwb_of_odd, read_files, monkeypatch):
    monkeypatch.setattr(nwb_own, "is_own", lambda nwb: False)
    recording, again = odd(), read_back(read_files, "nwb", nwb_of_odd)
    for name, scale in (("lfp", 1.0), ("eeg", 1000.0), ("position", 1.0), ("behaviour", 1.0)):
        x, y = streams_of(recording)[name], streams_of(again)[name]
        assert x.modality == y.modality
        np.testing.assert_array_equal(x.times(), y.times())
        np.testing.assert_allclose(np.asarray(x.values) * scale, y.values, rtol=1e-6)
    total = sum(len(streams_of(recording)[name].times_s) for name in ("spikes_1", "spikes_2"))
    assert sum(len(s.times_s) for n, s in streams_of(again).items() if s.modality == "spikes") == total


def test_nwb_refuses_fmri_and_leaves_nothing(tmp_path):
    voxels = Samples(values=np.zeros((5, 3), np.float32), unit="a.u.", channels=Channels(ids=("a", "b", "c")),
                     modality="fmri", valid=np.array([[0.0, 10.0]]), rate_hz=0.5)  # fmt: skip
    recording = replace(odd(), streams={"fmri": voxels})
    with pytest.raises(Refused, match="fMRI.*BIDS"):
        export_nwb(recording, tmp_path / "one.nwb")
    assert list(tmp_path.iterdir()) == []


def test_terms_that_forbid_passing_on_are_in_the_file(tmp_path):
    pynwb: Any = pytest.importorskip("pynwb")

    closed = replace(odd(), licence=Licence(spdx="LicenseRef-own", redistribute=False))
    with pynwb.NWBHDF5IO(path=export_nwb(closed, tmp_path / "one.nwb"), mode="r") as io_:
        assert "may not be passed on" in io_.read().notes


def test_nwb_keeps_integers(tmp_path, read_files):
    pynwb: Any = pytest.importorskip("pynwb")

    rng = np.random.default_rng(1)
    steps = rng.integers(-30000, 30000, (4000, 3)).astype(np.int16)
    each, one = np.array([0.195, 0.1, 1 / 3]), np.full(3, 0.195)
    laws = {
        "lfp_each": Scaled(steps, each, np.zeros(3)),  # a conversion of each electrode
        "lfp_one": Scaled(steps, one, np.full(3, -7.5)),
        "lfp_no": Scaled(steps, each, np.array([1.0, 2.0, 3.0])),  # NWB knows one offset: written in uV
        "aux": Scaled(steps, one, np.zeros(3)),
        "aux_no": Scaled(steps, each, np.zeros(3)),  # nor a conversion of each channel but of electrodes
    }
    streams = {
        name: Samples(values=law, unit="uV" if "lfp" in name else "V", modality=name.partition("_")[0], rate_hz=1000.0,
                      channels=Channels(ids=("a", "b", "c")), valid=np.array([[0.0, 4.0]]))
        for name, law in laws.items()
    }  # fmt: skip
    path = export_nwb(replace(odd(), streams=streams), tmp_path / "one.nwb")
    with pynwb.NWBHDF5IO(path=path, mode="r") as io_:
        nwb = io_.read()
        held = nwb.processing["ecephys"]["LFP"].electrical_series
        for name in ("lfp_each", "lfp_one"):
            item = held[name]
            gain = 1.0 if item.channel_conversion is None else item.channel_conversion[:]
            assert item.data.dtype == np.int16
            volts = item.data[:] * item.conversion * gain + item.offset
            np.testing.assert_allclose(volts * 1e6, laws[name], rtol=1e-6)
        assert held["lfp_no"].data.dtype == np.float32 and nwb.acquisition["aux"].data.dtype == np.int16
    again = read_back(read_files, "nwb", path)
    for name, law in laws.items():
        np.testing.assert_array_equal(law, streams_of(again)[name].values)
        assert isinstance(streams_of(again)[name].values, Scaled) == (not name.endswith("_no"))
    assert_same(
        replace(odd(), streams=streams), read_back(read_files, "torch_brain", export_torch_brain(
            replace(odd(), streams=streams), tmp_path / "one.h5"))
    )  # fmt: skip


# torch_brain


PEER = """
import json, sys, numpy as np, h5py
from torch_brain.data import Data
path, a, b = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
out = {}
with h5py.File(path, "r") as f:
    eager = Data.from_hdf5(f, lazy=False)
    data = Data.from_hdf5(f, lazy=True)
    cut = data.slice(a, b, reset_origin=False)
    out["spikes"] = [cut.spikes_1.timestamps.tolist(), cut.spikes_1.unit_index.tolist()]
    out["lfp"] = [cut.lfp.timestamps.tolist(), cut.lfp.values.tolist()]
    out["lfp_domain"] = np.stack([eager.lfp.domain.start, eager.lfp.domain.end], 1).tolist()
    out["lfp_mask"] = int(eager.lfp.index_mask().sum())
    out["position"] = [cut.position.timestamps.tolist(), cut.position.values.tolist()]
    out["force_rows"] = len(eager.force)
    out["trials"] = [eager.trials.start.tolist(), eager.trials.choice.tolist(), eager.trials.side.tolist()]
    out["timekeys"] = sorted(eager.trials._timekeys)
    out["units"] = eager.spikes_1_channels.id.tolist()
    out["subject"], out["domain"] = eager.subject.id, [float(data.domain.start[0]), float(data.domain.end[-1])]
print(json.dumps(out))
"""
PEER_WRITES = """
import sys, h5py, numpy as np
from torch_brain.data import *
rng = np.random.default_rng(0)
data = Data(
    brainset=BrainsetDescription(id="set", origin_version="1", derived_version="2", source="there", description="d"),
    subject=SubjectDescription(id="jenkins", species="MACACA_MULATTA", sex="MALE", age=3650),
    session=SessionDescription(id="s1"),
    spikes=IrregularTimeSeries(timestamps=np.sort(rng.uniform(0, 9, 50)), unit_index=rng.integers(0, 2, 50),
                               domain=Interval(0.0, 9.0)),
    units=ArrayDict(id=np.array(["a", "b"]), brain_region=np.array(["M1", "PMd"])),
    cursor=IrregularTimeSeries(timestamps=np.arange(90) / 10, pos=rng.normal(size=(90, 2)), vel=np.ones((90, 2)),
                               domain=Interval(0.0, 9.0)),
    eeg=RegularTimeSeries(signal=rng.normal(size=(900, 3)), sampling_rate=100.0, domain_start=0.5),
    trials=Interval(start=np.array([0.0, 4.0]), end=np.array([3.0, 8.0]), target=np.array([3, 5]),
                    note=np.array(["x", "yy"])),
    domain=Interval(0.0, 9.5),
)
with h5py.File(sys.argv[1], "w") as f:
    data.to_hdf5(f)
np.savez(sys.argv[1] + ".npz", times=data.spikes.timestamps, codes=data.spikes.unit_index, pos=data.cursor.pos,
         eeg=data.eeg.signal)
"""


@pytest.fixture(scope="session")
def peers() -> str:
    """A Python in which torch_brain is installed; never this one."""
    path = (
        Path(os.environ.get("NEUROFMX_PEERS", Path(__file__).resolve().parents[2] / ".venv-peers")) / "bin" / "python"
    )
    if not path.exists():
        pytest.skip("no environment of peers here: make peers makes one")
    if subprocess.run([str(path), "-c", "import torch_brain.data"], capture_output=True).returncode:
        pytest.skip(f"{path} has no torch_brain")
    return str(path)


def test_torch_brain_itself_reads_the_export(peers, tmp_path):
    recording = odd()
    path = export_torch_brain(recording, tmp_path / "one.h5")
    done = subprocess.run([peers, "-c", PEER, str(path), "3.5", "7.5"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got, cut = json.loads(done.stdout), recording.slice(3.5, 7.5)
    spikes, lfp, trials = streams_of(cut)["spikes_1"], streams_of(cut)["lfp"], streams_of(recording)["trials"]
    assert got["spikes"] == [spikes.times_s.tolist(), spikes.codes.tolist()]
    np.testing.assert_allclose(got["lfp"][0], lfp.times(), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(got["lfp"][1], lfp.values)
    assert len(got["lfp_domain"]) == 2 and got["lfp_domain"][0][0] == 1 / 3
    rows = streams_of(recording)["lfp"].times()
    inside = [np.sum((rows >= lo - 1e-9) & (rows < hi - 1e-9)) for lo, hi in streams_of(recording)["lfp"].valid]
    assert got["lfp_mask"] == sum(inside)
    assert got["position"] == [
        streams_of(cut)["position"].times_s.tolist(),
        streams_of(cut)["position"].values.tolist(),
    ]
    assert got["force_rows"] == 983  # from the first valid sample to the last
    assert got["trials"] == [trials.start_s.tolist(), [1, -1, 0], ["left", "", "Gau\\xdf"]]
    assert got["timekeys"] == ["end", "go_time", "start"]
    assert got["units"] == ["u7", "\\xfc-8", "u9"] and got["subject"] == "m1" and got["domain"] == [0.0, 10.5]


def test_a_file_that_torch_brain_saved_is_a_recording(peers, tmp_path):
    path = tmp_path / "theirs.h5"
    done = subprocess.run([peers, "-c", PEER_WRITES, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    recording, true = open_local(path), np.load(f"{path}.npz")
    assert set(recording.streams) == {"spikes", "cursor_pos", "cursor_vel", "eeg", "trials"}
    assert {n: s.modality for n, s in recording.streams.items()} == {
        "spikes": "spikes", "cursor_pos": "position", "cursor_vel": "velocity", "eeg": "eeg", "trials": "trials",
    }  # fmt: skip
    spikes, eeg, trials = (streams_of(recording)[n] for n in ("spikes", "eeg", "trials"))
    np.testing.assert_array_equal(spikes.times_s, true["times"])
    np.testing.assert_array_equal(spikes.codes, true["codes"])
    assert spikes.channels.regions == ("M1", "PMd") and spikes.valid.tolist() == [[0.0, 9.0]]
    np.testing.assert_array_equal(streams_of(recording)["cursor_pos"].values, true["pos"])
    assert (eeg.rate_hz, eeg.t0_s, eeg.valid.tolist()) == (100.0, 0.5, [[0.5, 9.5]])
    np.testing.assert_array_equal(eeg.values, true["eeg"])
    assert trials.columns["target"].tolist() == [3, 5] and trials.columns["note"].tolist() == ["x", "yy"]
    assert recording.subject == Subject(id="jenkins", species="MACACA_MULATTA", sex="MALE", age="P3650D")
    assert any("there" in note for note in recording.provenance.notes)


def test_torch_brain_is_one_of_ones_own_formats(tmp_path, tiny):
    path = export_torch_brain(tiny, tmp_path / "a" / "one.h5")
    with h5py.File(tmp_path / "a" / "other.h5", "w") as other:  # HDF5 of another kind is nobody's recording
        other["x"] = np.arange(3)
    assert is_torch_brain(path) and [s.reader for s in local_sessions(tmp_path / "a")] == ["torch_brain"]
    [(_, checks)] = judge_local(path)
    assert [c for c in checks if not c.passed and c.severity == "block"] == []
    opened = open_local(path)
    assert opened.subject == tiny.subject
    assert any("exported from simulated:one@1/" in note and "CC0-1.0" in note for note in opened.provenance.notes)
    with pytest.raises(Refused, match="expected 'Data' at its root"):
        open_local(tmp_path / "a" / "other.h5")


def test_torch_brain_file_cut_short_is_refused(tmp_path, tiny, read_files):
    path = export_torch_brain(tiny, tmp_path / "one.h5")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MalformedFile, match="one.h5"):
        read_back(read_files, "torch_brain", path)


def test_torch_brain_states_what_it_left_out(tmp_path, read_files):
    recording = odd()
    empty = replace(streams_of(recording)["licks"], valid=np.empty((0, 2)))
    path = export_torch_brain(replace(recording, streams={**recording.streams, "licks": empty}), tmp_path / "one.h5")
    again = read_back(read_files, "torch_brain", path)
    assert "licks" not in again.streams
    assert any("licks" in note and "no valid time" in note for note in again.provenance.notes)
    with pytest.raises(Refused, match="no valid time"):
        export_torch_brain(replace(recording, streams={"licks": empty}), tmp_path / "two.h5")


# WebDataset


def members(folder: Path) -> dict[str, bytes]:
    found = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None and member.mtime == member.uid == 0
                found[member.name] = file.read()
    return found


def test_webdataset_holds_every_window(lake, tiny, tmp_path):
    lake.publish_recording(tiny)
    lake.publish_recording(odd())
    folder = export_webdataset(lake, lake.recording_ids(), tmp_path / "out", 2.0, shard_mb=0.05)
    again = export_webdataset(lake, reversed(lake.recording_ids()), tmp_path / "again", 2.0, shard_mb=0.05)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in again.iterdir()}
    files, index = members(folder), json.loads((folder / "index.json").read_text())
    assert len(index["shards"]) > 2 and sum(s["samples"] for s in index["shards"]) == 5 + 10
    for shard in index["shards"]:
        data = (folder / shard["file"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (shard["sha256"], shard["bytes"])
    assert [r["licence"] for r in index["recordings"]] == ["CC-BY-4.0", "CC0-1.0"]
    for key in sorted({name.partition(".")[0] for name in files}):
        about = json.loads(files[f"{key}.json"])
        cut = lake.recording(about["recording_id"]).slice(about["start_s"], about["stop_s"])
        for name, stream in streams_of(cut).items():
            if isinstance(stream, Samples):
                got = np.load(io.BytesIO(files[f"{key}.{name}.values.npy"]))
                np.testing.assert_array_equal(got, stream.values)
                assert about["streams"][name]["valid"] == stream.valid.tolist()
            elif isinstance(stream, Events):
                np.testing.assert_array_equal(np.load(io.BytesIO(files[f"{key}.{name}.times_s.npy"])), stream.times_s)
                np.testing.assert_array_equal(np.load(io.BytesIO(files[f"{key}.{name}.codes.npy"])), stream.codes)
            else:
                assert about["streams"][name]["start_s"] == stream.start_s.tolist()


def test_webdataset_itself_reads_the_shards(peers, lake, tiny, tmp_path):
    lake.publish_recording(tiny)
    folder = export_webdataset(lake, [tiny.id], tmp_path / "out", 5.0)
    code = (
        "import webdataset as wds, sys, json\n"
        "d = wds.WebDataset(sys.argv[1], shardshuffle=False).decode()\n"
        "print(json.dumps([[s['__key__'], s['json']['start_s'], s['lfp.values.npy'].shape] for s in d]))"
    )
    done = subprocess.run([peers, "-c", code, str(folder / "shard-000000.tar")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = len(streams_of(tiny.slice(0.0, 5.0))["lfp"].values)
    assert json.loads(done.stdout) == [[f"{i:09d}", 5.0 * i, [rows, 4]] for i in range(4)]


def test_webdataset_refuses_what_it_cannot_do(lake, tiny, tmp_path):
    lake.publish_recording(tiny)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ConfigError, match="empty folder"):
        export_webdataset(lake, [tiny.id], tmp_path / "full", 2.0)
    with pytest.raises(ConfigError, match="above 0"):
        export_webdataset(lake, [tiny.id], tmp_path / "out", 0.0)
    with pytest.raises(Refused, match="no window"):
        export_webdataset(lake, [tiny.id], tmp_path / "out", 60.0)
