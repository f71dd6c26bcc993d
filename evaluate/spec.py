"""What a task is: a row of data that says which recordings, what goes in, what is to be told, and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from neurofmx.provenance import digest_of
from neurofmx.splits import SALT
from neurofmx.tokenize.targets import TargetSpec
from neurofmx.tokenize.windows import SHARED


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which rows of catalog table ``recordings`` a task is about; every condition that is stated must hold.

    Args:
        archives: names of archives.
        datasets: names of datasets.
        names: shell patterns, one of which the recording's name fits.
        recordings: text ids, for a task on stated recordings.
        at_least: recordings that the task needs.
    """

    archives: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    recordings: tuple[str, ...] = ()
    at_least: int = 1

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of ``recordings`` is chosen."""
        return (
            (not self.archives or row["archive"] in self.archives)
            and (not self.datasets or row["dataset"] in self.datasets)
            and (not self.names or any(fnmatchcase(row["name"], pattern) for pattern in self.names))
            and (not self.recordings or row["recording_id"] in self.recordings)
        )


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One window of every trial and its label, for tasks that tell two times of the same trials apart.

    Args:
        label: the class.
        align: ``start_s``, ``stop_s`` or a column of times in seconds.
        offset_s: from there to the start of the window.
    """

    label: str
    align: str
    offset_s: float


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task; its digest is part of the identity of every score.

    Args:
        name: unique row name.
        question: what is asked, in one sentence.
        where: which recordings.
        inputs: name of a modality (or of a stream, where a recording has several of one modality) -> row of
            ``tokenize.catalog``.
        bin_s: bins that all inputs share, in seconds.
        target: what is to be told. With ``phases`` its stream is ``phases`` and its column ``phase``.
        window_s: length of a window of a continuous target in seconds.
        split: ``blocks`` of time inside each recording, ``trial_groups`` inside each recording, or whole
            ``recordings`` (the inputs then end with `SHARED`: channels mean the same in all).
        group: with ``recordings``: ``subject_id`` or ``session``, what is held out together; ``""`` for each alone.
        n_blocks: with ``blocks``: blocks of a recording.
        n_folds: folds.
        guard_s: with ``blocks``: least gap at every border, in seconds; it is never shorter than a window.
        standardise: inputs are z-scored inside each recording, over all of it and without labels.
        metric: row of ``evaluate.metrics``.
        unit: what is resampled: ``recording``, ``subject``, or a word for the units of the split (``block``, ...).
        baselines: rows of ``evaluate.baselines``.
        controls: columns of the trials that a control decodes from instead of neurons.
        phases: windows of the rows of ``phases_of``, or none.
        phases_of: Intervals stream that ``phases`` are laid on.
        margin: difference below which two predictors are equivalent.
        caveats: what a reader of the score must know.
        max_clock_error_s: a recording whose inputs and target are aligned less exactly is left out; 0 means half
            a bin.
    """

    name: str
    question: str
    where: Chosen
    inputs: Mapping[str, str]
    bin_s: float
    target: TargetSpec
    window_s: float = 0.0
    split: Literal["blocks", "trial_groups", "recordings"] = "blocks"
    group: str = ""
    n_blocks: int = 10
    n_folds: int = 5
    guard_s: float = 0.0
    standardise: bool = False
    metric: str = "r2"
    unit: str = "block"
    baselines: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = ()
    phases_of: str = ""
    margin: float = 0.02
    caveats: tuple[str, ...] = field(default_factory=tuple)
    max_clock_error_s: float = 0.0

    def digest(self) -> str:
        """Identity of everything that makes the task (16 hex digits)."""
        return digest_of(self)[:16]

    def split_id(self, salt: str = SALT) -> str:
        """Identity of how it is split under a lake's salt (16 hex digits): rows under one split id never move."""
        how = [self.name, self.split, self.group, self.n_blocks, self.n_folds, self.gap_s, salt]
        return digest_of([*how, self.target.group, self.phases_of])[:16]

    @property
    def longest_s(self) -> float:
        """Length of its windows in seconds, whole bins."""
        asked_s = self.window_s if self.target.kind == "continuous" else self.target.duration_s
        return max(1, round(asked_s / self.bin_s)) * self.bin_s

    @property
    def gap_s(self) -> float:
        """Seconds between blocks of different folds: its guard, and at least one window."""
        return max(self.guard_s, self.longest_s)

    @property
    def clock_limit_s(self) -> float:
        """Largest alignment error of a stream that the task can bear, in seconds."""
        return self.max_clock_error_s or self.bin_s / 2

    @property
    def target_stream(self) -> str:
        """The stream that the target is read from."""
        return self.phases_of or self.target.stream

    @property
    def spec_of(self) -> dict[str, str]:
        """Input as the network calls it -> row of ``tokenize.catalog``."""
        suffix = SHARED if self.split == "recordings" else ""
        return {f"{name}{suffix}": row for name, row in self.inputs.items()}
