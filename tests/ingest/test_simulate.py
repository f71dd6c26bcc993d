"""The simulator holds what it states: known facts of its laws, planted truth that can be found, a hard level."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import subspace_angles

from neurofmx.clock_fit import fit_clock
from neurofmx.config import from_plain
from neurofmx.errors import ConfigError, MalformedFile, NotThere
from neurofmx.ingest import simulate_observe as observe
from neurofmx.ingest.archives.simulated import list_sessions
from neurofmx.ingest.sessions import Session, Source
from neurofmx.ingest.simulate import (
    REPORTING_SEED,
    SIMULATED,
    TUNING_SEED,
    read,
    sessions,
    simulate,
    truth,
)
from neurofmx.ingest.simulate_latents import LORENZ_MEAN, LORENZ_STD, STEP_S, latent_path, lorenz, readout
from neurofmx.ingest.simulate_oracle import oracle_scores
from neurofmx.ingest.simulate_spec import SimSpec
from neurofmx.provenance import digest_array, plain
from neurofmx.types import Events, RawFile, Samples

SMALL = SimSpec(seed=5, duration_s=20.0, n_units=12)
ALL = [(name, i) for name, rows in SIMULATED.items() for i in range(len(rows))]


def spikes_of(spec: SimSpec) -> Events:
    stream = simulate(spec)[0].streams["spikes"]
    assert isinstance(stream, Events)
    return stream


def listed() -> Session:
    return next(list_sessions(Source(archive="simulated", dataset="multimodal", version="1")))


def test_lorenz_fixed_points_stay_and_the_origin_repels() -> None:
    wing = np.sqrt(8 / 3 * 27)
    assert np.allclose(lorenz((wing, wing, 27.0), 100, 0.001), [wing, wing, 27.0], atol=1e-6)
    assert np.abs(lorenz((1e-3, 0.0, 0.0), 2000, 0.01)[-500:]).max() > 5


def test_lorenz_agrees_with_an_independent_integrator_and_converges() -> None:
    start = (1.0, 2.0, 20.0)
    known = solve_ivp(
        lambda _, s: [10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]],
        (0, 1),
        start,
        method="DOP853",
        rtol=1e-12,
        atol=1e-12,
    ).y[:, -1]
    errors = [np.linalg.norm(lorenz(start, round(1 / h), h)[-1] - known) for h in (0.01, 0.005)]
    assert errors[0] < 1e-3
    assert errors[0] / errors[1] > 12  # fourth order: halving the step divides the error by 16 or more


def test_lorenz_diverges_at_the_known_exponent() -> None:
    a = lorenz((1.0, 1.0, 25.0), 2000, 0.005)[-1]
    near = lorenz(tuple(a), 2000, 0.005)
    far = lorenz((a[0] + 1e-8, a[1], a[2]), 2000, 0.005)
    growth = np.log(np.linalg.norm(near - far, axis=1))
    assert np.polyfit(np.arange(2000) * 0.005, growth, 1)[0] == pytest.approx(0.9, abs=0.35)


def test_lorenz_moments_are_the_stated_ones() -> None:
    path = lorenz((1.0, 1.0, 25.0), 100_000, 0.01)[1000:]
    assert np.allclose(path.mean(axis=0), LORENZ_MEAN, atol=0.6)
    assert np.allclose(path.std(axis=0), LORENZ_STD, rtol=0.03)


def test_oscillators_have_unit_variance_and_their_own_pace() -> None:
    slow, _ = latent_path(SimSpec(seed=1, latent="linear", duration_s=400.0))
    fast, _ = latent_path(SimSpec(seed=1, latent="linear", duration_s=400.0, speed=3.0))
    assert np.allclose(slow.std(axis=0), 1, atol=0.2)

    def peak_hz(x: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(x)) ** 2
        return float(np.sum(np.fft.rfftfreq(len(x), STEP_S) * power) / power.sum())

    assert peak_hz(fast[:, 0]) / peak_hz(slow[:, 0]) == pytest.approx(3, rel=0.3)


def test_network_turns_one_way_in_each_regime() -> None:
    latents, regime = latent_path(SimSpec(seed=2, latent="switching", duration_s=120.0))
    phase = np.unwrap(np.angle(latents[:, 0] + 1j * latents[:, 1]))
    turn = np.diff(phase)
    ways = [np.median(turn[regime[1:, 0] == r]) for r in (0, 1)]
    assert ways[0] * ways[1] < 0
    assert np.allclose(latents.std(axis=0), 1, atol=0.15)


def test_coupling_is_seen_at_its_lag_only() -> None:
    latents, _ = latent_path(SimSpec(seed=3, latent="linear", duration_s=300.0, coupling=0.8, coupling_lag_s=0.2))
    a, b = latents[:, 0], latents[:, 4]
    lags = np.arange(0, 60, 5)
    r = [np.corrcoef(a[: len(a) - lag], b[lag:])[0, 1] for lag in lags]
    assert lags[int(np.argmax(r))] * STEP_S == pytest.approx(0.2, abs=0.051)
    assert max(r) == pytest.approx(0.8, abs=0.15)
    alone, _ = latent_path(SimSpec(seed=3, latent="linear", duration_s=300.0))
    assert abs(np.corrcoef(alone[:-20, 0], alone[20:, 4])[0, 1]) < 0.25


@pytest.mark.parametrize("latent", ["lorenz", "linear", "switching"])
@pytest.mark.parametrize("angle", [0.0, 30.0, 75.0, 90.0])
def test_relatedness_is_the_principal_angle(latent: str, angle: float) -> None:
    spec = from_plain(SimSpec, {"seed": 1, "latent": latent})
    planes = readout(spec), readout(replace(spec, seed=2, relatedness_deg=angle))
    assert np.allclose(planes[1].T @ planes[1], np.eye(2))
    assert np.allclose(np.rad2deg(subspace_angles(*planes)), angle, atol=1e-5)


def test_transfer_sessions_are_as_related_as_their_angles() -> None:
    found = sessions("lorenz-transfer")
    for a in found:
        for b in found:
            angle = np.rad2deg(subspace_angles(readout(a.spec), readout(b.spec))).max()
            assert angle == pytest.approx(abs(a.spec.relatedness_deg - b.spec.relatedness_deg), abs=1e-4)
    assert len({s.spec.species for s in found}) == 2
    assert len({s.name for s in found}) == len(found) == 6


@pytest.mark.parametrize(("dataset", "row"), ALL)
def test_a_session_is_the_same_whenever_it_is_made(dataset: str, row: int) -> None:
    spec = replace(sessions(dataset)[row].spec, duration_s=15.0, gap_s=0.5)
    first, second = simulate(spec)[0], simulate(spec)[0]
    other = simulate(replace(spec, seed=spec.seed + 1))[0]
    for name, stream in first.streams.items():
        values = [r.streams[name] for r in (first, second, other)]
        key = "times_s" if isinstance(stream, Events) else "values"
        digests = [digest_array(getattr(v, key)) for v in values]
        assert digests[0] == digests[1] != digests[2]


def test_adding_a_stream_changes_no_other() -> None:
    more = replace(SMALL, lfp_channels=2, calcium_cells=3, eeg_channels=2)
    assert np.array_equal(spikes_of(SMALL).times_s, spikes_of(more).times_s)


def test_tuning_and_reporting_seeds_never_meet() -> None:
    sets = [{s.spec.seed for d in SIMULATED for s in sessions(d, seed=b)} for b in (TUNING_SEED, REPORTING_SEED)]
    assert not sets[0] & sets[1]


def test_spike_counts_follow_the_true_rates() -> None:
    spec = replace(SMALL, duration_s=120.0)
    spikes, hidden = spikes_of(spec), truth(spec)
    expected = hidden.rates_hz.sum(axis=0) * STEP_S
    counts = np.bincount(spikes.codes, minlength=spec.n_units)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
    assert np.all(np.diff(spikes.times_s) >= 0)


def test_units_read_their_own_region_only() -> None:
    hidden = truth(SMALL)
    regions = simulate(SMALL)[0].streams["spikes"].channels.regions  # type: ignore[union-attr]
    half = hidden.latents.shape[1] // 2
    for unit, region in enumerate(regions):
        blind = slice(half, None) if region == "A" else slice(0, half)
        assert not hidden.loadings[:, unit, blind].any()


def test_lost_units_fall_silent_and_drift_turns_the_loading() -> None:
    spec = replace(SMALL, dropout=0.5, duration_s=60.0)
    spikes, hidden = spikes_of(spec), truth(spec)
    assert 0 < np.isfinite(hidden.lost_s).sum() < spec.n_units
    assert np.all(spikes.times_s < hidden.lost_s[spikes.codes] + STEP_S)
    still, turned = truth(SMALL).rates_hz, truth(replace(SMALL, drift_deg=90.0)).rates_hz
    assert np.allclose(still[0], turned[0], rtol=0.05)
    assert not np.allclose(still[-1], turned[-1], rtol=0.5)


def test_gaps_are_stated_and_empty_in_every_neural_stream() -> None:
    spec = replace(SMALL, n_gaps=2, gap_s=1.5, lfp_channels=2, calcium_cells=4, duration_s=30.0)
    recording, hidden = simulate(spec)
    assert hidden.gaps_s.shape == (2, 2)
    for name in ("spikes", "lfp", "calcium"):
        stream = recording.streams[name]
        times = stream.times() if isinstance(stream, Samples) else stream.times_s  # type: ignore[union-attr]
        for start, stop in hidden.gaps_s:
            assert not ((times >= start) & (times < stop)).any()
        assert np.allclose(stream.valid[1:, 0], hidden.gaps_s[:, 1])
    assert recording.streams["behaviour"].valid.tolist() == [[0.0, 30.0]]


def test_skewed_clock_is_mapped_back_within_the_stated_error() -> None:
    spec = replace(SMALL, clock_ppm=200.0, clock_jitter_s=0.0005, duration_s=120.0)
    recording, hidden = simulate(spec)
    raw_error = np.abs(observe.device_clock(spec, hidden.spike_times_s) - hidden.spike_times_s).max()
    spikes = recording.streams["spikes"]
    assert isinstance(spikes, Events)
    assert raw_error > 0.2
    inside = hidden.spike_times_s[(hidden.spike_times_s > 0.01) & (hidden.spike_times_s < 119.99)]
    mapped = spikes.times_s[np.searchsorted(spikes.times_s, 0.0095) :]
    mapped = mapped[np.argmin(np.abs(mapped - inside[0])) :][: len(inside)]
    assert np.abs(mapped - inside).max() < recording.clock_error_s < 0.002
    assert fit_clock(*observe.sync_pulses(spec)).drift_ppm[0] == pytest.approx(-200, abs=10)


def test_planted_clock_faults_are_found_and_mapped_back() -> None:
    spec = replace(
        SMALL, clock_ppm=80.0, clock_turn_ppm=20.0, clock_reset_s=3.0, clock_jitter_s=1e-5, pulse_faults=0.1,
        duration_s=600.0, n_units=2,
    )  # fmt: skip
    recording, hidden = simulate(spec)
    clock, spikes = recording.clocks["spikes"], recording.streams["spikes"]
    assert isinstance(spikes, Events)
    assert len(clock.slope) == 3 and len(clock.resets_s) == 1
    assert clock.n_set_aside > 0.1 * clock.n_pulses
    (gap,) = spikes.valid[1:, 0] - spikes.valid[:-1, 1]
    assert spikes.valid[0, 1] < observe.reset_time(spec) < spikes.valid[1, 0]
    assert 0 < gap < 5 * observe.PULSE_S
    exact = hidden.spike_times_s
    near = np.clip(np.searchsorted(exact, spikes.times_s), 1, len(exact) - 1)
    off = np.minimum(np.abs(exact[near] - spikes.times_s), np.abs(exact[near - 1] - spikes.times_s))
    assert off.max() < 2 * recording.clock_error_s < 1e-4
    assert recording.clock_error_s == clock.error_s


def test_field_potential_power_follows_its_own_region() -> None:
    spec = replace(SMALL, latent="linear", duration_s=120.0, lfp_channels=4)
    recording, hidden = simulate(spec)
    lfp = recording.streams["lfp"]
    assert isinstance(lfp, Samples)
    assert lfp.channels.regions == ("A", "A", "B", "B")
    power = np.log((np.asarray(lfp.values, float).reshape(-1, 50, 4) ** 2).mean(axis=1))
    latents = hidden.latents.reshape(-1, 10, hidden.latents.shape[1]).mean(axis=1)

    def explained(y: np.ndarray, x: np.ndarray) -> float:
        x = np.c_[x, x**2, np.ones(len(x))]
        return float(1 - np.var(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) / np.var(y))

    own, other = explained(power[:, 0], latents[:, :4]), explained(power[:, 0], latents[:, 4:])
    assert own > 0.3 > 0.15 > other


def test_calcium_rises_with_spikes_and_decays() -> None:
    spec = replace(SMALL, calcium_cells=1, rate_hz=1.0)
    lone = observe.calcium_traces(spec, np.array([5.0]), np.array([0]))
    step = lone[150:165, 0].mean() - lone[:150, 0].mean()
    later = lone[165:180, 0].mean() - lone[:150, 0].mean()
    assert step > 0.15
    assert later / step == pytest.approx(np.exp(-1), abs=0.35)


def test_rates_give_back_the_behaviour() -> None:
    scores = oracle_scores(SimSpec(seed=TUNING_SEED, law_seed=1, duration_s=60.0, n_units=24), n_folds=3)
    assert scores["truth"] >= scores["rates"] > 0.9
    assert scores["rates"] > scores["wiener"] > scores["ridge"] > 0.2


def test_linear_decoders_fail_on_hard_and_the_oracle_does_not() -> None:
    spec = replace(sessions("hard", seed=TUNING_SEED)[0].spec, duration_s=150.0, n_units=50)
    scores = oracle_scores(spec, n_folds=3)
    assert scores["ridge"] < 0.05
    assert scores["wiener"] < 0.05
    assert scores["spikes"] > 0.4
    assert scores["rates"] > 0.9


def test_the_raw_file_makes_the_recording_again(tmp_path: Path) -> None:
    session = listed()
    payload = base64.b64decode(session.files[0].url.split(",", 1)[1])
    (tmp_path / session.files[0].path).write_bytes(payload)
    raw = RawFile(path=session.files[0].path, url=session.files[0].url, sha256="0" * 64, size=len(payload))
    recording = read(tmp_path, session, (raw,))
    assert recording.id == session.id
    assert recording.provenance.files == (raw,)
    direct = simulate(sessions("multimodal")[0].spec)[0]
    assert np.array_equal(recording.streams["spikes"].times_s, direct.streams["spikes"].times_s)  # type: ignore


def test_bad_specs_are_refused_with_reasons(tmp_path: Path) -> None:
    with pytest.raises(NotThere, match="lorenz-transfer"):
        sessions("nothing")
    with pytest.raises(ConfigError, match="duration_s"):
        from_plain(SimSpec, {**plain(SMALL), "duration": 3.0})
    with pytest.raises(ConfigError, match="gaps"):
        simulate(replace(SMALL, n_gaps=10, gap_s=5.0))
    session = listed()
    raw = RawFile(path="x.json", url="", sha256="", size=0)
    (tmp_path / "x.json").write_text("{not json")
    with pytest.raises(MalformedFile, match=r"x\.json"):
        read(tmp_path, session, (raw,))
