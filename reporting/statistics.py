"""Paired comparison of two methods over the same cases: permutation test, bootstrap interval, Holm's correction.

All of it works on differences, one per case: ``differences = metric of the method - metric of the baseline``.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

PERMUTATIONS = 10_000  # Valverde and Tohka 2022
RESAMPLES = 10_000
CHUNK = 2**22  # signs held at a time


def sign_sums(differences: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Sums of the differences (N,) under random swaps of each pair: (permutations,), or (2^N,) where that is less."""
    count = len(differences)
    if 2**count <= permutations:
        codes = np.arange(2**count)[:, None] >> np.arange(count)                    # (2^N, N)
        return (1 - 2 * (codes & 1)) @ differences
    generator = np.random.default_rng(seed)
    sums, step = [], max(1, CHUNK // count)
    for start in range(0, permutations, step):
        swaps = generator.integers(0, 2, (min(step, permutations - start), count), dtype=np.int8)
        sums.append((1 - 2 * swaps) @ differences)
    return np.concatenate(sums)


def permutation_test(
    differences: ArrayLike, *, alternative: str = "two-sided", permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """p of the paired permutation test (Valverde and Tohka 2022, Section 4.1: 10,000 permutations).

    Under the null hypothesis the two values of a case may be swapped, which turns the sign of its difference. The
    statistic is the mean difference: its absolute value (``two-sided``), or with its sign, large (``greater``) or
    small (``less``). (The mean of the absolute differences would be the same under every swap.) Exact where
    2^N <= ``permutations``; else random, the observed one counted among them, so that p is never 0.
    differences (N,), finite. ``ValueError`` for others or another alternative.
    """
    differences = _differences(differences)
    observed, sums = differences.sum(), sign_sums(differences, permutations, seed)
    if alternative == "two-sided":
        observed, sums = abs(observed), np.abs(sums)
    elif alternative == "less":
        observed, sums = -observed, -sums
    elif alternative != "greater":
        raise ValueError(f"expected two-sided, greater or less, found {alternative}")
    # Sums of the same numbers in another order differ in their last bits.
    extreme = int((sums >= observed - 1e-9 * np.abs(differences).sum()).sum())
    exact = len(sums) == 2 ** len(differences)
    return extreme / len(sums) if exact else (extreme + 1) / (len(sums) + 1)


def bootstrap_interval(
    differences: ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean difference, cases drawn with replacement (Efron 1979).

    differences (N,), finite; ``ValueError`` for others. One case has no interval: nan.
    """
    differences = _differences(differences)
    count = len(differences)
    if count == 1:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    means, step = [], max(1, CHUNK // count)
    for start in range(0, resamples, step):
        index = generator.integers(0, count, (min(step, resamples - start), count))
        means.append(differences[index].mean(axis=1))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(means), (tail, 100 - tail))
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's step-down method (Holm 1979), in the order given."""
    p = np.asarray(p_values)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected.tolist()


def _differences(differences: ArrayLike) -> np.ndarray:
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 1 or not len(differences) or not np.isfinite(differences).all():
        raise ValueError(f"expected finite differences, one per case, found {differences.tolist()}")
    return differences
