from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from neurofmx.errors import ConfigError
from neurofmx.interpret.runner import (
    MAX_CONFIRMATORY,
    Analysis,
    Data,
    Measured,
    Null,
    adjust,
    p_value,
    q_values,
    run,
)
from neurofmx.types import Check, Finding

NULL = Null(text="Rows are drawn anew around zero.")


def mean_of(data: Data, rng: np.random.Generator, n_null: int) -> Measured:
    x = data.arrays["x"]
    null = rng.standard_normal((n_null, len(x))).mean(1) if n_null else np.empty(0)
    return Measured(value=float(x.mean()), null=null)


def analysis(function: Callable[..., Measured] = mean_of, **changes) -> Analysis:
    row = Analysis(
        name="mean", family="test", question="Is it above zero?", needs=("x",), headline="mean", null=NULL,
        assumptions=(), citation="", function=function,
    )  # fmt: skip
    return replace(row, **changes)


def table(x: np.ndarray, units: int = 10, **changes) -> Data:
    n = len(x)
    unit = (np.arange(n) * units // max(n, 1)).astype(str)
    held = Data(
        subject="a thing", arrays={"x": x}, unit=unit, session=np.full(n, "s"), fold=unit, model=np.zeros(n, int),
        ordered=False,
    )  # fmt: skip
    return replace(held, **changes)


def finding(p: float, *, role: str = "confirmatory", n_null: int = 999, status: str = "not significant") -> Finding:
    return Finding(
        analysis="mean", subject="s", value=1.0, null=np.zeros(n_null), p=p, ci95=(0.0, 1.0),
        status=status, provenance={"role": role},  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("null", [None, 0.5, "shuffle"])
def test_a_declaration_without_a_null_does_not_load(null) -> None:
    with pytest.raises(ConfigError, match="null"):
        analysis(null=null)


@pytest.mark.parametrize("fields", [{"text": " "}, {"text": "x", "n": 18}])
def test_a_null_says_what_it_exchanges_and_can_reach_the_threshold(fields) -> None:
    with pytest.raises(ConfigError):
        Null(**fields)


def test_rows_of_other_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match="rows of"):
        replace(table(np.zeros(30)), session=np.full(29, "s"))


def test_a_planted_effect_is_found_and_nothing_is_not() -> None:
    rng = np.random.default_rng(0)
    found = run(analysis(), table(rng.standard_normal(200) + 1.0), seed=0)
    assert found.status == "significant" and found.p == 1 / 1000
    assert found.ci95[0] < found.value < found.ci95[1]
    assert run(analysis(), table(rng.standard_normal(200)), seed=0).status == "not significant"


def test_the_same_seed_gives_the_same_finding_and_another_does_not() -> None:
    held = table(np.random.default_rng(1).standard_normal(60))
    a, b, c = (run(analysis(), held, seed=s) for s in (3, 3, 4))
    assert np.array_equal(a.null, b.null) and a.p == b.p and a.ci95 == b.ci95 and a.provenance == b.provenance
    assert not np.array_equal(a.null, c.null)


def test_p_is_never_zero_and_counts_the_data_among_the_surrogates() -> None:
    null = np.arange(19.0)
    assert p_value(100.0, null, "greater") == 1 / 20
    assert p_value(-1.0, null, "greater") == 1.0
    assert p_value(-1.0, null, "less") == 1 / 20
    assert p_value(18.0, null, "greater") == 2 / 20  # a tie is extreme
    assert p_value(100.0, null, "two-sided") == p_value(-100.0, null, "two-sided") == 1 / 20


def test_q_is_benjamini_hochberg() -> None:
    p = np.random.default_rng(2).uniform(size=37) ** 2
    np.testing.assert_allclose(q_values(p), false_discovery_control(p), atol=1e-15)
    np.testing.assert_allclose(q_values([0.01, 0.04, 0.03]), [0.03, 0.04, 0.04])
    assert len(q_values([])) == 0


def test_only_declared_findings_are_corrected_and_at_most_twenty() -> None:
    listed = [finding(0.001) for _ in range(MAX_CONFIRMATORY + 3)]
    listed += [finding(0.001, role="exploratory"), finding(np.nan, status="invalid")]
    after = adjust(listed)
    assert [bool(np.isfinite(f.q)) for f in after] == [True] * MAX_CONFIRMATORY + [False] * 5
    assert [f.provenance["role"] for f in after[MAX_CONFIRMATORY:]] == ["exploratory"] * 4 + ["confirmatory"]


def test_too_coarse_a_null_is_inconclusive_not_negative() -> None:
    many = adjust([finding(0.05, n_null=19), *(finding(0.9) for _ in range(9))])
    assert many[0].status == "inconclusive" and "199 are needed" in many[0].reason
    assert many[1].status == "not significant"
    few = run(analysis(lambda d, r, n: Measured(value=0.0, null=np.zeros(7))), table(np.arange(30.0)), seed=0)
    assert few.status == "inconclusive"
    with pytest.raises(ConfigError, match="surrogates"):
        run(analysis(), table(np.arange(30.0)), seed=0, n_null=9)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.full(50, 3.0), "constant"),
        (np.where(np.arange(50) == 7, np.nan, np.arange(50.0)), "not finite"),
        (np.full((50, 2), [1.0, 2.0]), "constant"),
        (np.zeros(50, dtype=int), "constant"),  # one class
        (np.arange(5.0), "5 rows"),
    ],
)
def test_degenerate_input_is_invalid_with_a_reason(x, says) -> None:
    found = run(analysis(), table(x), seed=0)
    assert found.status == "invalid" and says in found.reason and np.isnan(found.p)


def test_what_is_missing_is_skipped_and_what_fails_is_invalid() -> None:
    assert run(analysis(needs=("x", "z")), table(np.arange(30.0)), seed=0).status == "skipped"
    undefined = run(analysis(lambda d, r, n: Measured(value=np.nan, null=np.zeros(n))), table(np.arange(30.0)), seed=0)
    assert undefined.status == "invalid" and "not defined" in undefined.reason

    def failing(data: Data, rng: np.random.Generator, n: int) -> Measured:
        checks = (
            Check(name="a", passed=False, severity="block", evidence="It leaks."),
            Check(name="b", passed=False, severity="warn", evidence="It is short."),
        )
        return Measured(value=9.0, null=np.zeros(n), checks=checks)

    failed = run(analysis(failing), table(np.arange(30.0)), seed=0)
    assert (failed.status, failed.reason) == ("invalid", "It leaks.") and "It is short." in failed.caveats


def test_few_units_give_no_interval_and_say_so() -> None:
    found = run(analysis(), table(np.random.default_rng(0).standard_normal(60), units=3), seed=0)
    assert np.isnan(found.ci95[0]) and "3 resampling units" in " ".join(found.caveats)


def test_the_interval_has_the_width_and_the_coverage_of_a_mean() -> None:
    rng, widths, covered = np.random.default_rng(5), [], 0
    for seed in range(150):
        x = 2.0 * rng.standard_normal(24)
        low, high = run(analysis(), table(x, units=24), seed=seed, n_null=19).ci95
        widths.append((high - low) / 2)
        covered += low <= 0.0 <= high
    assert np.mean(widths) == pytest.approx(2.07 * 2.0 / np.sqrt(24), rel=0.06)  # t with 23 degrees of freedom
    assert covered / 150 > 0.89
