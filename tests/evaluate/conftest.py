"""Small recordings with a planted code, for tests of evaluation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from neurofmx.evaluate.spec import Chosen, TaskSpec
from neurofmx.provenance import digest_of
from neurofmx.tokenize.targets import TargetSpec
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
    Subject,
)

RATE_HZ = 20.0


@pytest.fixture(scope="session")
def planted() -> Callable[..., Recording]:
    """Makes a recording with a planted code."""
    return _planted


@pytest.fixture(scope="session")
def task() -> TaskSpec:
    """Behaviour from calcium in blocks of time."""
    return TaskSpec(
        name="planted-behaviour",
        question="Does calcium tell behaviour?",
        where=Chosen(datasets=("planted",)),
        inputs={"calcium": "calcium"},
        bin_s=0.1,
        target=TargetSpec(kind="continuous", stream="behaviour"),
        window_s=1.0,
        n_blocks=10,
        n_folds=5,
        guard_s=0.4,
        baselines=("ridge", "wiener"),
    )


@pytest.fixture(scope="session")
def trials() -> TaskSpec:
    """The side of trials from calcium, groups of five trials held out together."""
    return TaskSpec(
        name="planted-side",
        question="Does calcium tell the side?",
        where=Chosen(datasets=("planted",)),
        inputs={"calcium": "calcium"},
        bin_s=0.1,
        target=TargetSpec(
            kind="class", stream="trials", column="side", classes=("left", "right"), duration_s=0.5, group="block"
        ),
        split="trial_groups",
        n_folds=4,
        metric="auroc",
        unit="group",
        baselines=("lda", "logistic", "lda_time"),
    )


def _planted(
    name: str = "one",
    *,
    seed: int = 0,
    duration_s: float = 120.0,
    channels: int = 8,
    noise: float = 1.0,
    dataset: str = "planted",
    subject: str = "s1",
) -> Recording:
    """Calcium that reads two smooth signals linearly, and trials whose side the first channel tells."""
    own = np.random.default_rng(seed)
    n = int(duration_s * RATE_HZ)
    smooth = np.exp(-np.arange(40) / 10.0)
    y = np.stack([np.convolve(own.standard_normal(n + 39), smooth, mode="valid") for _ in range(2)], axis=1)
    y /= y.std(axis=0)
    weights = np.random.default_rng(99).standard_normal((2, channels))
    starts = np.arange(1.0, duration_s - 2.0, 1.0)
    side = own.integers(0, 2, len(starts))
    x = y @ weights + noise * own.standard_normal((n, channels))
    times = np.arange(n) / RATE_HZ
    for start, which in zip(starts, side):
        x[(times >= start) & (times < start + 0.5), 0] += 3.0 * which
    valid = np.array([[0.0, duration_s]])
    count = 40 * int(duration_s)
    spikes = np.sort(own.uniform(0, duration_s, count))
    return Recording(
        id=RecordingId("test", dataset, "1", name),
        streams={
            "calcium": _samples(x, "calcium", tuple(f"c{i}" for i in range(channels)), valid),
            "behaviour": _samples(y, "behaviour", ("a", "b"), valid),
            "spikes": Events(
                times_s=spikes,
                codes=own.integers(0, 4, count).astype(np.int32),
                channels=Channels(ids=("u0", "u1", "u2", "u3")),
                modality="spikes",
                valid=valid,
            ),
            "trials": Intervals(
                start_s=starts,
                stop_s=starts + 0.5,
                columns={
                    "side": np.array(["left", "right"])[side],
                    "block": np.arange(len(starts)) // 5,
                    "hint": side + 0.1 * own.standard_normal(len(starts)),
                },
                modality="trials",
                valid=valid,
            ),
        },
        subject=Subject(id=subject, species="none"),
        domain_s=(0.0, duration_s),
        provenance=Provenance(
            files=(RawFile(path=f"{name}.bin", url=f"test:{name}", sha256=digest_of([dataset, name, seed]), size=1),),
            reader="test@1",
        ),
        licence=Licence(spdx="CC0-1.0"),
    )


def _samples(values: np.ndarray, modality: str, ids: tuple[str, ...], valid: np.ndarray) -> Samples:
    return Samples(
        values=values.astype(np.float32),
        unit="a.u.",
        channels=Channels(ids=ids),
        modality=modality,
        valid=valid,
        rate_hz=RATE_HZ,
    )
