"""Small recordings, tokens and scores for the tests of the lake."""

from __future__ import annotations

import numpy as np

from neurofmx import catalog
from neurofmx.lake import Lake
from neurofmx.types import (
    Channels,
    Events,
    Licence,
    Provenance,
    Recording,
    RecordingId,
    Samples,
    Subject,
    TokenGrid,
    TokenSpec,
)

VALID = np.array([[0.0, 10.0]])


def recording(name: str, seed: int = 0, rows: int = 200) -> Recording:
    rng = np.random.Generator(np.random.PCG64(seed))
    return Recording(
        id=RecordingId("a", "b", "1", name),
        streams={
            "spikes": Events(
                times_s=np.sort(rng.uniform(0, 10, 50)), codes=rng.integers(0, 2, 50).astype(np.int32),
                channels=Channels(ids=("u0", "u1")), modality="spikes", valid=VALID,
            ),
            "lfp": Samples(
                values=rng.normal(size=(rows, 4)).astype(np.float32), unit="uV", channels=Channels(ids=tuple("abcd")),
                modality="lfp", valid=VALID, rate_hz=rows / 10,
            ),
        },
        subject=Subject(id="s1"),
        domain_s=(0.0, 10.0),
        provenance=Provenance(files=(), reader="t@1"),
        licence=Licence(spdx="CC0-1.0"),
    )  # fmt: skip


def spec(version: int = 1) -> TokenSpec:
    return TokenSpec(name="s", version=version, modality="spikes", ops=(), bin_s=0.1, fields=("count",))


def tokens(seed: int = 0) -> TokenGrid:
    rng = np.random.Generator(np.random.PCG64(seed))
    return TokenGrid(
        values=rng.normal(size=(20, 2, 1)).astype(np.float32), mask=np.ones((20, 2), bool), t0_s=0.0, dt_s=0.1,
        channels=Channels(ids=("u0", "u1")), fields=("count",),
    )  # fmt: skip


def put_score(lake: Lake, value: float) -> None:
    row = {"score_id": f"{value}", "task": "reach", "predictor": "ridge", "metric": "r2", "value": value, "seed": 0}
    catalog.put(lake, "scores", "reach", [row])
