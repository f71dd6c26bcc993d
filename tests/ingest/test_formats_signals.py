"""WFDB, WAV, OTBioLab+ and nitime files against independent readings and files whose content is known."""

from __future__ import annotations

import hashlib
import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from neurofmx.errors import MalformedFile
from neurofmx.ingest.archives.table import list_sessions
from neurofmx.ingest.formats import otb
from neurofmx.ingest.ingest import ingest_session
from neurofmx.ingest.sessions import Source
from neurofmx.types import Events, Intervals, Recording, Samples

WFDB, SONGS = "physionet:wfdb-sample@1.0.0", "other:audio-pykanto@1"


def samples(recording: Recording, name: str) -> Samples:
    stream = recording.streams[name]
    assert isinstance(stream, Samples)
    return stream


def events(recording: Recording, name: str) -> Events:
    stream = recording.streams[name]
    assert isinstance(stream, Events)
    return stream


def intervals(recording: Recording, name: str) -> Intervals:
    stream = recording.streams[name]
    assert isinstance(stream, Intervals)
    return stream


# --- WFDB ------------------------------------------------------------------------------------------------------------


def format_212(path: Path) -> np.ndarray:
    """Two 12-bit numbers in three bytes, decoded from the definition."""
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    raw = raw[: len(raw) // 3 * 3].reshape(-1, 3).astype(int)
    pairs = np.stack([raw[:, 0] | (raw[:, 1] & 0x0F) << 8, raw[:, 2] | (raw[:, 1] & 0xF0) << 4], axis=1).ravel()
    return np.where(pairs > 2047, pairs - 4096, pairs)


def test_record_100(read_mirror):
    recording, root = read_mirror(WFDB, "100")
    ecg, beats = samples(recording, "ecg"), events(recording, "beats")
    expected = (format_212(root / "100.dat").reshape(-1, 2) - 1024) / 200.0
    assert ecg.values.shape == (650000, 2) and ecg.unit == "mV" and ecg.rate_hz == 360.0
    np.testing.assert_array_equal(ecg.values[:100], expected[:100].astype(np.float32))
    np.testing.assert_array_equal(ecg.values, expected.astype(np.float32))
    assert ecg.channels.ids == ("MLII", "V5") and ecg.valid.tolist() == [[0.0, 650000 / 360]]
    assert len(beats.times_s) == 2274 and np.all(np.diff(beats.times_s) > 0)
    counts = np.bincount(beats.codes).tolist()
    assert dict(zip(beats.channels.ids, counts)) == {"+": 1, "A": 33, "N": 2239, "V": 1}
    assert beats.times_s[0] == 18 / 360 and beats.codes[0] == beats.channels.ids.index("+")
    rhythm = intervals(recording, "rhythm")
    assert rhythm.columns["label"].tolist() == ["N"] and rhythm.start_s.tolist() == [18 / 360]
    assert len(events(recording, "beats_qrs").times_s) == 2273


def test_beats_lie_on_peaks(read_mirror):
    recording, root = read_mirror(WFDB, "100")
    ecg, beats = samples(recording, "ecg"), events(recording, "beats")
    at = np.round(beats.times_s[beats.codes == beats.channels.ids.index("N")] * 360.0).astype(int)
    lead = ecg.values[:, 0]
    assert np.median(lead[at]) > 0.8 > 0.0 > np.median(lead)


def test_several_samples_a_frame_keep_their_rate(read_mirror):
    recording, root = read_mirror(WFDB, "03700181")
    frames = format_212(root / "03700181.dat").reshape(-1, 6)
    ecg, abp, resp = (samples(recording, name) for name in ("ecg", "abp", "resp"))
    assert [(s.rate_hz, s.unit, len(s.values)) for s in (ecg, abp, resp)] == [
        (500.0, "mV", 300000), (125.0, "mmHg", 75000), (125.0, "mV", 75000)
    ]  # fmt: skip
    np.testing.assert_allclose(ecg.values[:, 0], frames[:, :4].ravel() / 2963.77, rtol=1e-6)
    np.testing.assert_allclose(abp.values[:, 0], (frames[:, 4] + 1605) / 12.84, rtol=1e-6)
    # the header's skew of four frames
    np.testing.assert_allclose(resp.values[:-4, 0], frames[4:, 5] / 2000.0, rtol=1e-6)
    assert np.isnan(resp.values[-4:]).all() and resp.valid.tolist() == [[0.0, 74996 / 125]]
    # three annotators with clocks of their own, one heart
    for name in ("beats_sqrs", "beats_gqrsh", "beats_gqrsl"):
        beats = events(recording, name)
        assert 590.0 < beats.times_s[-1] < 600.0 and 0.45 < np.median(np.diff(beats.times_s)) < 0.65


@pytest.mark.parametrize(("open_end", "stated"), [("100-no-len", "100"), ("a103l-no-len", "a103l")])
def test_missing_length(read_mirror, open_end, stated):
    one, other = (read_mirror(WFDB, name)[0] for name in (open_end, stated))
    for name in ("ecg", "pleth"):
        if name in other.streams:
            np.testing.assert_array_equal(samples(one, name).values, samples(other, name).values)


def test_offset_in_a_mat_file(read_mirror):
    recording, root = read_mirror(WFDB, "a103l")
    raw = np.frombuffer((root / "a103l.mat").read_bytes()[24:], "<i2").reshape(-1, 3)
    np.testing.assert_allclose(samples(recording, "pleth").values[:, 0], raw[:, 2] / 1.253e4, rtol=1e-6)
    np.testing.assert_allclose(samples(recording, "ecg").values, raw[:, :2] / [7247.0, 1.052e4], rtol=1e-6)


def test_skew_moves_a_lead(read_mirror):
    skewed, plain = (samples(read_mirror(WFDB, name)[0], "ecg").values for name in ("100skew", "100"))
    np.testing.assert_array_equal(skewed[:, 0], plain[:, 0])
    np.testing.assert_array_equal(skewed[:-3, 1], plain[3:, 1])
    assert np.isnan(skewed[-3:, 1]).all()


def test_unknown_samples_are_stated_not_filled(read_mirror):
    recording, root = read_mirror(WFDB, "v102s")
    pleth = samples(recording, "pleth")
    unknown = format_212(root / "v102s.dat").reshape(-1, 4)[:, 2] == -2048
    np.testing.assert_array_equal(np.isnan(pleth.values[:, 0]), unknown)
    times, inside = pleth.times(), np.zeros(len(unknown), bool)
    for start, stop in pleth.valid:
        inside |= (times > start - 1e-6) & (times < stop - 1e-6)
    np.testing.assert_array_equal(inside, ~unknown)


@pytest.fixture
def project(tmp_path) -> Path:
    """A PhysioNet project with one record of three segments, the second a gap."""
    import wfdb

    folder = tmp_path / "multi/1.0"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    parts = {"part1": rng.normal(size=(500, 2)), "part2": rng.normal(size=(700, 2))}
    parts["part2"][100:640, 0] = 0.5  # 2.16 s
    for name, leads in (("part1", ["II", "V"]), ("part2", ["II", "ABP"])):
        units = ["mV" if lead != "ABP" else "mmHg" for lead in leads]
        wfdb.wrsamp(name, fs=250, units=units, sig_name=leads, p_signal=parts[name], fmt=["16", "16"],
                    write_dir=str(folder))  # fmt: skip
    (folder / "layout.hea").write_text(
        "layout 3 250 0\n~ 0 1 16 0 0 0 0 II\n~ 0 1 16 0 0 0 0 V\n~ 0 1/mmHg 16 0 0 0 0 ABP\n"
    )
    (folder / "whole.hea").write_text("whole/4 3 250 1400\nlayout 0\npart1 500\n~ 200\npart2 700\n")
    (folder / "RECORDS").write_text("whole\n")
    (folder / "LICENSE.txt").write_text("Open Data Commons Attribution License v1.0\n")
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.name}" for p in sorted(folder.iterdir())]
    (folder / "SHA256SUMS.txt").write_text("\n".join(sums) + "\n")
    np.savez(tmp_path / "truth.npz", part1=parts["part1"], part2=parts["part2"])
    return tmp_path


def test_segments_and_a_gap(project, read_files):
    (session,) = list_sessions(Source.parse("physionet:multi@1.0", str(project)))
    assert [f.path for f in session.files] == [
        "whole.hea", "layout.hea", "part1.hea", "part1.dat", "part2.hea", "part2.dat"
    ]  # fmt: skip
    recording = read_files("wfdb", project / "multi/1.0", *(f.path for f in session.files))
    truth = np.load(project / "truth.npz")
    ecg, abp = samples(recording, "ecg"), samples(recording, "abp")
    assert ecg.channels.ids == ("II", "V") and ecg.values.shape == (1400, 2) and abp.unit == "mmHg"
    np.testing.assert_allclose(ecg.values[:500], truth["part1"], atol=1e-3)
    np.testing.assert_allclose(ecg.values[700:, 0], truth["part2"][:, 0], atol=1e-3)
    assert np.isnan(ecg.values[500:700]).all() and np.isnan(ecg.values[500:, 1]).all()
    np.testing.assert_allclose(abp.values[700:, 0], truth["part2"][:, 1], atol=1e-3)
    # the gap, and 2.16 s in which the one lead that is there keeps one value
    np.testing.assert_allclose(ecg.valid, [[0, 2.0], [2.8, 3.2], [5.36, 5.6]], atol=1e-9)
    np.testing.assert_allclose(abp.valid, [[2.8, 5.6]], atol=1e-9)


def test_damaged_records(mirror, tmp_path, read_files):
    root = mirror / "physionet/files/wfdb-sample/1.0.0"
    for name in ("100_3chan.hea", "100_3chan.dat"):
        shutil.copy(root / name, tmp_path)
    raw = (tmp_path / "100_3chan.dat").read_bytes()
    (tmp_path / "100_3chan.dat").write_bytes(raw[:1000])
    with pytest.raises(MalformedFile, match="100_3chan.hea"):
        read_files("wfdb", tmp_path, "100_3chan.hea")
    (tmp_path / "page.hea").write_text("<html>403</html>")
    with pytest.raises(MalformedFile, match="page.hea"):
        read_files("wfdb", tmp_path, "page.hea")


# --- WAV -------------------------------------------------------------------------------------------------------------


def test_songs(mirror, read_mirror):
    listed = list(list_sessions(Source.parse(SONGS, str(mirror / "other"))))
    assert len(listed) == 6
    for session in listed:
        recording, root = read_mirror(SONGS, session.id.name)
        sound = samples(recording, "sound")
        with wave.open(str(root / session.files[0].path)) as handle:
            pcm = np.frombuffer(handle.readframes(handle.getnframes()), "<i2")
            assert sound.rate_hz == handle.getframerate() == 22050
        np.testing.assert_array_equal(sound.values[:, 0] * 32768.0, pcm)
        (note,) = [n for n in recording.provenance.notes if n.startswith("sample rate")]
        assert "WAV header says 22050 Hz, the JSON beside it 48000 Hz; the header's was taken" in note
        about = json.loads((root / session.files[1].path).read_text())
        power = np.abs(np.fft.rfft(pcm.astype(float))) ** 2
        for rate, least, most in ((22050, 0.9, 1.0), (48000, 0.0, 0.1)):
            at = np.fft.rfftfreq(len(pcm), 1 / rate)
            band = (at >= about["lower_freq"]) & (at <= about["upper_freq"])
            assert least <= power[band].sum() / power.sum() <= most


def write_wav(path: Path, values: np.ndarray, rate: int) -> None:
    from scipy.io import wavfile

    wavfile.write(path, rate, values)


@pytest.mark.parametrize(("about", "rate", "said"), [
    ({}, 8000.0, ""),
    ({"sample_rate": 8000}, 8000.0, ""),
    ({"sample_rate": 16000, "length_s": 0.5}, 8000.0, "no band to judge by"),
    ({"sample_rate": 16000, "lower_freq": 900, "upper_freq": 1100}, 8000.0, "the header's was taken: 100.0%"),
    ({"sample_rate": 16000, "lower_freq": 1900, "upper_freq": 2100}, 16000.0, "the JSON's was taken: 0.0%"),
])  # fmt: skip
def test_two_sample_rates(tmp_path, about, rate, said, read_files):
    tone = np.sin(2 * np.pi * 1000.0 * np.arange(8000) / 8000.0)  # 1 kHz by the header, 2 kHz at 16 kHz
    write_wav(tmp_path / "x.wav", (tone * 20000).astype(np.int16), 8000)
    (tmp_path / "x.json").write_text(json.dumps(about))
    recording = read_files("wav", tmp_path, "x.wav", "x.json")
    sound = samples(recording, "sound")
    assert sound.rate_hz == rate and sound.valid.tolist() == [[0.0, 8000 / rate]]
    assert said in " | ".join(recording.provenance.notes)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_share_of_full_scale(tmp_path, dtype, read_files):
    share = np.stack([np.linspace(-1, 0.75, 8), np.linspace(0.5, -0.5, 8)], axis=1)
    scale = {"uint8": 128, "int16": 2**15, "int32": 2**31}.get(dtype, 1)
    raw = np.round(share * scale + (128 if dtype == "uint8" else 0)) if scale > 1 else share
    write_wav(tmp_path / "x.wav", raw.astype(dtype), 8000)
    sound = samples(read_files("wav", tmp_path, "x.wav"), "sound")
    assert sound.channels.ids == ("sound0", "sound1")
    np.testing.assert_allclose(sound.values, share, atol=0.6 / scale if scale > 1 else 1e-7)


def test_units_of_song(tmp_path, read_files):
    write_wav(tmp_path / "x.wav", np.zeros(8000, np.int16), 8000)
    (tmp_path / "x.json").write_text(json.dumps({"onsets": [0.1, 0.5], "offsets": [0.2, 0.75]}))
    units = intervals(read_files("wav", tmp_path, "x.wav", "x.json"), "song_units")
    assert units.start_s.tolist() == [0.1, 0.5] and units.stop_s.tolist() == [0.2, 0.75]
    (tmp_path / "x.json").write_text(json.dumps({"onsets": [0.1, 0.5], "offsets": [0.2]}))
    with pytest.raises(MalformedFile, match="onsets and offsets beside x.wav"):
        read_files("wav", tmp_path, "x.wav", "x.json")


def test_wrong_wav(tmp_path, read_files):
    path = tmp_path / "x.wav"
    write_wav(path, np.arange(8000, dtype=np.int16), 8000)
    for content in (path.read_bytes()[:5000], b"<html>", b""):
        path.write_bytes(content)
        with pytest.raises(MalformedFile, match="x.wav"):
            read_files("wav", tmp_path, "x.wav")


# --- OTBioLab+ -------------------------------------------------------------------------------------------------------


def write_otb(path: Path, columns: dict[str, np.ndarray], *, rate: int = 2048, start: float = 7.0, **other) -> None:
    from scipy.io import savemat

    n = len(next(iter(columns.values())))

    def cells(values: list) -> np.ndarray:
        out = np.empty((len(values), 1), object)
        out[:, 0] = values
        return out

    content = {
        "Data": cells([np.stack(list(columns.values()), axis=1).astype(np.float32)]),
        "Description": cells(list(columns)),
        "OTBFile": "unknown",
        "SamplingFrequency": np.array([[rate]], np.uint16),
        "Time": cells([start + np.arange(n)[:, None] / rate]),
    }
    savemat(path, content | other)


@pytest.fixture
def export() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    grid = "Vastus Lateralis - AUX 3 (Channel 1->1) - GR08MM1305"
    columns = {f"{grid} ({i})[uV]": rng.normal(0, 100, 400) for i in range(1, 65)}
    for unit, at in ((1, [3, 40, 41]), (2, [7, 399])):
        columns[f"1 - 2 - Decomposition of {grid} ({unit})[a.u]"] = np.isin(np.arange(400), at).astype(float)
        columns[f"2 - Source for decomposition of {grid} ({unit})[a.u]"] = rng.normal(size=400)
    columns["performed path[ %(MVC)]"] = np.ones(400)
    columns["acquired data[ %(MVC)]"] = np.linspace(1, 20, 400)
    return columns


def test_otb_export(tmp_path, export, read_files):
    write_otb(tmp_path / "x.mat", export)
    recording = read_files("otb", tmp_path, "x.mat")
    assert set(recording.streams) == {"emg", "spikes", "force"}
    emg, force, spikes = samples(recording, "emg"), samples(recording, "force"), events(recording, "spikes")
    assert emg.unit == "uV" and emg.values.shape == (400, 64) and emg.values.dtype == np.float32
    expected = np.stack([v for k, v in export.items() if k.endswith("[uV]")], axis=1).astype(np.float32)
    np.testing.assert_array_equal(emg.values, expected)
    assert emg.channels.ids[:2] == ("1", "2") and set(emg.channels.regions) == {"Vastus Lateralis"}
    np.testing.assert_array_equal(spikes.times_s, np.array([3, 7, 40, 41, 399]) / 2048)
    assert spikes.codes.tolist() == [0, 1, 0, 0, 1] and spikes.channels.ids == ("unit1", "unit2")
    assert force.unit == "%MVC" and force.values[-1, 0] == 20.0
    assert all(s.valid.tolist() == [[0.0, 400 / 2048]] for s in recording.streams.values())
    notes = " | ".join(recording.provenance.notes)
    assert "puts at 7 s" in notes and "2 columns 'Source" in notes and "column left out: performed path" in notes


def test_grid_winds_through_its_columns():
    places = otb.grid_positions(np.arange(1, 65), 8.0)
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    np.testing.assert_array_equal(steps, 8000.0)  # each electrode beside the one before it
    assert len(np.unique(places, axis=0)) == 64 and places.max(axis=0).tolist() == [32000.0, 96000.0, 0.0]
    assert not (places == [0.0, 96000.0, 0.0]).all(axis=1).any()  # the corner that is missing
    assert np.isnan(otb.grid_positions(np.array([0, 65]), 8.0)).all()


def test_wrong_otb_exports(tmp_path, export, read_files):
    path = tmp_path / "x.mat"
    train = next(key for key in export if "Decomposition of" in key)
    write_otb(path, export | {train: export[train] * 0.5})
    with pytest.raises(MalformedFile, match="motor unit 1 of x.mat"):
        read_files("otb", tmp_path, "x.mat")
    write_otb(path, export, Time=np.arange(400.0) ** 1.1)
    with pytest.raises(MalformedFile, match="Time in x.mat"):
        read_files("otb", tmp_path, "x.mat")
    write_otb(path, {key.replace("[uV]", "[pT]"): value for key, value in export.items()})
    with pytest.raises(MalformedFile, match=r"units \['pT'\]"):
        read_files("otb", tmp_path, "x.mat")
    write_otb(path, export)
    for content in (path.read_bytes()[:3000], b"<html>" * 100):
        path.write_bytes(content)
        with pytest.raises(MalformedFile, match="x.mat"):
            read_files("otb", tmp_path, "x.mat")


# --- nitime ----------------------------------------------------------------------------------------------------------


def test_grasshopper(tmp_path, read_files):
    head = "# stimulus file: /somewhere/x.dat\n# carrier freq (kHz): 2.5\n# intensity (dB): 71.2\n\n"
    (tmp_path / "t.txt").write_text(head + "6700\n9900\n19950\n\n\n")
    sound_um = np.linspace(0.1, 0.3, 500)
    (tmp_path / "s.txt").write_text("".join(f"{50 * i}  {v:.6f}\n" for i, v in enumerate(sound_um)))
    recording = read_files("nitime_spikes", tmp_path, "t.txt", "s.txt")
    spikes, sound = events(recording, "spikes"), samples(recording, "sound")
    assert spikes.times_s.tolist() == [0.0067, 0.0099, 0.01995] and spikes.codes.tolist() == [0, 0, 0]
    assert sound.rate_hz == 20000.0 and sound.values.shape == (500, 1)
    np.testing.assert_allclose(sound.values[:, 0], sound_um, atol=5e-7)
    assert spikes.valid.tolist() == sound.valid.tolist() == [[0.0, 0.025]]
    notes = " | ".join(recording.provenance.notes)
    assert "carrier freq (kHz) 2.5" in notes and "intensity (dB) 71.2" in notes and "/somewhere" not in notes


@pytest.mark.parametrize(("spikes", "sound", "said"), [
    ("100\n50\n", "0 1\n50 1\n", "spike times of t.txt"), ("100\n", "0 1\n50 1\n150 1\n", "times of s.txt"),
    ("100\nx\n", "0 1\n50 1\n", "t.txt"), ("100 2\n", "0 1\n50 1\n", "1 lines of 2"), ("100\n", "0\n50\n", "s.txt"),
])  # fmt: skip
def test_wrong_grasshoppers(tmp_path, spikes, sound, said, read_files):
    (tmp_path / "t.txt").write_text(spikes)
    (tmp_path / "s.txt").write_text(sound)
    with pytest.raises(MalformedFile, match=said):
        read_files("nitime_spikes", tmp_path, "t.txt", "s.txt")


def test_fmri_of_regions(tmp_path, read_files):
    (tmp_path / "f.csv").write_text('"WM","LCau","LPut"\n10125.9,1.5,-2\n10126,0.25,3\n10127,nan,nan\n')
    recording = read_files("nitime_fmri", tmp_path, "f.csv")
    bold = samples(recording, "fmri")
    assert bold.channels.ids == bold.channels.regions == ("WM", "LCau", "LPut")
    assert bold.values.tolist()[:2] == [[10125.9, 1.5, -2.0], [10126.0, 0.25, 3.0]]
    assert bold.rate_hz == pytest.approx(1 / 1.89) and bold.valid == pytest.approx(np.array([[0.0, 5.67]]))
    assert any("resting_state_fmri.py" in note for note in recording.provenance.notes)
    (tmp_path / "f.csv").write_text("1,2\n3,4\n")
    with pytest.raises(MalformedFile, match="a name for each region"):
        read_files("nitime_fmri", tmp_path, "f.csv")
    (tmp_path / "f.csv").write_text("a,b\n3,4\n5\n")
    with pytest.raises(MalformedFile, match="f.csv"):
        read_files("nitime_fmri", tmp_path, "f.csv")


# --- the wheels themselves -------------------------------------------------------------------------------------------


def ingested(lake, text: str, name: str) -> Recording:
    (session,) = [s for s in list_sessions(Source.parse(text)) if s.id.name == name]
    report = ingest_session(session, lake)
    if report.status == "failed":
        pytest.skip(f"no package index here: {report.checks}")
    assert report.status == "ingested", report.checks
    return lake.recording(session.id)


@pytest.mark.slow
def test_wheels(lake):
    """Facts that the mirror's table states of the same recordings."""
    muscle = ingested(lake, "sample:openhdemg@0.1.2", "otb_testfile")
    spikes, emg = events(muscle, "spikes"), samples(muscle, "emg")
    assert sorted(np.bincount(spikes.codes)) == [137, 154, 197, 292, 293]
    values, places = np.asarray(emg.values), emg.channels.positions_um
    assert values.shape == (66560, 64) and emg.rate_hz == 2048.0 and places is not None
    codes = values.astype(float) / 0.50862632
    assert np.abs(codes - np.round(codes)).max() < 1e-3  # whole steps of the converter
    # electrodes that lie closer are more alike: the layout of the grid is the right one
    alike = np.corrcoef(values.T)
    far = np.linalg.norm(places[:, None] - places[None], axis=2)
    rows = np.abs(places[:, None, 1] - places[None, :, 1])
    across = [alike[(rows == 0) & (np.round(far) == 8000 * n)].mean() for n in (1, 2, 3)]
    assert across[0] > 0.96 > across[1] > across[2]
    assert np.diagonal(alike, 13).mean() < 0.8  # were the columns numbered all one way, these would be neighbours
    force = np.asarray(samples(muscle, "force").values)[:, 0]
    loud = np.abs(values).mean(axis=1)
    bins = (len(force) // 256, 256)
    assert np.corrcoef(*(x[: bins[0] * 256].reshape(bins).mean(axis=1) for x in (force, loud)))[0, 1] > 0.8

    for name, count in (("grasshopper1", 929), ("grasshopper2", 868)):
        receptor = ingested(lake, "sample:nitime@0.12.1", name)
        assert len(events(receptor, "spikes").times_s) == count and receptor.domain_s == (0.0, 10.0)
        assert np.asarray(samples(receptor, "sound").values).shape == (200000, 1)
    brain = samples(ingested(lake, "sample:nitime@0.12.1", "fmri_timeseries"), "fmri")
    assert np.asarray(brain.values).shape == (250, 31) and brain.channels.ids[3] == "LCau"
    left, right = (np.asarray(brain.values)[:, brain.channels.ids.index(n)] for n in ("LCau", "RCau"))
    assert np.corrcoef(left, right)[0, 1] > 0.3
