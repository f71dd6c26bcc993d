"""Clock maps: planted skew, drift, jitter, lost and false pulses and resets are recovered, with an honest error."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofmx.clock import EPOCH_S, ClockMap, identity, nominal_clock, unroll
from neurofmx.clock_fit import fit_clock
from neurofmx.clock_match import sync_clock
from neurofmx.errors import ConfigError

TENTH_S = 0.1 / 30_000  # a tenth of a sample at 30 kHz
JITTER_S = 1e-5  # a third of a sample: what rounding to samples does to a pulse's edge


@dataclass(frozen=True)
class Device:
    """A device with a skew, a change of rate and perhaps a jump of its clock."""

    ppm: float
    turn_ppm: float
    turn_s: float
    jump_s: float
    jump_at_s: float
    start_s: float = 17.3

    def __call__(self, session_s: np.ndarray) -> np.ndarray:
        turned = self.turn_ppm * 1e-6 * np.maximum(session_s - self.turn_s, 0.0)
        jumped = self.jump_s * (session_s >= self.jump_at_s)
        return (session_s + self.start_s) * (1 + self.ppm * 1e-6) + turned + jumped


def seen(own: np.random.Generator, sent: np.ndarray, faults: float) -> np.ndarray:
    kept = sent[own.random(len(sent)) >= faults]
    return np.sort(np.concatenate([kept, own.uniform(sent.min(), sent.max(), round(faults * len(sent)))]))


def planted(seed: int, *, faults: float, jump_s: float = 0.0, turn_ppm: float = 0.0) -> tuple:
    """An hour of pulses about a second apart, each side losing and inventing a share of them."""
    own = np.random.default_rng(seed)
    sent = np.cumsum(own.uniform(0.5, 1.5, 3600))
    length = sent[-1]
    device = Device(own.uniform(-100, 100), turn_ppm, length * 0.4, jump_s, length * 0.7)
    jittered = device(sent) + JITTER_S * own.standard_normal(len(sent))
    return device, seen(own, jittered, faults), seen(own, sent, faults), length


def worst_error(clock: ClockMap, device: Device, length: float) -> float:
    times = np.linspace(0, length, 20_001)
    # what a clock that was set back shows again stands for two times: no map can tell them apart
    again = (times >= device.jump_at_s) & (device(times) <= device(np.array([device.jump_at_s - 1e-9])))
    times = times[~again]
    at = device(times)
    error = np.abs(clock.apply(at) - times)
    for before, after in clock.resets_s:
        error = error[(at < before) | (at > after)] if before < after else error
        at = at[(at < before) | (at > after)] if before < after else at
    return float(error.max())


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), faults=st.sampled_from([0.0, 0.05, 0.15]), turn=st.sampled_from([-20.0, 0.0, 8.0]))
def test_an_hour_is_mapped_to_a_tenth_of_a_sample(seed: int, faults: float, turn: float) -> None:
    device, pulses, session, length = planted(seed, faults=faults, turn_ppm=turn)
    clock = sync_clock(pulses, session)
    assert worst_error(clock, device, length) < TENTH_S
    assert len(clock.slope) == (2 if turn else 1)
    assert not len(clock.resets_s)
    rates = [device.ppm, device.ppm + turn][: len(clock.slope)]
    assert np.allclose(clock.drift_ppm, [-r / (1 + r * 1e-6) for r in rates], atol=0.05)
    # residuals are those of the jitter: half within 0.67 and 95 % within 1.96 of its deviations
    assert clock.quantiles_s[0] == pytest.approx(0.6745 * JITTER_S, rel=0.1)
    assert clock.error_s == clock.quantiles_s[1] == pytest.approx(1.96 * JITTER_S, rel=0.1)
    assert list(clock.quantiles_s) == sorted(clock.quantiles_s)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), jump=st.sampled_from([-0.004, 0.003, 250.0]))
def test_a_reset_is_found_between_the_pulses_round_it(seed: int, jump: float) -> None:
    device, pulses, session, length = planted(seed, faults=0.05, jump_s=jump, turn_ppm=8.0)
    clock = sync_clock(pulses, session)
    assert worst_error(clock, device, length) < TENTH_S
    assert len(clock.resets_s) == 1
    before, after = clock.resets_s[0]
    assert before <= device(np.array([device.jump_at_s - 1e-9]))[0] + 1e-3
    assert after >= device(np.array([device.jump_at_s]))[0] - 1e-3


def test_a_clock_that_starts_anew_is_unrolled() -> None:
    device, pulses, session, length = planted(3, faults=0.1)
    again = device(np.array([0.7 * length]))[0]
    written = np.where(pulses < again, pulses, pulses - again)
    unrolled, resets = unroll(written)
    assert resets.tolist() == [EPOCH_S]
    clock = sync_clock(unrolled, session, breaks_s=resets)
    assert clock.resets_s.tolist() == [[EPOCH_S, EPOCH_S]]
    times = np.linspace(0, length, 5001)
    at = device(times)
    assert np.abs(clock.apply(unroll(np.where(at < again, at, at - again))[0]) - times).max() < TENTH_S


def test_pulses_are_counted_on_either_clock() -> None:
    _, pulses, session, _ = planted(5, faults=0.0)
    clock = sync_clock(np.delete(pulses, [3, 500, 501]), np.delete(session, [1000]))
    assert clock.n_pulses == len(pulses) - 4
    assert clock.n_set_aside == 4
    assert "4 set aside" in clock.sentence()


def test_even_pulses_need_a_rough_shift_and_say_so() -> None:
    session = np.arange(0.0, 600.0)
    device = (session + 40.25) * (1 + 40e-6)
    with pytest.raises(ConfigError, match="shift_s"):
        sync_clock(device[3:], session)
    clock = sync_clock(np.delete(device, [5, 100, 101]), np.delete(session, 7), shift_s=-40.0)
    assert np.abs(clock.apply(device) - session).max() < 1e-9


def test_trains_of_two_lines_are_refused() -> None:
    own = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="partners"):
        sync_clock(*(np.cumsum(own.uniform(0.5, 1.5, 300)) for _ in range(2)))
    with pytest.raises(ConfigError, match="unroll"):
        sync_clock(np.array([0.0, 1, 2, 0, 1]), np.arange(5.0))


def test_few_coded_events_are_enough() -> None:
    own = np.random.default_rng(1)
    session, codes = np.sort(own.uniform(0, 1200, 14)), own.integers(0, 3, 14)
    device = session * (1 + 120e-6) + 3e3 + own.normal(0, 1e-4, 14)
    clock = sync_clock(
        np.delete(device, 4), np.delete(session, 9), device_codes=np.delete(codes, 4),
        session_codes=np.delete(codes, 9),
    )  # fmt: skip
    assert clock.n_pulses == 12
    assert np.abs(clock.apply(device) - session).max() < 5e-4
    with pytest.raises(ConfigError, match="codes"):
        sync_clock(device, session, device_codes=codes)


def test_paired_pulses_under_jitter_and_wrong_pairs() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    device = np.arange(0, 3600, 1.0)
    session = device * (1 + 30e-6) + 12.5 + rng.normal(0, 1e-4, device.size)
    session[::50] += 0.3  # pulses matched wrongly
    fitted = fit_clock(device, session)
    assert fitted.drift_ppm[0] == pytest.approx(30, abs=0.1)
    assert np.abs(fitted.apply(device) - (device * (1 + 30e-6) + 12.5)).max() < 1e-4 / 10
    assert 1e-4 < fitted.error_s < 3e-4
    assert fitted.n_set_aside == pytest.approx(72, abs=3)


@pytest.mark.parametrize("stated", [True, False])
def test_a_reset_makes_two_pieces(stated: bool) -> None:
    device = np.concatenate([np.arange(0, 100.0), np.arange(1000, 1100.0)])
    session = np.concatenate([np.arange(0, 100.0) + 5, np.arange(1000, 1100.0) - 800])
    fitted = fit_clock(device, session, breaks_s=np.array([500.0]) if stated else None)
    assert np.allclose(fitted.apply(device), session, atol=1e-9)
    assert fitted.resets_s.tolist() == ([[500.0, 500.0]] if stated else [[99.0, 1000.0]])


def test_few_pulses_do_not_look_exact() -> None:
    own = np.random.default_rng(2)
    errors = []
    for _ in range(300):
        device = np.sort(own.uniform(0, 100, 4))
        errors.append(fit_clock(device, device + own.normal(0, 1e-3, 4)).quantiles_s[0])
    # without widening four pulses and two numbers would state 0.7 of the jitter's median
    assert np.mean(errors) == pytest.approx(0.6745e-3, rel=0.25)


def test_stated_rates_and_starts_carry_their_precision() -> None:
    clock = nominal_clock(12.0, start_error_s=0.5, duration_s=3600, rate_hz=30.0, rate_error_hz=0.005)
    assert clock.error_s == pytest.approx(0.5 + 0.6)
    assert clock.apply(np.array([3.0])).tolist() == [15.0]
    assert "stated, not measured" in clock.sentence()
    with pytest.raises(ConfigError, match="from 0 up"):
        nominal_clock(0.0, start_error_s=-1.0, duration_s=1.0)


def test_the_identity_changes_no_bit_and_too_few_pulses_are_refused() -> None:
    times = np.array([1.25, -0.0, 5e-324, 1e300, 0.1 + 0.2])
    assert identity().apply(times).tobytes() == times.tobytes()
    with pytest.raises(ConfigError, match="at least 3"):
        fit_clock(np.array([1.0, 2.0]), np.array([1.0, 2.0]))


def test_a_map_survives_json_bit_for_bit() -> None:
    device, pulses, session, length = planted(9, faults=0.05, jump_s=4.0, turn_ppm=8.0)
    clock = sync_clock(pulses, session)
    back = ClockMap.from_plain(json.loads(json.dumps(clock.plain())))
    times = device(np.linspace(0, length, 1000))
    assert back.apply(times).tobytes() == clock.apply(times).tobytes()
    assert back.plain() == clock.plain()
