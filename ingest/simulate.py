"""The simulated archive: recordings whose truth is known, made again from a seed whenever they are read.

The raw file of a simulated recording is its `SimSpec` as JSON. docs/SIMULATOR.md states the generators, the
observation models and what an oracle scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from neurofmx.clock import ClockMap
from neurofmx.clock_match import sync_clock
from neurofmx.config import from_plain
from neurofmx.errors import MalformedFile, NotThere
from neurofmx.ingest import simulate_observe as observe
from neurofmx.ingest.formats import spans
from neurofmx.ingest.sessions import Session
from neurofmx.ingest.simulate_latents import DIMENSIONS, STEP_S, latent_path, readout, rng
from neurofmx.ingest.simulate_spec import SimSpec
from neurofmx.types import (
    Channels,
    Events,
    Licence,
    Provenance,
    RawFile,
    Recording,
    RecordingId,
    Samples,
    Stream,
    Subject,
)

# seeds for choosing settings and seeds for the numbers that are reported never meet
TUNING_SEED, REPORTING_SEED = 9000, 1000
LICENCE = Licence(spdx="CC0-1.0", text="Made by neurofmx's simulator", source="neurofmx.ingest.simulate")


@dataclass(frozen=True, kw_only=True)
class SimSession:
    """A named session of a simulated dataset."""

    name: str
    spec: SimSpec


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a method should find.

    Args:
        times_s: (T,) centre of each 10 ms step.
        latents: (T, K), region A's dimensions first.
        regime: (T, 2) int8 hidden regime of each region.
        rates_hz: (T, U) rate that each spike was drawn from.
        loadings: (2, U, K) at the two ends of the drift.
        readout: (K, 2) orthonormal plane that behaviour reads.
        behaviour: (T, 2) without noise.
        lost_s: (U,) seconds after which a unit is lost, inf for never.
        gaps_s: (G, 2) pauses.
        spike_times_s: (N,) exact session times of all spikes, before gaps and clocks.
        spike_units: (N,) their units.
    """

    times_s: np.ndarray
    latents: np.ndarray
    regime: np.ndarray
    rates_hz: np.ndarray
    loadings: np.ndarray
    readout: np.ndarray
    behaviour: np.ndarray
    lost_s: np.ndarray
    gaps_s: np.ndarray
    spike_times_s: np.ndarray
    spike_units: np.ndarray


def truth(spec: SimSpec) -> Truth:
    """Everything hidden in a session, from its spec alone."""
    latents, regime = latent_path(spec)
    rates, lost_s = observe.unit_rates(spec, latents)
    times, units = observe.spike_trains(spec, rates)
    plane = readout(spec)
    return Truth(
        times_s=(np.arange(len(latents)) + 0.5) * STEP_S,
        latents=latents,
        regime=regime,
        rates_hz=rates,
        loadings=observe.loadings(spec, 2 * DIMENSIONS[spec.latent])[0],
        readout=plane,
        behaviour=observe.behaviour_path(spec, latents, plane),
        lost_s=lost_s,
        gaps_s=observe.gap_spans(spec),
        spike_times_s=times,
        spike_units=units,
    )


def simulate(
    spec: SimSpec, rid: RecordingId | None = None, *, files: tuple[RawFile, ...] = ()
) -> tuple[Recording, Truth]:
    """Makes a recording and its truth.

    Args:
        spec: what to make.
        rid: its name; one is made up from the spec's labels when None.
        files: the raw file that held the spec, for provenance.

    Returns:
        A recording with ``spikes``, ``behaviour`` and, where the spec asks, ``lfp``, ``calcium``, ``eeg``, all on
        the session clock from 0 to ``duration_s``; and the truth.
    """
    hidden = truth(spec)
    valid = _valid(spec.duration_s, hidden.gaps_s)
    spikes, clocks = _spike_stream(spec, hidden, valid)
    streams: dict[str, Stream] = {"spikes": spikes, "behaviour": _behaviour_stream(spec, hidden)}
    for name, count, rate in (
        ("lfp", spec.lfp_channels, observe.LFP_HZ),
        ("eeg", spec.eeg_channels, observe.EEG_HZ),
    ):
        if count:
            values = observe.field_potential(spec, hidden.latents, name=name, n_channels=count, rate_hz=rate)
            regions = _regions(count) if name == "lfp" else ()
            streams[name] = _sampled(values, rate, name, "uV", Channels(ids=_ids(name, count), regions=regions), valid)
    if spec.calcium_cells:
        traces = observe.calcium_traces(spec, hidden.spike_times_s, hidden.spike_units)
        cells = Channels(ids=_ids("cell", spec.calcium_cells), regions=_regions(spec.n_units)[: spec.calcium_cells])
        streams["calcium"] = _sampled(traces, observe.CALCIUM_HZ, "calcium", "dF/F", cells, valid)
    recording = Recording(
        id=rid or RecordingId("simulated", "one", "1", f"{spec.species}-{spec.subject}-{spec.session}-{spec.seed}"),
        streams=streams,
        subject=Subject(id=f"{spec.species}-{spec.subject}", species=spec.species),
        domain_s=(0.0, spec.duration_s),
        provenance=Provenance(
            files=files, reader="simulate@2", notes=("simulated",), citation="neurofmx simulator, docs/SIMULATOR.md"
        ),
        licence=LICENCE,
        session=spec.session,
        task=f"{spec.latent} latents, {spec.behaviour} readout",
        clocks=clocks,
    )
    return recording, hidden


def read(root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Makes the recording that a raw spec file describes.

    Raises:
        MalformedFile: the file is not JSON.
        ConfigError: a field that `SimSpec` does not have, or a value of another type.
    """
    path = root / files[0].path
    try:
        plain = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as err:
        raise MalformedFile(
            f"simulation spec {files[0].path}", got=str(err), expected="a JSON object", fix="Fetch it again."
        ) from err
    return simulate(from_plain(SimSpec, plain), session.id, files=files)[0]


def sessions(dataset: str, *, seed: int = REPORTING_SEED) -> list[SimSession]:
    """The sessions of a simulated dataset.

    Args:
        dataset: row of `SIMULATED`.
        seed: `REPORTING_SEED` for what is published; `TUNING_SEED` gives sister sessions to choose settings on.

    Raises:
        NotThere: no such dataset.
    """
    if dataset not in SIMULATED:
        raise NotThere(f"simulated dataset {dataset}", expected=f"one of {', '.join(SIMULATED)}")
    return [
        SimSession(
            name=f"{spec.species}-{spec.subject}",
            spec=replace(spec, seed=seed + spec.seed),
        )
        for spec in SIMULATED[dataset]
    ]


def _transfer_rows() -> tuple[SimSpec, ...]:
    # the angles are fixed here, before any training: two sessions are as related as their angles are near
    angles = {"sim-a": (0.0, 10.0, 20.0), "sim-b": (60.0, 70.0, 80.0)}
    return tuple(
        SimSpec(seed=10 * s + i, law_seed=1, species=species, subject=f"s{i + 1}", relatedness_deg=angle)
        for s, (species, row) in enumerate(angles.items())
        for i, angle in enumerate(row)
    )


_MULTIMODAL = SimSpec(
    seed=100,
    law_seed=2,
    latent="switching",
    duration_s=180.0,
    n_units=30,
    species="sim-m",
    coupling=0.5,
    drift_deg=20.0,
    dropout=0.1,
    n_gaps=2,
    clock_ppm=40.0,
    clock_jitter_s=0.0002,
    lfp_channels=8,
    calcium_cells=20,
    eeg_channels=8,
)
_HARD = SimSpec(
    seed=200,
    law_seed=3,
    latent="linear",
    duration_s=300.0,
    n_units=80,
    species="sim-h",
    link="tanh",
    rate_hz=15.0,
    behaviour="product",
    memory_s=0.5,
)

SIMULATED: Mapping[str, tuple[SimSpec, ...]] = {
    "lorenz-transfer": _transfer_rows(),
    "multimodal": (_MULTIMODAL, replace(_MULTIMODAL, seed=101, subject="s2")),
    "hard": (_HARD,),
}


def _spike_stream(spec: SimSpec, hidden: Truth, valid: np.ndarray) -> tuple[Events, dict[str, ClockMap]]:
    """Spikes as the lake holds them: pauses left out, the device's clock mapped back through its pulses."""
    times, units, clocks = hidden.spike_times_s, hidden.spike_units, {}
    if spec.clock_ppm or spec.clock_turn_ppm or spec.clock_reset_s or spec.clock_jitter_s:
        clock = clocks["spikes"] = sync_clock(*observe.sync_pulses(spec), shift_s=-observe.CLOCK_OFFSET_S)
        times = clock.apply(observe.device_clock(spec, times))
        # between the last pulse before a reset and the first after it no time is known
        valid = spans.without(valid, clock.apply(clock.resets_s))
    keep = np.zeros(len(times), dtype=bool)
    for start, stop in valid:
        keep |= (times >= start) & (times < stop)
    order = np.argsort(times[keep], kind="stable")
    channels = Channels(ids=_ids("unit", spec.n_units), regions=_regions(spec.n_units))
    spikes = Events(
        times_s=times[keep][order], codes=units[keep][order], channels=channels, modality="spikes", valid=valid
    )
    return spikes, clocks


def _behaviour_stream(spec: SimSpec, hidden: Truth) -> Samples:
    noise = spec.behaviour_noise * rng(spec.seed, "behaviour").standard_normal(hidden.behaviour.shape)
    return Samples(
        values=(hidden.behaviour + noise).astype(np.float32),
        unit="a.u.",
        channels=Channels(ids=("vx", "vy")),
        modality="behaviour",
        valid=np.array([[0.0, spec.duration_s]]),
        rate_hz=1.0 / STEP_S,
        t0_s=STEP_S / 2,
    )


def _sampled(
    values: np.ndarray, rate_hz: float, modality: str, unit: str, channels: Channels, valid: np.ndarray
) -> Samples:
    """A sampled stream; with pauses its samples have stated times, and none lies in a pause."""
    if len(valid) == 1:
        return Samples(values=values, unit=unit, channels=channels, modality=modality, valid=valid, rate_hz=rate_hz)
    times = np.arange(len(values)) / rate_hz
    keep = np.zeros(len(times), dtype=bool)
    for start, stop in valid:
        keep |= (times >= start) & (times < stop)
    return Samples(
        values=values[keep], unit=unit, channels=channels, modality=modality, valid=valid, times_s=times[keep]
    )


def _valid(duration_s: float, gaps_s: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], gaps_s.ravel(), [duration_s]]).reshape(-1, 2)


def _ids(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}{i:03d}" for i in range(count))


def _regions(count: int) -> tuple[str, ...]:
    return tuple("AB"[r] for r in observe.unit_regions(count))
