import itertools

import numpy as np
import pytest
from scipy import stats

from reporting.statistics import bootstrap_interval, holm, permutation_test

ALTERNATIVES = ("two-sided", "greater", "less")


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("seed", range(3))
def test_few_cases_are_enumerated(alternative, seed):
    differences = np.random.default_rng(seed).normal(0.3, 1, 7)
    means = np.array([np.dot(signs, differences) / 7 for signs in itertools.product((1, -1), repeat=7)])
    observed = differences.mean()
    extreme = {
        "two-sided": np.abs(means) >= abs(observed) - 1e-12,
        "greater": means >= observed - 1e-12,
        "less": means <= observed + 1e-12,
    }[alternative]
    assert permutation_test(differences, alternative=alternative) == pytest.approx(extreme.mean(), abs=1e-12)


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("count", [4, 9, 25])
def test_p_is_scipys(alternative, count):
    differences = np.random.default_rng(count).normal(0.2, 0.5, count)
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", alternative=alternative, n_resamples=10_000, rng=1
    ).pvalue
    # SciPy doubles the smaller tail: the same, because the sums are symmetric, but for chance where they are drawn.
    tolerance = 1e-9 if 2**count <= 10_000 else 0.02
    assert permutation_test(differences, alternative=alternative) == pytest.approx(theirs, abs=tolerance)


def test_by_hand():
    # Three cases, all better: 1 of 8 sign patterns is as large, 2 of 8 as large in size.
    assert permutation_test([1, 2, 3], alternative="greater") == 1 / 8
    assert permutation_test([1, 2, 3]) == 2 / 8 and permutation_test([1, 2, 3], alternative="less") == 1
    assert permutation_test([0, 0, 0]) == 1


def test_random_permutations_are_seeded_and_never_give_zero():
    differences = np.full(40, 0.1)
    assert permutation_test(differences) == 1 / 10_001
    noisy = np.random.default_rng(0).normal(0.1, 1, 40)
    assert permutation_test(noisy, seed=3) == permutation_test(noisy, seed=3) != permutation_test(noisy, seed=4)


def test_the_draws_are_those_of_numpys_generator_of_seed_0():
    """A p value and an interval are the same tomorrow."""
    differences = np.random.default_rng(5).normal(0.4, 1, 30)
    swaps = np.random.default_rng(0).integers(0, 2, (1000, 30), dtype=np.int8)
    extreme = int((np.abs((1 - 2 * swaps) @ differences) >= abs(differences.sum())).sum())
    assert 10 < extreme < 990
    assert permutation_test(differences, permutations=1000) == (extreme + 1) / 1001
    assert permutation_test(differences) == permutation_test(differences, permutations=10_000)
    assert bootstrap_interval(differences) == bootstrap_interval(differences, resamples=10_000)
    drawn = np.random.default_rng(0).integers(0, 30, (1000, 30))
    expected = np.percentile(differences[drawn].mean(axis=1), (2.5, 97.5))
    assert bootstrap_interval(differences, resamples=1000) == pytest.approx(tuple(expected))


def test_p_is_uniform_without_a_difference():
    generator = np.random.default_rng(0)
    p = [permutation_test(generator.normal(0, 1, 10), seed=seed) for seed in range(300)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_the_interval_is_scipys():
    differences = np.random.default_rng(1).gamma(2, 1, 30)
    theirs = stats.bootstrap((differences,), np.mean, method="percentile", n_resamples=20_000, rng=2)
    ours = bootstrap_interval(differences, resamples=20_000)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)
    assert bootstrap_interval([2.0, 2.0]) == (2.0, 2.0) and np.isnan(bootstrap_interval([1.0])).all()


def test_holm_by_hand():
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06, 0.04, and never below the one before.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []


@pytest.mark.parametrize("wrong", [[], [1.0, np.nan], [[1.0]]])
def test_differences_that_are_none_are_refused(wrong):
    for function in (permutation_test, bootstrap_interval):
        with pytest.raises(ValueError, match="expected finite differences"):
            function(wrong)
    with pytest.raises(ValueError, match="found both"):
        permutation_test([1.0], alternative="both")
