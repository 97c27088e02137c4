"""The few exact tails of the binomial distribution that detection needs."""

from __future__ import annotations

import math
from statistics import NormalDist


def _log_pmf(k: int, n: int, p: float) -> float:
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + k * math.log(p) + (n - k) * math.log1p(-p)


def at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p), 0 < p < 1."""
    if k >= n:
        return 1.0
    return min(1.0, sum(math.exp(_log_pmf(i, n, p)) for i in range(k + 1)))


def at_least(k: int, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p), 0 < p < 1."""
    if k <= 0:
        return 1.0
    if k > n:
        return 0.0
    total = term = math.exp(_log_pmf(k, n, p))
    for i in range(k, n):
        term *= (n - i) / (i + 1) * p / (1 - p)
        total += term
        if term < total * 1e-12:
            break
    return min(1.0, total)


def lower_bound(k: int, n: int, confidence: float = 0.99) -> float:
    """The Wilson lower confidence bound of a share k/n (one-sided)."""
    if n == 0:
        return 0.0
    z = NormalDist().inv_cdf(confidence)
    share = k / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n))


def log_likelihood(k: int, n: int) -> float:
    """The log-likelihood of k in n under its own maximum-likelihood rate."""
    if n == 0 or k in (0, n):
        return 0.0
    p = k / n
    return k * math.log(p) + (n - k) * math.log(1 - p)
