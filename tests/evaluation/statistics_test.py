"""Means, bootstrap intervals and paired tests against their definitions."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation import statistics
from trainer.evaluation.statistics import (
    NUM_RESAMPLES,
    ListMetrics,
    Mean,
    bootstrap_intervals,
    means_of_scorers,
    paired_differences,
    weighted_means,
)


def interval_of(values, weights=None, seed=0):
    values = np.asarray(values, np.float64)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights)
    return bootstrap_intervals(values[:, np.newaxis], weights[:, np.newaxis], seed=seed)[:, 0]


def paired_difference(a, b, weights, *, seed):
    (found,) = paired_differences(*(np.asarray(column)[:, np.newaxis] for column in (a, b, weights)), seed=seed)
    return found


def test_lists_of_weight_0_do_not_count_even_if_not_a_number():
    lists = ListMetrics(["a"], np.array([[np.nan], [3.0], [5.0]]), np.array([[0.0], [1.0], [1.0]]), num_left_out=4)
    assert lists.means() == {
        "a": Mean(4.0, pytest.approx(np.nan, nan_ok=True), pytest.approx(np.nan, nan_ok=True), 2, 5)
    }
    (mean,) = lists.means_with_intervals(seed=0).values()
    assert (mean.value, mean.num_lists, mean.num_left_out) == (4.0, 2, 5)
    # Of the samples of two lists, a quarter has twice the lower and a quarter twice the higher.
    assert (mean.low, mean.high) == (3.0, 5.0)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_without_enough_lists_the_rest_is_not_a_number():
    none = ListMetrics(["a"], np.array([[1.0]]), np.array([[0.0]])).means_with_intervals(seed=0)["a"]
    assert np.isnan([none.value, none.low, none.high]).all() and none.num_lists == 0
    one = ListMetrics(["a"], np.array([[0.25]]), np.array([[3.0]])).means_with_intervals(seed=0)["a"]
    assert one.value == 0.25 and np.isnan(one.low) and str(one) == "0.2500"
    empty = ListMetrics(["a"], np.zeros([0, 1]), np.zeros([0, 1])).means_with_intervals(seed=0)["a"]
    assert np.isnan(empty.value) and empty.num_lists == 0


def test_each_metric_has_its_column():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=[30, 3]), rng.integers(0, 3, [30, 3])
    together = ListMetrics(["a", "b", "c"], values, weights).means_with_intervals(seed=5)
    for i, name in enumerate("abc"):
        alone = ListMetrics([name], values[:, i : i + 1], weights[:, i : i + 1]).means_with_intervals(seed=5)
        assert dataclasses.astuple(together[name]) == pytest.approx(dataclasses.astuple(alone[name]))
        assert together[name].value == pytest.approx(np.average(values[:, i], weights=weights[:, i]))


def test_scorers_share_their_samples_and_keep_their_own_metrics():
    rng = np.random.default_rng(0)
    by_scorer = {
        name: ListMetrics(
            ["a", "b"][:size], rng.normal(size=[30, size]), rng.integers(0, 3, [30, size]), num_left_out=7
        )
        for name, size in (("model", 2), ("popularity", 1), ("random", 2))
    }
    together = means_of_scorers(by_scorer, seed=5)
    assert list(together) == list(by_scorer)
    for name, lists in by_scorer.items():
        alone = lists.means_with_intervals(seed=5)
        assert list(together[name]) == list(alone)
        for metric, mean in alone.items():
            assert dataclasses.astuple(together[name][metric]) == pytest.approx(dataclasses.astuple(mean))


def test_a_mean_prints_half_the_width_of_its_interval():
    assert str(Mean(0.5, 0.4, 0.55, 9)) == "0.5000 ± 0.0750"


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), num_lists=st.integers(2, 40))
def test_an_interval_has_the_quantiles_of_resampled_means(seed, num_lists):
    """The reference draws with another generator, so quantiles agree up to the noise of 1,000 samples."""
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(size=num_lists), rng.integers(1, 4, num_lists)
    rows = rng.integers(num_lists, size=[20_000, num_lists])
    means = np.sum(values[rows] * weights[rows], axis=1) / np.sum(weights[rows], axis=1)
    low, high = interval_of(values, weights, seed=seed)
    # The rank of the estimated quantile among 1,000 has a standard deviation of √(1000 · 0.025 · 0.975) ≈ 5.
    assert 0.002 <= np.mean(means < low) <= 0.05 or low == means.min()
    assert 0.002 <= np.mean(means > high) <= 0.05 or high == means.max()


def test_about_95_of_100_intervals_hold_the_true_mean():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        low, high = interval_of(rng.normal(7, 2, 100))
        found += low < 7 < high
    assert 365 < found < 395


def test_samples_depend_on_the_seed_and_not_on_the_chunks(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    whole = interval_of(values, seed=1)
    assert interval_of(values, seed=2).tolist() != whole.tolist()
    monkeypatch.setattr(statistics, "_CELLS_PER_CHUNK", 333)
    sizes = [len(counts) for counts in statistics._resamples(50, seed=1)]
    assert sum(sizes) == NUM_RESAMPLES and max(sizes) == 6
    assert interval_of(values, seed=1) == pytest.approx(whole)


def exact_p_value(differences):
    signs = itertools.product([-1, 1], repeat=len(differences))
    limit = abs(np.sum(differences)) - 1e-12
    return np.mean([abs(np.dot(flips, differences)) >= limit for flips in signs])


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), shift=st.sampled_from([0.0, 0.5, 2.0]))
def test_the_p_value_is_the_share_of_flips_with_a_larger_difference(seed, shift):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=9), rng.normal(size=9) + shift
    found = paired_difference(a, b, np.ones(9), seed=seed)
    # The standard deviation of the estimate is at most 0.5 / √10000 = 0.005.
    assert found.p_value == pytest.approx(exact_p_value(b - a), abs=0.025)


def test_a_paired_difference_is_that_of_the_queries_that_count():
    a, b = np.array([0.1, 0.2, 0.9, 0.4]), np.array([0.3, 0.1, 0.2, 0.8])
    found = paired_difference(a, b, np.array([1, 1, 0, 1]), seed=0)
    assert (found.mean_a, found.mean_b, found.num_queries) == (pytest.approx(0.7 / 3), pytest.approx(1.2 / 3), 3)
    assert found.value == pytest.approx(0.5 / 3)
    assert found.low < found.value < found.high
    weighted = paired_difference(a, b, np.array([1, 1, 0, 2]), seed=0)
    assert weighted.value == pytest.approx((0.2 - 0.1 + 0.8) / 4)


def test_equal_scorers_do_not_differ_and_a_planted_difference_is_found():
    rng = np.random.default_rng(0)
    # Queries differ much more than scorers, so an unpaired interval would hide the difference.
    a = rng.uniform(size=400)
    same = paired_difference(a, a, np.ones(400), seed=0)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    better = paired_difference(a, a + rng.normal(0.01, 0.05, 400), np.ones(400), seed=0)
    assert better.p_value < 0.01 and 0 < better.low < 0.01 < better.high


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_without_queries_there_is_no_p_value():
    none = paired_difference(np.zeros(3), np.ones(3), np.zeros(3), seed=0)
    assert none.num_queries == 0 and np.isnan([none.p_value, none.value, none.low]).all()


def test_weighted_means():
    values, weights = np.array([[1.0, 10], [3, 20]]), np.array([[1.0, 1], [3, 0]])
    assert weighted_means(values, weights).tolist() == [2.5, 10]


def test_each_metric_is_compared_on_its_own():
    rng = np.random.default_rng(0)
    a, b, weights = rng.normal(size=[20, 3]), rng.normal(size=[20, 3]), rng.integers(0, 2, [20, 3])
    for i, found in enumerate(paired_differences(a, b, weights, seed=1)):
        alone = paired_difference(a[:, i], b[:, i], weights[:, i], seed=1)
        assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(alone))


def test_signs_are_fair_and_independent():
    signs = np.concatenate(list(statistics._flips(13, seed=0)))
    assert signs.shape == (statistics.NUM_FLIPS, 13) and set(signs.ravel().tolist()) == {-1.0, 1.0}
    # The standard deviation of a mean, and of a correlation, is 0.01.
    products = signs.T @ signs / len(signs)
    assert np.abs(signs.mean(axis=0)).max() < 0.05
    assert np.abs(products - np.eye(13)).max() < 0.05
