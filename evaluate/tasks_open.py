"""Tasks on what any machine can have: the simulated archive, whose truth is known, and the sample archive."""

from __future__ import annotations

from neurofmx.evaluate.spec import Chosen, TaskSpec
from neurofmx.tokenize.targets import TargetSpec
from neurofmx.types import Op

LINEAR = ("ridge", "wiener")
KINEMATIC = ("ridge", "wiener", "kalman")
SIMULATED = "simulated: shows that a method finds what is there, not how brains work"
ONE_RAMP = "force and EMG are one ramp of one person"
FROM_EMG = "motor units were decomposed from the same EMG: the two are not independent"
ONE_CELL = "20 s in all; both recordings may be of one cell: no claim across cells"


def _simulated(name: str, dataset: str, question: str, unit: str, **inputs: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        question=question,
        where=Chosen(archives=("simulated",), datasets=(dataset,)),
        inputs=inputs,
        bin_s=0.05,
        target=TargetSpec(kind="continuous", stream="behaviour"),
        window_s=2.0,
        n_blocks=10,
        n_folds=5,
        guard_s=0.5,
        unit=unit,
        baselines=KINEMATIC,
        caveats=(SIMULATED,),
    )


def force(name: str, where: Chosen, question: str, *caveats: str, **inputs: str) -> TaskSpec:
    """A task on a ramp contraction: force from EMG, motor units or both."""
    return TaskSpec(
        name=name,
        question=question,
        where=where,
        inputs=inputs,
        bin_s=0.125,
        target=TargetSpec(kind="continuous", stream="force"),
        window_s=1.0,
        n_blocks=8,
        n_folds=4,
        guard_s=0.25,
        baselines=LINEAR,
        caveats=(ONE_RAMP, *caveats),
    )


def forces(prefix: str, where: Chosen) -> tuple[TaskSpec, ...]:
    """The three force tasks of one dataset."""
    return (
        force(f"{prefix}-emg-force", where, "Does high-density EMG tell force?", emg="emg_features"),
        force(f"{prefix}-units-force", where, "Do motor units tell force?", FROM_EMG, spikes="spikes"),
        force(
            f"{prefix}-both-force", where, "Do motor units add to EMG?", FROM_EMG, emg="emg_features", spikes="spikes"
        ),
    )


def receptor(name: str, where: Chosen) -> TaskSpec:
    """Spike rate of an auditory receptor from the sound that it heard: an encoding task."""
    return TaskSpec(
        name=name,
        question="Does the sound tell the receptor's spike rate (smoothed by 3 ms)?",
        where=where,
        inputs={"sound": "sound"},
        bin_s=0.003,
        target=TargetSpec(
            kind="continuous", stream="spikes", ops=(Op("bin_counts"), Op("smooth", (("sigma_s", 0.003),)))
        ),
        window_s=0.3,
        n_blocks=10,
        n_folds=5,
        guard_s=0.06,
        metric="pearson",
        baselines=LINEAR,
        caveats=(ONE_CELL,),
    )


ROWS = (
    _simulated(
        "sim-lorenz-behaviour", "lorenz-transfer", "Do spikes tell behaviour that reads Lorenz latents?", "recording",
        spikes="spikes",
    ),
    _simulated(
        "sim-multimodal-behaviour", "multimodal", "Do spikes and LFP tell behaviour, through drift and gaps?",
        "block", spikes="spikes", lfp="lfp_bands",
    ),
    _simulated(
        "sim-hard-behaviour", "hard", "Do spikes tell behaviour that is a product of latents, with memory?", "block",
        spikes="spikes",
    ),
    *forces("sample", Chosen(archives=("sample",), datasets=("openhdemg",))),
    receptor("sample-sound-spikes", Chosen(archives=("sample",), datasets=("nitime",), names=("grasshopper*",))),
)  # fmt: skip
