"""The one way from an analysis to a finding: null, p, interval, validity and status; no bare number leaves.

An analysis is a declaration and a pure function over named arrays that share their rows. What it cannot be
without is a null; what it returns is judged here, the same way for all.

Legend: N rows, S surrogates, U resampling units.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.provenance import canonical_json, code_version, digest_array, digest_of
from neurofmx.types import Check, Finding

ALPHA = 0.05
MAX_CONFIRMATORY = 20  # declared before the data are seen; more would cost every one its power
SUBSAMPLES = 40  # the spread is then known to about a tenth
SHARE = 0.75
MIN_UNITS = 4  # fewer say nothing about spread
LEAST_NULL = 19  # one in twenty is the coarsest that can reach .05


@dataclass(frozen=True, kw_only=True)
class Null:
    """What chance means for an analysis.

    Args:
        text: what is exchanged and which nuisance stays, in one sentence.
        tail: which values count as extreme.
        n: surrogates drawn unless the caller asks for another number.
    """

    text: str
    tail: Literal["greater", "less", "two-sided"] = "greater"
    n: int = 999

    def __post_init__(self) -> None:
        if not self.text.strip() or self.n < LEAST_NULL:
            raise ConfigError("null", got=f"{self.text!r}, n={self.n}", expected=f"a sentence and n >= {LEAST_NULL}")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Named arrays that share their rows, and what may be exchanged or resampled.

    Args:
        subject: what the finding will be about.
        arrays: name -> (N, ...).
        unit: (N,) str, resampling unit of each row.
        session: (N,) str; surrogates exchange rows only inside one.
        fold: (N,) str, group that cross-validation holds out together; nested in ``model``.
        model: (N,) int, which network made the row; features of two networks are never mixed.
        ordered: True when the rows of a session are a time series (surrogates shift it), False for trials.
        confirmatory: whether this claim was declared before the data were seen.
        provenance: ids and digests of what the arrays came from.
    """

    subject: str
    arrays: Mapping[str, np.ndarray]
    unit: np.ndarray
    session: np.ndarray
    fold: np.ndarray
    model: np.ndarray
    ordered: bool
    confirmatory: bool = False
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: len(a) for name, a in self.arrays.items()}
        lengths |= {name: len(getattr(self, name)) for name in ("unit", "session", "fold", "model")}
        if len(set(lengths.values())) > 1:
            raise ConfigError(f"rows of {self.subject}", got=str(lengths), expected="one length")

    def __len__(self) -> int:
        return len(self.unit)

    def take(self, rows: np.ndarray) -> Data:
        """The same data with only these rows (indices or a mask)."""
        return replace(
            self,
            arrays={name: a[rows] for name, a in self.arrays.items()},
            **{name: getattr(self, name)[rows] for name in ("unit", "session", "fold", "model")},
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the function of an analysis returns.

    Args:
        value: the headline statistic.
        null: (S,) the same statistic on surrogates; empty when none were asked for.
        scalars: further numbers.
        arrays: what a figure is drawn from; small.
        checks: validity checks; a failed one of severity ``block`` makes the finding invalid, ``warn`` a caveat.
        caveats: what a reader must know.
    """

    value: float
    null: np.ndarray
    scalars: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    caveats: tuple[str, ...] = ()


Judged = Literal["significant", "not significant", "inconclusive"]
Function = Callable[[Data, np.random.Generator, int], Measured]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """A declaration; one without a null cannot be made.

    Args:
        name: unique row name in ``interpret.catalog``.
        family: probes, alignment, ablation, ...
        question: what it asks, in one sentence.
        needs: arrays that `Data` must hold.
        headline: what the value is, with its unit.
        null: what chance means.
        assumptions: what must hold for p to mean what it says.
        citation: source of the method.
        function: ``(data, rng, n_null) -> Measured``, pure; ``n_null`` 0 asks for the value alone.
        min_rows: fewer rows are refused.

    Raises:
        ConfigError: the null is missing or is not a `Null`.
    """

    name: str
    family: str
    question: str
    needs: tuple[str, ...]
    headline: str
    null: Null
    assumptions: tuple[str, ...]
    citation: str
    function: Function
    min_rows: int = 20

    def __post_init__(self) -> None:
        if not isinstance(self.null, Null):
            raise ConfigError(f"analysis {self.name!r}", got=f"null {self.null!r}", expected="a declared Null")


def run(analysis: Analysis, data: Data, *, seed: int, n_null: int | None = None) -> Finding:
    """Runs one analysis and judges it.

    Args:
        analysis: the declaration.
        data: its input.
        seed: together with the analysis's and the subject's names it determines every draw.
        n_null: surrogates; the declared number if None.

    Returns:
        A finding: *skipped* when an array is missing; *invalid* when the input is degenerate or a blocking
        check fails; *inconclusive* when so few surrogates cannot reach the threshold; else *significant* or not,
        before correction for multiplicity (see `adjust`). The interval is of subsampled units with the width
        rescaled (Politis and Romano 1994; delete-d jackknife, Shao and Wu 1989), never a bootstrap, which puts
        the same row on both sides of a fold.

    Raises:
        ConfigError: fewer than 19 surrogates.
    """
    n = analysis.null.n if n_null is None else n_null
    if n < LEAST_NULL:
        raise ConfigError(f"surrogates of {analysis.name}", got=n, expected=f"at least {LEAST_NULL}")
    provenance = _provenance(analysis, data, seed)
    missing = [name for name in analysis.needs if name not in data.arrays]
    if missing:
        return _empty(analysis.name, data.subject, "skipped", f"no {', '.join(missing)} here", provenance)
    wrong = _degenerate(analysis, data)
    if wrong:
        return _empty(analysis.name, data.subject, "invalid", wrong, provenance)
    rng = _rng(analysis, data, seed)
    found = analysis.function(data, rng, n)
    failed = [c for c in found.checks if not c.passed and c.severity == "block"]
    if not np.isfinite(found.value) or len(found.null) == 0 or not np.all(np.isfinite(found.null)):
        reason = failed[0].evidence if failed else "the statistic is not defined on these data"
        return _empty(analysis.name, data.subject, "invalid", reason, provenance)
    value, null = float(found.value), np.asarray(found.null, dtype=np.float64)
    p = p_value(value, null, analysis.null.tail)
    caveats = list(found.caveats) + [c.evidence for c in found.checks if not c.passed and c.severity == "warn"]
    low, high = _interval(analysis, data, value, rng)
    units = len(np.unique(data.unit))
    if not np.isfinite(low):
        caveats.append(f"No interval: {units} resampling unit{'s' if units != 1 else ''}.")
    status, reason = _status(p, len(null), ALPHA)
    if failed:
        status, reason = "invalid", failed[0].evidence
    spread = float(null.std())
    effect = (value - float(null.mean())) / spread if spread > 0 else float("nan")
    return Finding(
        analysis=analysis.name,
        subject=data.subject,
        value=value,
        null=null,
        p=p,
        ci95=(low, high),
        status=status,
        reason=reason,
        scalars={"chance": float(null.mean()), "effect_sd": effect, "rows": len(data), "units": units}
        | {k: float(v) for k, v in found.scalars.items()},
        arrays={k: np.asarray(v) for k, v in found.arrays.items()},
        caveats=tuple(caveats),
        provenance=provenance,
    )


def skipped(analysis: Analysis, subject: str, reason: str, provenance: Mapping[str, str]) -> Finding:
    """A finding that says why there is none."""
    return _empty(analysis.name, subject, "skipped", reason, provenance)


def p_value(value: float, null: np.ndarray, tail: str) -> float:
    """Permutation p with the +1 of Phipson and Smyth 2010: never 0, at least 1 / (S + 1)."""
    slack = 1e-12 * max(1.0, abs(value))  # a surrogate that is the data again must count as extreme
    if tail == "two-sided":
        centre = null.mean()
        extreme = np.abs(null - centre) >= abs(value - centre) - slack
    else:
        extreme = null >= value - slack if tail == "greater" else null <= value + slack
    return float((1 + extreme.sum()) / (len(null) + 1))


def q_values(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg 1995 adjusted p values, in the order given."""
    p_m = np.asarray(p, dtype=np.float64)
    m, order = len(p_m), np.argsort(p_m)
    stepped = p_m[order] * m / np.arange(1, m + 1)
    q = np.empty(m)
    q[order] = np.minimum(1.0, np.minimum.accumulate(stepped[::-1])[::-1])
    return q


def adjust(findings: Iterable[Finding]) -> list[Finding]:
    """Sets q and status of the confirmatory findings, over all of them together.

    The first 20 in the order given stay confirmatory; what was declared beyond that becomes exploratory, whatever
    its value. Invalid and skipped findings have no p and are not counted.
    """
    listed = list(findings)
    declared = [
        i
        for i, f in enumerate(listed)
        if f.provenance.get("role") == "confirmatory" and f.status not in ("invalid", "skipped")
    ]
    rows = declared[:MAX_CONFIRMATORY]
    adjusted = [replace(f, q=float("nan")) for f in listed]
    for i in declared[MAX_CONFIRMATORY:]:
        adjusted[i] = replace(adjusted[i], provenance=dict(listed[i].provenance) | {"role": "exploratory"})
    for i, q in zip(rows, q_values([listed[i].p for i in rows])):
        status, reason = _status(float(q), len(listed[i].null), ALPHA / len(rows))
        adjusted[i] = replace(listed[i], q=float(q), status=status, reason=reason)
    return adjusted


def _status(p: float, n_null: int, least: float) -> tuple[Judged, str]:
    """Status at .05 of a p or q, where ``least`` is the smallest p that a decision may hang on."""
    if p <= ALPHA:
        return "significant", ""
    if 1 / (n_null + 1) > least:
        need = int(np.ceil(1 / least - 1 - 1e-9))
        return "inconclusive", f"{n_null} surrogates reach p {1 / (n_null + 1):.3g} at best; {need} are needed here"
    return "not significant", ""


def _rng(analysis: Analysis, data: Data, seed: int) -> np.random.Generator:
    text = f"{analysis.name}|{data.subject}".encode()
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(text).digest()[:8], "big")])


def _degenerate(analysis: Analysis, data: Data) -> str:
    if len(data) < analysis.min_rows:
        return f"{len(data)} rows; {analysis.min_rows} are needed"
    for name in analysis.needs:
        array = data.arrays[name]
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            return f"{name}: {int((~np.isfinite(array)).sum())} of {array.size} values are not finite"
        flat = array.reshape(len(array), -1)
        if np.all(flat == flat[:1]):
            return f"{name} is constant: every row is the same"
    return ""


def _interval(analysis: Analysis, data: Data, value: float, rng: np.random.Generator) -> tuple[float, float]:
    from scipy.stats import t

    units, row = np.unique(data.unit, return_inverse=True)
    n = len(units)
    if n < MIN_UNITS:
        return float("nan"), float("nan")
    m = min(n - 1, max(2, round(SHARE * n)))
    draws = []
    for _ in range(SUBSAMPLES):
        kept = np.isin(row, rng.choice(n, size=m, replace=False))
        draws.append(analysis.function(data.take(kept), rng, 0).value)
    drawn = np.asarray(draws)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < SUBSAMPLES // 2:
        return float("nan"), float("nan")
    # a subsample of m out of n units varies less than n would by sqrt((n - m) / m)
    half = float(t.ppf(1 - ALPHA / 2, n - 1) * drawn.std() * np.sqrt(m / (n - m)))
    return value - half, value + half


def _provenance(analysis: Analysis, data: Data, seed: int) -> dict[str, str]:
    arrays = {name: digest_array(a) for name, a in sorted(data.arrays.items())}
    labels = [digest_array(np.asarray(a)) for a in (data.unit, data.session, data.fold, data.model)]
    return dict(data.provenance) | {
        "role": "confirmatory" if data.confirmatory else "exploratory",
        "family": analysis.family,
        "question": analysis.question,
        "null": analysis.null.text,
        "assumptions": "; ".join(analysis.assumptions),
        "citation": analysis.citation,
        "inputs": digest_of([arrays, labels])[:16],
        "declaration": digest_of(canonical_json([analysis.name, analysis.null, analysis.headline]))[:16],
        "seed": str(seed),
        "code_version": code_version(),
    }


def _empty(
    name: str, subject: str, status: Literal["invalid", "skipped"], reason: str, provenance: Mapping[str, str]
) -> Finding:
    nan = float("nan")
    return Finding(analysis=name, subject=subject, value=nan, null=np.empty(0), p=nan, ci95=(nan, nan), status=status,
                   reason=reason, provenance=provenance)  # fmt: skip
