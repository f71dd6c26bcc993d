"""Frames of video: decoded on demand, equal to decoding the file from its beginning."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofmx import catalog, frames
from neurofmx.errors import ConfigError, LakeCorrupt, MalformedFile, NotThere
from neurofmx.frames import Frames
from neurofmx.ingest.exports.nwb import UNKNOWN_START, export_nwb
from neurofmx.ingest.exports.torch_brain import export_torch_brain
from neurofmx.ingest.ingest import ingest_session
from neurofmx.ingest.local import judge_local, local_sessions, open_local
from neurofmx.ingest.preview import preview_png
from neurofmx.types import Channels, Events, Recording

av: Any = pytest.importorskip("av", reason="PyAV is in the extra 'video'")
N, FPS, HEIGHT, WIDTH, BITS = 90, 25, 64, 96, 8


def picture(i: int) -> np.ndarray:
    """A frame whose number stands in its upper half in black and white; something moves in the lower half."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(BITS):
        if i >> bit & 1:
            image[: HEIGHT // 2, bit * 12 : (bit + 1) * 12] = 255
    image[HEIGHT // 2 :, i % (WIDTH - 8) : i % (WIDTH - 8) + 8] = (200, 90, 10)
    return image


def number(image: np.ndarray) -> int:
    return sum(int(image[HEIGHT // 4, bit * 12 + 6].mean() > 128) << bit for bit in range(BITS))


def streams_of(recording: Recording) -> dict[str, Any]:
    return dict(recording.streams)


def film(path: Path, codec: str = "libx264", gop: int = 12, b_frames: int = 2, first: int = 0, gap: int = 0) -> Path:
    """Writes N frames; after half of them the clock jumps by ``gap`` frames.

    One thread throughout: other tests of this process fork.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {} if codec == "mjpeg" else {"g": str(gop), "bf": str(b_frames)}
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        for i in range(N):
            image = av.VideoFrame.from_ndarray(picture(i), format="rgb24").reformat(format=stream.pix_fmt, threads=1)
            image.pts = first + i + (gap if i >= N // 2 else 0)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def in_sequence(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in container.decode(video=0)])


def frames_of(path: Path) -> Frames:
    values = streams_of(open_local(path))["video"].values
    assert isinstance(values, Frames)
    return values


FILMS = {
    "h264.mp4": {"codec": "libx264"},
    "one-keyframe.mp4": {"codec": "libx264", "gop": 1000},
    "vp8.mkv": {"codec": "libvpx"},
    "h264.mkv": {"codec": "libx264", "b_frames": 0},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg"},
}


@pytest.mark.parametrize("name", FILMS)
def test_any_order_equals_decoding_in_sequence(tmp_path, name):
    path = film(tmp_path / name, **FILMS[name])
    true, held = in_sequence(path), frames_of(path)
    assert held.shape == true.shape == (N, HEIGHT, WIDTH, 3) and len(held) == N and held.nbytes == true.nbytes
    for i in np.random.default_rng(0).permutation(N)[:40]:
        np.testing.assert_array_equal(held[int(i)], true[i], err_msg=f"frame {i}")
    np.testing.assert_array_equal(np.asarray(held), true)
    assert [number(held[i]) for i in (0, 37, N - 1)] == [0, 37, N - 1]


def test_slices_are_lazy_and_index_like_numpy(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4")
    true, held = in_sequence(path), frames_of(path)
    decoded = []
    real = frames._Decoder._decode
    monkeypatch.setattr(frames._Decoder, "_decode", lambda *args: decoded.append(args[2]) or real(*args))
    cut = held[10:40:3]
    assert isinstance(cut, Frames) and decoded == [] and len(cut) == 10
    np.testing.assert_array_equal(cut[2:4], true[10:40:3][2:4])
    assert decoded == [16, 19]
    for key in (5, -1, np.int64(3), [7, 2, 2], np.arange(4), np.arange(N) % 30 == 1, (slice(3, 6), 5), (4, 1, 2, 0),
                (slice(0, 2), slice(None), slice(None), 1), slice(None, None, -40)):  # fmt: skip
        np.testing.assert_array_equal(np.asarray(held[key]), true[key])
    assert [number(f) for f in held[88:]] == [88, 89]
    with pytest.raises(IndexError):
        held[N]
    with pytest.raises(ValueError, match="read-only"):
        held[0][0] = 1
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cut))[0], true[10])


def test_cache_is_bounded_and_forward_reading_does_not_seek(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4")
    monkeypatch.setattr(frames, "CACHE_BYTES", 5 * HEIGHT * WIDTH * 3)
    held, seeks = frames_of(path), []
    real = frames._Decoder._seek
    monkeypatch.setattr(frames._Decoder, "_seek", lambda *args: seeks.append(args[3]) or real(*args))
    frames._decoder.cache_clear()
    list(held[0:12])
    assert seeks == [0]
    list(held[12:15])  # a keyframe is no reason to jump when it is next
    assert seeks == [0] and len(frames._decoder(held.file)._kept) == 5
    for row in (14, 60, 2):
        np.asarray(held[row])
    assert seeks == [0, 60, 2]


def test_threads_share_frames(tmp_path):
    path = film(tmp_path / "a.mp4")
    true, held = in_sequence(path), frames_of(path)
    rows = np.random.default_rng(1).integers(0, N, 200)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: np.array_equal(held[int(i)], true[i]), rows))
    assert all(got)


def test_a_forked_child_decodes_by_itself(tmp_path):
    path = film(tmp_path / "a.mp4")
    true, held = in_sequence(path), frames_of(path)
    np.testing.assert_array_equal(held[30], true[30])
    child = multiprocessing.get_context("fork").Process(target=_compare, args=(held, true, range(31, 60)))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(held[31], true[31])  # where it was, whatever the child read


def _compare(held: Frames, true: np.ndarray, rows: range) -> None:
    if not all(np.array_equal(held[row], true[row]) for row in rows):
        os._exit(1)


def test_times_are_the_containers(tmp_path):
    path = film(tmp_path / "a.mkv", first=50, gap=25)
    video = streams_of(open_local(path))["video"]
    expected = (50 + np.arange(N) + 25 * (np.arange(N) >= N // 2)) / FPS
    np.testing.assert_allclose(video.times(), expected, atol=1e-3)  # Matroska counts milliseconds
    assert len(video.valid) == 2  # the jump is a gap
    assert video.channels.ids == ("red", "green", "blue")
    cut = video.slice(2.0, 2.4)
    assert [number(f) for f in cut.values] == list(range(10))


def test_a_film_goes_through_the_lake(tmp_path, lake):
    path = film(tmp_path / "in" / "cage.mp4")
    true = in_sequence(path)
    [session] = local_sessions(tmp_path / "in")
    report = ingest_session(session, lake)
    assert report.status == "ingested", report.checks
    assert ingest_session(session, lake, force=True).status == "unchanged"
    path.unlink()  # the lake has its own
    video = streams_of(lake.recording(session.id))["video"]
    assert isinstance(video.values, Frames)
    np.testing.assert_array_equal(video.values[71], true[71])
    [row] = catalog.rows(lake, "streams")
    assert (row["modality"], row["unit"], row["n"], row["n_channels"]) == ("video", "a.u.", N, 3)
    assert streams_of(lake.recording(session.id).slice(1.0, 2.0))["video"].values.shape == (25, HEIGHT, WIDTH, 3)
    assert all(check.passed for check in lake.verify())
    assert (
        row["digest"] and sum(f.stat().st_size for f in (lake.root / "recordings").rglob("*") if f.is_file()) < 50_000
    )
    assert preview_png(lake.recording(session.id))[:4] == b"\x89PNG"
    lake.raw_path(report.raw[0].sha256).unlink()
    with pytest.raises(NotThere, match="neurofmx fetch"):
        streams_of(lake.recording(session.id))["video"].values[0]


def test_digest_is_of_the_file_not_of_what_a_decoder_makes_of_it(tmp_path, lake, monkeypatch):
    def never(*_: object) -> np.ndarray:
        raise AssertionError("decoded")

    recording = open_local(film(tmp_path / "a.mp4"))
    monkeypatch.setattr(frames._Decoder, "frame", never)
    first = lake.publish_recording(recording)
    assert streams_of(lake.recording(recording.id))["video"].values.index.sha256
    monkeypatch.undo()
    film(tmp_path / "b" / "a.mp4", gop=13)  # the same pictures, other bytes
    other = open_local(tmp_path / "b" / "a.mp4")
    assert np.array_equal(streams_of(other)["video"].times(), streams_of(recording)["video"].times())
    assert lake.publish_recording(other) != first


def test_an_nwb_file_brings_its_film(tmp_path):
    path = film(tmp_path / "in" / "cage.mp4")
    true, alone = in_sequence(path), open_local(path)
    licks = Events(times_s=np.array([0.5]), codes=np.zeros(1, np.int32), channels=Channels(ids=("lick",)),
                   modality="licks", valid=np.array([[0.0, 3.0]]))  # fmt: skip
    both = replace(alone, streams={"licks": licks, **alone.streams}, domain_s=(0.0, 4.0))
    out = export_nwb(both, tmp_path / "out" / "session.nwb")
    assert sorted(p.name for p in out.parent.iterdir()) == ["session.nwb", "session_video.mp4"]
    [session] = local_sessions(out.parent)  # the film is part of the recording, not one of its own
    assert [f.path for f in session.files] == ["session.nwb", "session_video.mp4"]
    again = open_local(out)
    assert set(streams_of(again)) == {"licks", "video"}
    video = streams_of(again)["video"]
    np.testing.assert_array_equal(video.times(), streams_of(alone)["video"].times())
    np.testing.assert_array_equal(video.values[33], true[33])
    left = open_local(export_torch_brain(both, tmp_path / "h5" / "session.h5"))
    assert set(streams_of(left)) == {"licks"} and any("video" in note for note in left.provenance.notes)


def test_a_foreign_nwb_file_with_a_film(tmp_path):
    pynwb: Any = pytest.importorskip("pynwb")
    series = pynwb.image.ImageSeries
    film(tmp_path / "films" / "eye.mp4")
    nwb = pynwb.NWBFile("d", "i", UNKNOWN_START, subject=pynwb.file.Subject(subject_id="m", species="Mus musculus"))
    stamps = 7.0 + np.arange(N) * 0.04
    nwb.add_acquisition(series(name="eye", external_file=["./films/eye.mp4"], format="external", unit="n.a.",
                                    timestamps=stamps))  # fmt: skip
    nwb.add_acquisition(series(name="gone", external_file=["./films/gone.mp4"], format="external", unit="n.a.",
                                    timestamps=stamps))  # fmt: skip
    with pynwb.NWBHDF5IO(path=tmp_path / "one.nwb", mode="w") as io:
        io.write(nwb)
    [session] = local_sessions(tmp_path)
    assert [f.path for f in session.files] == ["one.nwb", "films/eye.mp4"]
    recording = open_local(tmp_path)
    np.testing.assert_array_equal(streams_of(recording)["video"].times(), stamps)
    assert number(streams_of(recording)["video"].values[41]) == 41
    assert any("gone" in note for note in recording.provenance.notes)


# faults


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    [(_, checks)] = judge_local(path)
    [bad] = [c for c in checks if not c.passed and c.severity == "block"]
    assert "neurofmx[video]" in bad.evidence
    with pytest.raises(ConfigError, match=r"neurofmx\[video\]"):
        frames.video_library()


def test_files_that_are_no_video(tmp_path, read_files):
    (tmp_path / "text.mp4").write_text("no video at all " * 99)
    with pytest.raises(MalformedFile, match="text.mp4"):
        read_files("video", tmp_path, "text.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(MalformedFile, match="no video stream"):
        read_files("video", tmp_path, "sound.mp4")


def test_a_container_that_does_not_say_when_frames_are_shown(tmp_path, read_files):
    film(tmp_path / "h264.avi")  # AVI with reordered frames
    with pytest.raises(MalformedFile, match="Encode it anew as MP4 or Matroska"):
        read_files("video", tmp_path, "h264.avi")


def test_a_damaged_film_says_which_frame(tmp_path, lake):
    path = film(tmp_path / "in" / "a.mkv", b_frames=0)
    [session] = local_sessions(path)
    report = ingest_session(session, lake)
    raw = lake.raw_path(report.raw[0].sha256)
    data = raw.read_bytes()
    raw.write_bytes(data[: len(data) // 2])  # cut short
    frames._decoder.cache_clear()
    values = streams_of(lake.recording(session.id))["video"].values
    assert isinstance(values, Frames)
    assert number(values[0]) == 0
    with pytest.raises(LakeCorrupt, match=f"frame {N - 1}"):
        values[N - 1]
    assert number(values[1]) == 1  # and goes on
