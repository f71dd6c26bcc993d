"""Integers with a law: kept bit for bit, read as physical numbers, lazily and by any slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neurofmx import catalog, shards
from neurofmx.errors import MalformedFile
from neurofmx.lake import Lake
from neurofmx.scaled import Scaled
from neurofmx.shards import ShardedArray
from neurofmx.types import (
    Channels,
    Licence,
    Provenance,
    Recording,
    RecordingId,
    Samples,
    Subject,
)

INTEGERS = hnp.arrays(
    st.sampled_from([np.int16, np.uint16, np.int32, np.uint8, np.int64]),
    st.tuples(st.integers(0, 30), st.integers(1, 4)),
)


def recording_of(values: object, channels: int) -> Recording:
    stream = Samples(
        values=values, unit="uV", channels=Channels(ids=tuple(f"c{i}" for i in range(channels))), modality="eeg",
        valid=np.array([[0.0, 10.0]]), rate_hz=100.0,
    )  # fmt: skip
    return Recording(
        id=RecordingId("a", "b", "1", "r1"), streams={"eeg": stream}, subject=Subject(id="s"), domain_s=(0.0, 10.0),
        provenance=Provenance(files=(), reader="t@1"), licence=Licence(spdx="CC0-1.0"),
    )  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    integers=INTEGERS, dtype=st.sampled_from([np.float32, np.float64]), data=st.data(),
    scale=st.floats(1e-9, 1e3), offset=st.floats(-1e6, 1e6),
)  # fmt: skip
def test_reads_as_the_law_says(integers, dtype, data, scale, offset) -> None:
    n, wide = integers.shape
    laws = scale * (1 + np.arange(wide)), offset * np.arange(wide)
    scaled = Scaled(integers, *laws, dtype)
    expected = np.stack([(integers[:, c] * laws[0][c] + laws[1][c]).astype(dtype) for c in range(wide)], axis=1)
    whole = np.asarray(scaled)
    assert (whole.dtype, scaled.dtype, scaled.shape, len(scaled), scaled.ndim) == (dtype, dtype, (n, wide), n, 2)
    assert np.array_equal(whole, expected)
    lo, hi = sorted((data.draw(st.integers(-n, n)), data.draw(st.integers(-n, n))))
    assert np.array_equal(scaled[lo:hi], expected[lo:hi])
    assert np.array_equal(scaled[:, wide - 1], expected[:, wide - 1])
    assert np.array_equal(scaled[lo:hi, :1], expected[lo:hi, :1])
    if n:
        at = data.draw(st.integers(-n, n - 1))
        assert np.array_equal(scaled[at], expected[at])
        assert scaled[at, 0] == expected[at, 0]


def test_a_signal_of_one_channel_has_one_law() -> None:
    scaled = Scaled(np.arange(5, dtype=np.int16), np.array([0.5]), np.array([1.0]))
    assert np.asarray(scaled).tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert scaled[1:3].tolist() == [1.5, 2.0]
    assert scaled[2] == 2.0


def test_a_law_that_does_not_fit_is_refused() -> None:
    with pytest.raises(MalformedFile, match="2 scales, 3 offsets"):
        Scaled(np.zeros((4, 3), np.int16), np.ones(2), np.zeros(3))
    with pytest.raises(MalformedFile, match="float32"):
        Scaled(np.zeros((4, 3), np.float32), np.ones(3), np.zeros(3))


def test_the_lake_keeps_the_integers_and_the_law(lake: Lake) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    integers = rng.integers(-(2**15), 2**15, (1000, 3)).astype(np.int16)
    scale, offset = np.array([0.195, 1e-7 / 3, 2.0]), np.array([0.0, -3.3, np.pi])
    before = recording_of(Scaled(integers, scale, offset), 3)
    digest = lake.publish_recording(before)
    group = lake.root / catalog.rows(lake, "recordings")[0]["path"]
    stored = shards.open_array(group / "eeg" / "values")
    assert stored.dtype == np.int16
    assert np.array_equal(np.asarray(stored), integers)
    after = lake.recording(before.id).streams["eeg"]
    assert isinstance(after, Samples)
    assert isinstance(after.values, Scaled)
    assert isinstance(after.values.values, ShardedArray)
    assert np.array_equal(after.values.scale, scale)
    assert np.array_equal(after.values.offset, offset)
    assert np.array_equal(np.asarray(after.values), np.asarray(Scaled(integers, scale, offset)))
    window = after.slice(2.0, 3.5)
    assert np.array_equal(window.values, np.asarray(Scaled(integers, scale, offset))[200:350])
    # what was read is published again as the same thing; another law is another thing
    assert lake.publish_recording(lake.recording(before.id)) == digest
    assert all(check.passed for check in lake.verify())
    other = replace(before.streams["eeg"], values=Scaled(integers, scale * 2, offset))
    assert lake.publish_recording(replace(before, streams={"eeg": other})) != digest
    plain = replace(before.streams["eeg"], values=integers)
    assert lake.publish_recording(replace(before, streams={"eeg": plain})) != digest
