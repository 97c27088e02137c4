"""The binomial tails against sums done the slow way."""

from __future__ import annotations

import math

import pytest

from analyzer.stats import at_least, at_most, log_likelihood, lower_bound


def slow(k: int, n: int, p: float) -> float:
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


@pytest.mark.parametrize("n", [1, 5, 40])
@pytest.mark.parametrize("p", [0.001, 0.3, 0.98])
def test_tails(n: int, p: float) -> None:
    for k in range(n + 1):
        assert at_most(k, n, p) == pytest.approx(slow(k, n, p), rel=1e-9)
        assert at_least(k, n, p) == pytest.approx(1 - slow(k - 1, n, p), rel=1e-6, abs=1e-12)
    assert at_least(n + 1, n, p) == 0.0


def test_lower_bound_is_below_the_share_and_rises_with_evidence() -> None:
    assert lower_bound(0, 0) == 0.0
    assert 0 <= lower_bound(1, 10) < 0.1 < lower_bound(400, 1000) < 0.4


def test_log_likelihood_is_greatest_for_certain_outcomes() -> None:
    assert log_likelihood(0, 10) == log_likelihood(10, 10) == log_likelihood(0, 0) == 0.0
    assert log_likelihood(5, 10) == pytest.approx(10 * math.log(0.5))
