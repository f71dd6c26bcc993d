"""Planted faults are found and named; sound recordings pass, and still pass when cut or moved in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurofmx.ingest import checks
from neurofmx.ingest.checks_survey import PIECE, survey
from neurofmx.ingest.formats.rates import Disagreement
from neurofmx.ingest.judged import blocking
from neurofmx.ingest.simulate import simulate
from neurofmx.ingest.simulate_spec import SimSpec
from neurofmx.types import (
    Channels,
    Check,
    Events,
    Intervals,
    Licence,
    Provenance,
    Recording,
    RecordingId,
    Samples,
    Subject,
)

STOP_S = 40.0
VALID = np.array([[0.0, STOP_S]])


def sound(seed: int = 0) -> Recording:
    """Spikes, EEG at a rate, a position with stated times and a gap, and trials."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, STOP_S, 400))
    stamps = np.concatenate([np.arange(0, 15, 0.02), np.arange(20, STOP_S, 0.02)])
    starts = np.arange(1.0, 39.0, 2.0)
    streams = {
        "spikes": Events(
            times_s=times, codes=rng.integers(0, 5, 400).astype(np.int32), channels=Channels(ids=tuple("abcde")),
            modality="spikes", valid=VALID,
        ),
        "eeg": Samples(
            values=rng.normal(0, 20, (int(STOP_S) * 100, 3)).astype(np.float32), unit="uV",
            channels=Channels(ids=("C3", "Cz", "C4")), modality="eeg", valid=VALID, rate_hz=100.0,
        ),
        "position": Samples(
            values=rng.normal(100, 30, (len(stamps), 2)), unit="px", channels=Channels(ids=("x", "y")),
            modality="position", valid=np.array([[0.0, 15.0], [20.0, STOP_S]]), times_s=stamps,
        ),
        "trials": Intervals(
            start_s=starts, stop_s=starts + 1, columns={"side": np.array(["left"] * len(starts))}, modality="trials",
            valid=VALID,
        ),
    }  # fmt: skip
    return Recording(
        id=RecordingId("test", "sound", "1", f"r{seed}"),
        streams=streams,
        subject=Subject(id="s1", species="Mus musculus"),
        domain_s=(0.0, STOP_S),
        provenance=Provenance(files=(), reader="test@1"),
        licence=Licence(spdx="CC0-1.0"),
    )


def changed(stream: str, **fields: Any) -> Callable[[Recording], Recording]:
    return lambda r: replace(r, streams=dict(r.streams) | {stream: replace(r.streams[stream], **fields)})


def edited(stream: str, field: str, change: Callable[[np.ndarray], Any]) -> Callable[[Recording], Recording]:
    """A recording one of whose arrays was put through a function."""
    return lambda r: changed(stream, **{field: change(np.array(getattr(r.streams[stream], field)))})(r)


def put(stream: str, field: str, where: Any, value: float) -> Callable[[Recording], Recording]:
    """A recording one of whose arrays holds something else somewhere."""

    def change(array: np.ndarray) -> np.ndarray:
        array[where] = value
        return array

    return edited(stream, field, change)


def shortened(stream: str, n: int) -> Callable[[Recording], Recording]:
    return edited(stream, "values", lambda values: values[:n])


def scaled(factor: float, unit: str = "uV") -> Callable[[Recording], Recording]:
    return lambda r: changed("eeg", unit=unit)(edited("eeg", "values", lambda values: values * factor)(r))


def noted(note: str) -> Callable[[Recording], Recording]:
    return lambda r: replace(scaled(1000.0)(r), provenance=Provenance(files=(), reader="test@1", notes=(note,)))


def twice(recording: Recording) -> Recording:
    channels = Channels(ids=("C3", "Cz", "C4"))
    object.__setattr__(channels, "ids", ("C3", "Cz", "Cz"))  # what the type itself refuses
    return changed("eeg", channels=channels)(recording)


def shuffled(recording: Recording) -> Recording:
    """One unit after the other, as an NWB file has them, the first of them descending."""
    spikes = recording.streams["spikes"]
    assert isinstance(spikes, Events)
    order = np.argsort(spikes.codes, kind="stable")
    times, codes = spikes.times_s[order].copy(), spikes.codes[order]
    times[codes == 0] = times[codes == 0][::-1]
    return changed("spikes", times_s=times, codes=codes)(recording)


BLOCK, WARN = "block", "warn"
FAULTS = [
    ("no stream", lambda r: replace(r, streams={}), "has_streams", BLOCK, "no stream"),
    ("no time", lambda r: replace(r, domain_s=(3.0, 3.0)), "duration", BLOCK, "expected more than 0"),
    ("clock far off", lambda r: replace(r, clock_error_s=0.2), "clock_error", WARN, "0.2 s; limit 0.005 s"),
    (
        "clocks disagree",
        lambda r: replace(r, provenance=replace(r.provenance, notes=(Disagreement(500, 200, "a clock", "so").note(),))),
        "clock_rate",
        WARN,
        "500 Hz is stated, 200 Hz measured by a clock: so",
    ),
    ("clock unknown", lambda r: replace(r, clock_error_s=np.nan), "clock_error", BLOCK, "stated as nan"),
    ("a spike at no time", put("spikes", "times_s", 7, np.nan), "spikes.times_finite", BLOCK, "1 of 400"),
    ("spikes shuffled", shuffled, "spikes.times_ascending", BLOCK, "in 1 of 5 units: a"),
    ("a spike after the end", put("spikes", "times_s", -1, 99.0), "spikes.times_in_domain", BLOCK, "0 to 40 s"),
    ("a spike before 0", put("spikes", "times_s", 0, -1.0), "spikes.times_not_negative", WARN, "earliest -1 s"),
    ("a unit that is not there", put("spikes", "codes", 3, 5), "spikes.codes", BLOCK, "table of 5 rows, such as 5"),
    ("fewer codes", changed("spikes", codes=np.zeros(9, np.int32)), "spikes.codes", BLOCK, "9 codes for 400"),
    ("spikes in a pause", changed("spikes", valid=VALID / 2), "spikes.events_in_valid", WARN, "lie outside"),
    ("valid beyond", changed("spikes", valid=VALID * 2), "spikes.valid", BLOCK, "outside the recording"),
    ("valid overlaps", changed("spikes", valid=np.array([[0, 9.0], [8, 40]])), "spikes.valid", BLOCK, "disjoint"),
    ("nothing valid", changed("eeg", valid=np.empty((0, 2))), "eeg.valid", WARN, "nothing of this stream"),
    ("a name twice", twice, "eeg.channels", BLOCK, "more than once: Cz"),
    ("too few names", changed("eeg", channels=Channels(ids=("Cz",))), "eeg.channels", BLOCK, "1 channel names for 3"),
    ("rate below 0", changed("eeg", rate_hz=-5.0), "eeg.rate", BLOCK, "-5 Hz"),
    ("rate too high", changed("eeg", rate_hz=1e8), "eeg.rate", BLOCK, "1e+08 Hz"),
    ("rate too low", changed("eeg", rate_hz=5.0), "eeg.rate", WARN, "slow for eeg"),
    ("half the samples", shortened("eeg", 2000), "eeg.gaps", BLOCK, "20 s"),
    ("one number unknown", put("eeg", "values", (slice(0, 200), 0), np.nan), "eeg.finite", WARN, "200 of 12,000"),
    ("one number infinite", put("eeg", "values", (5, 1), np.inf), "eeg.finite", BLOCK, "1 of them infinite"),
    ("nothing known", put("eeg", "values", slice(None), np.nan), "eeg.finite", BLOCK, "no data where"),
    ("a dead channel", put("eeg", "values", (slice(None), 1), 3.0), "eeg.flat", WARN, "1 of 3 channels never change"),
    ("clipped", edited("eeg", "values", lambda values: values.clip(-40, 40)), "eeg.saturated", WARN, "3 of 3"),
    ("no unit", changed("eeg", unit=""), "eeg.unit", BLOCK, "expected a voltage"),
    ("another quantity", changed("eeg", unit="mmHg"), "eeg.unit", BLOCK, "'mmHg'"),
    ("a unit that nobody knows", changed("position", unit="furlong"), "position.unit", WARN, "'furlong'"),
    ("EEG 1000 times too large", scaled(1000.0), "eeg.amplitude", BLOCK, "1,000 times too large"),
    ("microvolts called volts", scaled(1.0, "V"), "eeg.amplitude", BLOCK, "1,000,000 times too large"),
    ("volts called microvolts", scaled(1e-6), "eeg.amplitude", BLOCK, "1,000,000 times too small"),
    ("restless, not wrong", scaled(50.0), "eeg.amplitude", WARN, "times beyond it"),
    ("the amplifier's output", noted("acquisition/eeg: volts at the amplifier OUTPUT"), "eeg.amplitude", WARN, "gain"),
    ("another signal's note", noted("acquisition/emg: the amplifier OUTPUT"), "eeg.amplitude", BLOCK, "1,000"),
    ("a pause called valid", changed("position", valid=VALID), "position.gaps", WARN, "1 gaps"),
    ("times go back", put("position", "times_s", 9, 12.0), "position.times_ascending", BLOCK, "go back"),
    ("a time twice", put("position", "times_s", 9, 0.2), "position.times_ascending", WARN, "1 equal the one before"),
    ("times for too many", shortened("position", 5), "position.rate", BLOCK, "times for 5 samples"),
    ("a trial backwards", put("trials", "stop_s", 4, 0.0), "trials.stop_after_start", BLOCK, "row 4: 9 to 0 s"),
    ("a trial without end", put("trials", "stop_s", 4, np.nan), "trials.stop_after_start", WARN, "1 have no stop"),
    ("a trial after the end", put("trials", "stop_s", -1, 80.0), "trials.times_in_domain", WARN, "0 to 40 s"),
    ("a trial at no time", put("trials", "start_s", 0, np.nan), "trials.times_finite", BLOCK, "1 of 19"),
    ("a short column", changed("trials", columns={"x": np.zeros(1)}), "trials.stop_after_start", BLOCK, "19 rows"),
]  # fmt: skip


def failed(found: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in found if not check.passed}


def test_a_sound_recording_passes_every_check_and_each_says_what_it_saw():
    found = checks.judge(sound())
    assert failed(found) == {}
    assert all(len(check.evidence) > 6 for check in found)
    assert len({check.name for check in found}) == len(found) > 30


@pytest.mark.parametrize(
    ("change", "name", "severity", "words"), [row[1:] for row in FAULTS], ids=[r[0] for r in FAULTS]
)
def test_a_planted_fault_is_found_and_named(change, name, severity, words):
    check = failed(checks.judge(change(sound())))[name]
    assert (check.severity, words in check.evidence) == (severity, True), check.evidence


def test_every_check_has_a_fault_that_it_finds():
    found = {check.name.rpartition(".")[2] for check in checks.judge(sound())}
    assert found <= {name.rpartition(".")[2] for _, _, name, _, _ in FAULTS}


def test_judging_twice_says_the_same_and_changes_nothing():
    recording = sound()
    before = {name: np.array(getattr(s, "values", 0)) for name, s in recording.streams.items()}
    assert checks.judge(recording) == checks.judge(recording)
    assert all(np.array_equal(before[n], getattr(s, "values", 0)) for n, s in recording.streams.items())


@given(seed=st.integers(0, 3), ends=st.tuples(st.floats(0, STOP_S), st.floats(0, STOP_S)))
def test_what_passes_still_passes_when_cut(seed, ends):
    start, stop = min(ends), max(ends)
    if stop - start > 0.5:
        assert blocking(checks.judge(sound(seed).slice(start, stop))) == ()


def moved(recording: Recording, by: float) -> Recording:
    def move(stream):
        valid = stream.valid + by
        if isinstance(stream, Events):
            return replace(stream, times_s=stream.times_s + by, valid=valid)
        if isinstance(stream, Intervals):
            return replace(stream, start_s=stream.start_s + by, stop_s=stream.stop_s + by, valid=valid)
        if stream.times_s is None:
            return replace(stream, t0_s=stream.t0_s + by, valid=valid)
        return replace(stream, times_s=stream.times_s + by, valid=valid)

    start, stop = recording.domain_s
    streams = {name: move(stream) for name, stream in recording.streams.items()}
    return replace(recording, streams=streams, domain_s=(start + by, stop + by))


@given(by=st.floats(-1e6, 1e6))
def test_what_passes_still_passes_when_moved_in_time(by):
    found = failed(checks.judge(moved(sound(), by)))
    assert {name.rpartition(".")[2] for name in found} <= {"times_not_negative"}


class Lazy:
    """An array that refuses to be read at once."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, key):
        piece = self.array[key]
        assert piece.size <= PIECE
        return piece


@pytest.mark.parametrize("holes", [False, True])
def test_pieces_agree_with_the_whole(holes):
    rng = np.random.default_rng(3)
    values = np.round(rng.normal(0, 20, (PIECE // 2 + 777, 4))).astype(np.float32)
    values[:, 3] *= 3
    if holes:
        values[rng.random(values.shape) < 0.1] = np.nan
    stream = Samples(
        values=Lazy(values), unit="uV", channels=Channels(ids=tuple("abcd")), modality="eeg", rate_hz=1000.0,
        valid=np.array([[0.0, 100.0], [200.0, 300.0]]),
    )  # fmt: skip
    seen = survey(stream)
    inside = np.r_[values[:100_000], values[200_000:300_000]]
    assert (seen.n_inside, seen.bad) == (inside.size, int(np.isnan(inside).sum()))
    assert np.array_equal(seen.low, np.nanmin(values, axis=0)) and np.array_equal(seen.high, np.nanmax(values, axis=0))
    assert np.array_equal(seen.at_low, (values == seen.low).sum(axis=0))
    assert np.array_equal(seen.at_high, (values == seen.high).sum(axis=0))
    assert seen.spread == pytest.approx([20, 20, 20, 60], rel=0.1)


def test_the_simulator_passes():
    spec = SimSpec(
        seed=1, duration_s=30.0, n_units=8, n_gaps=2, clock_ppm=40.0, lfp_channels=2, calcium_cells=4, eeg_channels=4
    )
    assert failed(checks.judge(simulate(spec)[0])) == {}
