"""The central types that stages meet in: frozen, keyword-only, units in the name, numpy arrays.

Time comes first in every array, in float64 seconds on the session clock. Legend of shapes:
N samples or events, B batch, T time bins, C channels, P fields of a token, D target dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from neurofmx.clock import ClockMap
from neurofmx.errors import ConfigError, MalformedFile
from neurofmx.provenance import digest_of

_PART = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
_ID = re.compile(rf"^(?P<archive>{_PART}):(?P<dataset>{_PART})@(?P<version>{_PART})/(?P<name>{_PART})$")


@dataclass(frozen=True, order=True)
class RecordingId:
    """Names one recording for ever; its text form is also the Dagster partition key.

    Archives repeat session ids, so all four parts are needed.

    Args:
        archive: short name of the archive, such as ``dandi``.
        dataset: the archive's own dataset id, such as ``000140``.
        version: the dataset's version or snapshot.
        name: the recording inside it: letters, digits and ``._+-``.

    Raises:
        ConfigError: a part is empty or holds another character.
    """

    archive: str
    dataset: str
    version: str
    name: str

    def __post_init__(self) -> None:
        for part in ("archive", "dataset", "version", "name"):
            if not re.fullmatch(_PART, getattr(self, part)):
                raise ConfigError(
                    f"recording id part {part!r}",
                    got=getattr(self, part),
                    expected="letters, digits and . _ + -",
                    fix="Rename it, or sanitise it in the connector.",
                )

    def __str__(self) -> str:
        return f"{self.archive}:{self.dataset}@{self.version}/{self.name}"

    @property
    def source(self) -> str:
        """``archive:dataset@version``, the name of the dynamic partitions that hold it."""
        return f"{self.archive}:{self.dataset}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> RecordingId:
        """Reads the text form back.

        Raises:
            ConfigError: the text is not ``archive:dataset@version/name``.
        """
        found = _ID.match(text)
        if not found:
            raise ConfigError("recording id", got=text, expected="archive:dataset@version/name")
        return cls(**found.groupdict())


def sanitise(text: str) -> str:
    """Turns any text into a legal part of a RecordingId (other characters become ``-``)."""
    cleaned = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+")
    return cleaned or "unnamed"


@dataclass(frozen=True, kw_only=True)
class Channels:
    """The rows of a stream: electrodes, units, regions, fibres, keypoints.

    Args:
        ids: unique name of each channel.
        regions: anatomical region of each, ``""`` where unknown.
        positions_um: (C, 3) float64, NaN where unknown, or None.
    """

    ids: tuple[str, ...]
    regions: tuple[str, ...] = ()
    positions_um: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.regions:
            object.__setattr__(self, "regions", ("",) * len(self.ids))
        if len(self.regions) != len(self.ids):
            raise MalformedFile("channel table", got=f"{len(self.regions)} regions", expected=f"{len(self.ids)}")
        if len(set(self.ids)) != len(self.ids):
            raise MalformedFile("channel ids", got="repeated names", expected="one name a channel")
        if self.positions_um is not None and np.shape(self.positions_um) != (len(self.ids), 3):
            raise MalformedFile(
                "channel positions", got=str(np.shape(self.positions_um)), expected=f"({len(self.ids)}, 3)"
            )

    def __len__(self) -> int:
        return len(self.ids)


def as_valid(valid: object) -> np.ndarray:
    """Checks and returns validity intervals as a (K, 2) float64 array of [start, stop) seconds."""
    array = np.asarray(valid, dtype=np.float64).reshape(-1, 2)
    if not np.all(np.isfinite(array)) or np.any(array[:, 1] < array[:, 0]) or np.any(array[1:, 0] < array[:-1, 1]):
        raise MalformedFile("valid intervals", got=str(array[:4].tolist()), expected="ordered, disjoint, finite")
    return array


@dataclass(frozen=True, kw_only=True)
class Events:
    """Points in time: spikes, licks, button presses.

    Args:
        times_s: (N,) float64, ascending, session clock.
        codes: (N,) int32, row of ``channels`` that each event belongs to.
        channels: the units or event kinds.
        modality: ``spikes``, ``licks``, ...
        valid: (K, 2) seconds in which events would have been seen.
    """

    times_s: np.ndarray
    codes: np.ndarray
    channels: Channels
    modality: str
    valid: np.ndarray

    def slice(self, start_s: float, stop_s: float) -> Events:
        """The events in [start_s, stop_s), times unchanged."""
        lo, hi = np.searchsorted(self.times_s, [start_s, stop_s], side="left")
        return replace(
            self,
            times_s=np.asarray(self.times_s[lo:hi]),
            codes=np.asarray(self.codes[lo:hi]),
            valid=clip_intervals(self.valid, start_s, stop_s),
        )


@dataclass(frozen=True, kw_only=True)
class Samples:
    """A signal sampled at a rate, or at stated times.

    Args:
        values: (N, ...) in ``unit``; trailing shape is one sample (channels first).
        unit: SI or stated unit, such as ``uV``, ``px``, ``a.u.``.
        channels: one row per entry of axis 1 (one row for a 1-D signal); of images, one per colour.
        modality: ``emg``, ``eeg``, ``lfp``, ``position``, ...
        valid: (K, 2) seconds in which samples exist; gaps are stated, never filled.
        rate_hz: sampling rate, or None when ``times_s`` is given.
        t0_s: time of the first sample when a rate is given.
        times_s: (N,) float64 ascending, or None when a rate is given.
    """

    values: Any
    unit: str
    channels: Channels
    modality: str
    valid: np.ndarray
    rate_hz: float | None = None
    t0_s: float = 0.0
    times_s: np.ndarray | None = None

    def __post_init__(self) -> None:
        if (self.rate_hz is None) == (self.times_s is None):
            raise MalformedFile(f"samples of {self.modality}", expected="exactly one of rate_hz and times_s")

    def times(self) -> np.ndarray:
        """(N,) float64 seconds of every sample."""
        if self.times_s is not None:
            return np.asarray(self.times_s)
        return self.t0_s + np.arange(len(self.values), dtype=np.float64) / float(self.rate_hz or 1.0)

    def slice(self, start_s: float, stop_s: float) -> Samples:
        """The samples in [start_s, stop_s), read lazily, times unchanged."""
        if self.times_s is not None:
            lo, hi = np.searchsorted(self.times_s, [start_s, stop_s], side="left")
            return replace(
                self,
                values=self.values[lo:hi],
                times_s=np.asarray(self.times_s[lo:hi]),
                valid=clip_intervals(self.valid, start_s, stop_s),
            )
        rate = float(self.rate_hz or 1.0)
        lo, hi = (int(np.clip(np.ceil((t - self.t0_s) * rate - 1e-9), 0, len(self.values))) for t in (start_s, stop_s))
        return replace(
            self,
            values=self.values[lo:hi],
            t0_s=self.t0_s + lo / rate,
            valid=clip_intervals(self.valid, start_s, stop_s),
        )


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Spans of time with columns: trials, epochs, stimuli, sleep stages.

    Args:
        start_s: (N,) float64.
        stop_s: (N,) float64, not before ``start_s``.
        columns: name -> (N,) array of numbers or strings.
        modality: ``trials``, ``epochs``, ...
        valid: (K, 2) seconds over which intervals were recorded.
    """

    start_s: np.ndarray
    stop_s: np.ndarray
    columns: Mapping[str, np.ndarray]
    modality: str
    valid: np.ndarray

    def slice(self, start_s: float, stop_s: float) -> Intervals:
        """The intervals that begin in [start_s, stop_s)."""
        keep = (self.start_s >= start_s) & (self.start_s < stop_s)
        return replace(
            self,
            start_s=self.start_s[keep],
            stop_s=self.stop_s[keep],
            columns={k: np.asarray(v)[keep] for k, v in self.columns.items()},
            valid=clip_intervals(self.valid, start_s, stop_s),
        )


Stream: TypeAlias = Events | Samples | Intervals


def clip_intervals(valid: np.ndarray, start_s: float, stop_s: float) -> np.ndarray:
    """Intersects (K, 2) intervals with [start_s, stop_s)."""
    clipped = np.clip(np.asarray(valid, dtype=np.float64).reshape(-1, 2), start_s, stop_s)
    return clipped[clipped[:, 1] > clipped[:, 0]]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Who was recorded. ``id`` is unique inside the dataset; unknown fields are empty, never guessed."""

    id: str
    species: str = ""
    sex: str = ""
    age: str = ""


@dataclass(frozen=True, kw_only=True)
class Licence:
    """The terms bound to a recording for ever.

    Args:
        spdx: SPDX identifier, ``""`` when the archive states none (which blocks).
        text: the licence as the archive wrote it.
        source: where it was read.
        redistribute: whether bytes may leave this lake.
    """

    spdx: str
    text: str = ""
    source: str = ""
    redistribute: bool = True


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """One file as the archive gave it: its name in the dataset, its address, its bytes' digest."""

    path: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a recording came from and what read it.

    Args:
        files: the raw files, with digests.
        reader: name and version of the reading code, such as ``formats.nwb@1``.
        notes: what the reader had to decide (a clock assumed, a duplicate dropped).
        citation: how to cite the data.
    """

    files: tuple[RawFile, ...]
    reader: str
    notes: tuple[str, ...] = ()
    citation: str = ""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The smallest thing with one clock: an NWB file, a BIDS run, an EDF, an ALF session.

    Args:
        id: its name for ever.
        streams: name -> stream, all on the session clock.
        subject: who was recorded.
        session: the archive's own session label.
        task: what the subject did, ``""`` when unknown.
        domain_s: (start, stop) seconds of the session clock that the recording spans.
        provenance: raw files and reader.
        licence: terms of use.
        clock_error_s: largest stated alignment error of any stream; never less than that of a clock in ``clocks``.
        clocks: stream -> how its device's clock was brought onto the session clock, for those that have their own.
    """

    id: RecordingId
    streams: Mapping[str, Stream]
    subject: Subject
    domain_s: tuple[float, float]
    provenance: Provenance
    licence: Licence
    session: str = ""
    task: str = ""
    clock_error_s: float = 0.0
    clocks: Mapping[str, ClockMap] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stated = [self.clock_error_s, *(clock.error_s for clock in self.clocks.values())]
        object.__setattr__(self, "clock_error_s", float(np.max(stated)))  # unknown (NaN) stays unknown

    def clock_error_of(self, stream: str) -> float:
        """Stated alignment error of one stream in seconds: its clock's, or the recording's where no clock is stated."""
        if stream in self.clocks:
            return self.clocks[stream].error_s
        return 0.0 if self.clocks else self.clock_error_s

    def slice(self, start_s: float, stop_s: float) -> Recording:
        """The same recording between two times of the session clock."""
        return replace(
            self,
            streams={name: stream.slice(start_s, stop_s) for name, stream in self.streams.items()},
            domain_s=(max(start_s, self.domain_s[0]), min(stop_s, self.domain_s[1])),
        )

    def stream(self, name: str) -> Stream:
        """One stream by name.

        Raises:
            ConfigError: no stream has that name; the message lists those there are.
        """
        if name not in self.streams:
            raise ConfigError(
                f"stream {name!r} of {self.id}", expected=f"one of {sorted(self.streams)}", fix="Choose one of them."
            )
        return self.streams[name]


@dataclass(frozen=True)
class Op:
    """One pure step of a tokenizer: a name from ``tokenize.ops`` and its parameters."""

    name: str
    params: tuple[tuple[str, Any], ...] = ()

    @property
    def kwargs(self) -> dict[str, Any]:
        """The parameters as keyword arguments."""
        return dict(self.params)


@dataclass(frozen=True, kw_only=True)
class TokenSpec:
    """How one modality becomes tokens on a grid.

    Args:
        name: unique row name in ``tokenize.catalog``.
        version: bumped by hand when the meaning changes.
        modality: the modality of the stream it reads.
        ops: steps from the stream to (T, C, P) values.
        bin_s: grid step in seconds; 0 means the stream's own rate.
        fields: the P field names.
        stored: whether tokens/ keeps the result.
        causal: whether a token looks at nothing after its bin.
    """

    name: str
    version: int
    modality: str
    ops: tuple[Op, ...]
    bin_s: float
    fields: tuple[str, ...]
    stored: bool = True
    causal: bool = True

    def digest(self) -> str:
        """Identity of the tokens that this spec makes (16 hex digits)."""
        return digest_of(self)[:16]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One modality of a batch.

    Args:
        values: (B, T, C, P) float32.
        time_s: (B, T) float64, centre of each bin, session clock.
        dt_s: grid step in seconds.
        mask: (B, T, C) bool, True where data are real.
        channel: (B, C) int64, row of the model's channel vocabulary; -1 is padding.
    """

    values: Any
    time_s: Any
    dt_s: float
    mask: Any
    channel: Any


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be predicted: per bin (B, T, D) or per window (B,), with a mask of what is known.

    Args:
        values: float32 (B, T, D) when ``kind`` is ``continuous``; int64 (B,) class rows when ``class``.
        mask: (B, T) or (B,) bool.
        kind: ``continuous`` or ``class``.
        names: the D dimension names, or the class names.
    """

    values: Any
    mask: Any
    kind: Literal["continuous", "class"]
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The one contract between data and model: streams by modality, targets by task, recording rows (B,)."""

    streams: Mapping[str, Tokens]
    targets: Mapping[str, Target]
    recording: Any


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row of the one tidy table of scores; a bare float never leaves evaluate/.

    Args:
        score_id: short digest of everything that determines the number.
        task: row of ``evaluate.tasks``.
        predictor: ``chance``, a baseline's name, ``neurofmx`` or ``neurofmx-untrained``.
        metric: name in ``evaluate.metrics``.
        value: the score, pooled as the metric says.
        ci95: bootstrap interval over resampling units.
        n: number of scored bins or trials.
        n_units: number of resampling units.
        unit: what was resampled: ``block``, ``session``, ``subject``.
        split: digest of the split.
        recordings: ids of the recordings that were scored.
        checkpoint: run id of the checkpoint, ``""`` for baselines.
        snapshot: digest of the lake snapshot that was read.
        seed: random seed.
        baseline: predictor that this row is compared to, ``""`` for none.
        delta: paired difference to the best tuned baseline, NaN for none.
        delta_ci95: its bootstrap interval.
        verdict: better, worse, equivalent, undecided, or within one recording.
        recipe: digest of the recipe or of the baseline's grid and choice.
        details: chosen hyperparameters and the printed grid, as JSON.
    """

    score_id: str
    task: str
    predictor: str
    metric: str
    value: float
    ci95: tuple[float, float]
    n: int
    n_units: int
    unit: str
    split: str
    recordings: tuple[str, ...]
    checkpoint: str
    snapshot: str
    seed: int
    baseline: str = ""
    delta: float = float("nan")
    delta_ci95: tuple[float, float] = (float("nan"), float("nan"))
    verdict: str = ""
    recipe: str = ""
    details: str = "{}"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One judgement, shared by all stages.

    Args:
        name: what was checked, such as ``spike_times_finite``.
        passed: the verdict.
        severity: ``block`` stops the recording, ``warn`` is shown.
        evidence: one sentence with the value that was seen and what was expected.
    """

    name: str
    passed: bool
    severity: Literal["block", "warn"]
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one analysis, never a bare number: value, chance, interval, status.

    Args:
        analysis: row of ``interpret.catalog``.
        subject: what it is about (a block, a channel group, a pair of layers).
        value: the headline statistic.
        null: (n_null,) the same statistic under the declared null.
        p: one-sided permutation p value with the +1 correction.
        q: Benjamini-Hochberg adjusted p over the confirmatory findings, NaN if exploratory.
        ci95: subsampling interval.
        status: significant, not significant, inconclusive, invalid or skipped.
        reason: why invalid, inconclusive or skipped.
        scalars: further numbers by name.
        arrays: what a figure is drawn from.
        caveats: what a reader must know.
        provenance: digests of the inputs, parameters and seed.
    """

    analysis: str
    subject: str
    value: float
    null: np.ndarray
    p: float
    ci95: tuple[float, float]
    status: Literal["significant", "not significant", "inconclusive", "invalid", "skipped"]
    q: float = float("nan")
    reason: str = ""
    scalars: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TokenGrid:
    """One modality of one recording on a grid: bin i covers [t0_s + i dt_s, t0_s + (i+1) dt_s).

    Args:
        values: (T, C, P) float32; what ``mask`` marks False means nothing and is 0.
        mask: (T, C) bool, True where data are real.
        t0_s: edge of the first bin, session clock.
        dt_s: grid step in seconds.
        channels: C rows.
        fields: P names.
    """

    values: np.ndarray
    mask: np.ndarray
    t0_s: float
    dt_s: float
    channels: Channels
    fields: tuple[str, ...]

    def __post_init__(self) -> None:
        t, c = self.mask.shape
        if self.values.shape != (t, c, len(self.fields)) or len(self.channels) != c:
            raise MalformedFile(
                "token grid",
                got=f"values {self.values.shape}, mask {self.mask.shape}, {len(self.channels)} channels",
                expected=f"({t}, {c}, {len(self.fields)})",
            )

    def centres_s(self) -> np.ndarray:
        """(T,) float64 centre of each bin."""
        return self.t0_s + (np.arange(len(self.mask)) + 0.5) * self.dt_s
