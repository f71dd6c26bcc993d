"""What a simulated session is made from: one frozen row of settings, which is also its raw file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SimSpec:
    """Everything that a simulated session is made from.

    Args:
        seed: the session's own: units, noise, initial state.
        law_seed: shared by the sessions of a dataset: dynamics, base readout, amplitude rules.
        latent: system of each of the two regions.
        duration_s: length of the session.
        n_units: number of units, half in region A, half in B.
        species: label.
        subject: label.
        session: label.
        relatedness_deg: both principal angles between this session's readout plane and the law's.
        coupling: share of region B's latents that is region A's, delayed (0 to 1).
        coupling_lag_s: that delay.
        speed: factor on the latents' pace.
        gain: length of each unit's loading.
        link: ``exp`` or ``tanh``, from drive to rate.
        rate_hz: mean base rate of a unit.
        behaviour: ``linear`` or ``product`` readout.
        memory_s: time constant of the leak with which behaviour integrates, 0 for none.
        behaviour_noise: standard deviation of white noise on each behaviour sample.
        drift_deg: angle by which loadings turn from start to end.
        dropout: share of units lost at some time.
        n_gaps: pauses of the neural recorder.
        gap_s: length of each pause.
        clock_ppm: rate error of the spike recorder's clock.
        clock_turn_ppm: by how much that rate changes half-way.
        clock_reset_s: how far that clock jumps ahead at two thirds of the session, 0 for no reset.
        clock_jitter_s: jitter of its synchronisation pulses.
        pulse_faults: share of the pulses that each side loses, and of false ones that it sees.
        lfp_channels: 0 for no LFP.
        calcium_cells: 0 for no calcium; at most ``n_units``.
        eeg_channels: 0 for no EEG.
    """

    seed: int
    law_seed: int = 0
    latent: Literal["lorenz", "linear", "switching"] = "lorenz"
    duration_s: float = 240.0
    n_units: int = 40
    species: str = "sim-a"
    subject: str = "s1"
    session: str = "1"
    relatedness_deg: float = 0.0
    coupling: float = 0.0
    coupling_lag_s: float = 0.1
    speed: float = 1.0
    gain: float = 0.7
    link: Literal["exp", "tanh"] = "exp"
    rate_hz: float = 8.0
    behaviour: Literal["linear", "product"] = "linear"
    memory_s: float = 0.0
    behaviour_noise: float = 0.2
    drift_deg: float = 0.0
    dropout: float = 0.0
    n_gaps: int = 0
    gap_s: float = 2.0
    clock_ppm: float = 0.0
    clock_turn_ppm: float = 0.0
    clock_reset_s: float = 0.0
    clock_jitter_s: float = 0.0
    pulse_faults: float = 0.0
    lfp_channels: int = 0
    calcium_cells: int = 0
    eeg_channels: int = 0
