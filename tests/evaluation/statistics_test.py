"""Means, standard errors and intervals against their definitions."""

import numpy as np
import pytest

from trainer.evaluation.statistics import ListMetrics, Mean, mean_over_lists


def test_with_equal_weights_the_error_is_the_deviation_over_the_root_of_the_number():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    mean = mean_over_lists(values, np.full(4, 0.5))
    assert (mean.value, mean.num_lists) == (4.0, 4)
    assert mean.standard_error == pytest.approx(np.std(values) / 2)


def test_a_list_of_weight_w_has_the_mean_of_w_lists_but_kish_error():
    values, weights = np.array([1.0, 5.0, 5.0]), np.array([6.0, 1.0, 1.0])
    mean = mean_over_lists(values, weights)
    assert mean.value == 2.0
    # The variance is (6·1 + 9 + 9) / 8 = 3, and the effective number of lists 64 / 38.
    assert mean.standard_error == pytest.approx(np.sqrt(3 / (64 / 38)))


def test_lists_of_weight_0_do_not_count_even_if_not_a_number():
    mean = mean_over_lists(np.array([np.nan, 3.0, 5.0]), np.array([0.0, 1.0, 1.0]))
    assert mean == Mean(4.0, pytest.approx(1 / np.sqrt(2)), 2)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_without_enough_lists_the_rest_is_not_a_number():
    none = mean_over_lists(np.array([1.0]), np.array([0.0]))
    assert np.isnan(none.value) and np.isnan(none.standard_error) and none.num_lists == 0
    one = mean_over_lists(np.array([0.25]), np.array([3.0]))
    assert one.value == 0.25 and np.isnan(one.standard_error) and str(one) == "0.2500"


def test_about_95_of_100_intervals_hold_the_true_mean():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(1000):
        low, high = mean_over_lists(rng.normal(7, 2, 200), np.ones(200)).confidence_interval()
        found += low < 7 < high
    assert 930 < found < 970
    assert Mean(1.0, 0.1, 9).confidence_interval(0.6827) == pytest.approx((0.9, 1.1), abs=1e-4)


def test_each_metric_has_its_column():
    lists = ListMetrics(["a", "b"], np.array([[1, 10], [3, 20]], np.float32), np.array([[1, 1], [1, 0]], np.float32))
    assert {name: mean.value for name, mean in lists.means().items()} == {"a": 2.0, "b": 10.0}
    assert str(lists.means()["a"]) == "2.0000 ± 0.7071"
