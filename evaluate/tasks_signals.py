"""Tasks whose target is a signal, on recordings of the mirror: position, force, song, spike rate."""

from __future__ import annotations

from neurofmx.evaluate.spec import Chosen, TaskSpec
from neurofmx.evaluate.tasks_open import KINEMATIC, LINEAR, forces, receptor
from neurofmx.tokenize.targets import TargetSpec, Where

FROZEN = "at rest the tracker stays on one pixel: only derived run epochs and speed above 20 px/s are scored"
ONE_RAT = "both sessions may be of one rat: no claim across animals"
ONE_BIRD = "22 s of one bird, neighbouring frames are alike"


def _place(name: str, pattern: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        question="Do hippocampal units tell where the rat is while it runs?",
        where=Chosen(archives=("dandi",), datasets=("900001",), names=(pattern,)),
        inputs={"spikes": "spikes"},
        bin_s=0.25,
        target=TargetSpec(
            kind="continuous", stream="position", within="epochs", where=(Where(column="label", values=("run",)),),
            min_speed=20.0,
        ),
        window_s=10.0,
        n_blocks=10,
        n_folds=5,
        guard_s=1.0,
        baselines=KINEMATIC,
        caveats=(FROZEN, ONE_RAT),
    )  # fmt: skip


ROWS = (
    _place("hippocampus-track-position", "*lineartrack*"),
    _place("hippocampus-maze-position", "*wmaze*"),
    *forces("openhdemg", Chosen(archives=("dandi",), datasets=("900004",))),
    TaskSpec(
        name="songbird-calcium-song",
        question="Do HVC neurons tell the spectrogram of the song?",
        where=Chosen(archives=("dandi",), datasets=("900005",)),
        inputs={"calcium": "calcium"},
        bin_s=1 / 30,
        target=TargetSpec(kind="continuous", stream="spectrogram"),
        window_s=1.0,
        n_blocks=10,
        n_folds=5,
        guard_s=0.2,
        baselines=LINEAR,
        caveats=(ONE_BIRD,),
    ),
    receptor("grasshopper-sound-spikes", Chosen(archives=("dandi",), datasets=("900007",))),
)
