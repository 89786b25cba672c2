"""Means over queries with bootstrap confidence intervals, and paired tests. Imports no TensorFlow."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 1000
"""The number of bootstrap samples of an interval."""

NUM_FLIPS = 10_000
"""The number of random sign flips of a paired test."""

LEVEL = 0.95
"""The confidence level of all intervals."""

_CELLS_PER_CHUNK = 1 << 22


@dataclass(frozen=True)
class Mean:
    """The mean of a metric over lists or users.

    Attributes:
      value: NaN if no list has a weight above 0.
      low: The lower limit of the 95% confidence interval; NaN for fewer than two lists, or if it was not computed.
      high: The upper limit.
      num_lists: Number of lists with a weight above 0.
      num_left_out: Number of lists for which the metric is undefined, because nothing in them is relevant.
    """

    value: float
    low: float
    high: float
    num_lists: int
    num_left_out: int = 0

    def __str__(self) -> str:
        """The value and half the width of its interval, as in `0.9053 ± 0.0064`. A single list has no interval."""
        margin = (self.high - self.low) / 2
        return f"{self.value:.4f}" + ("" if math.isnan(margin) else f" ± {margin:.4f}")


Metrics = dict[str, Mean]
"""Means by the names of the metrics."""


@dataclass(frozen=True, eq=False)
class ListMetrics:
    """The metrics of each list, for means and for paired comparisons.

    Attributes:
      names: The names of the metrics.
      values: float32 [num_lists, num_metrics].
      weights: float32 [num_lists, num_metrics]; 0 where a metric is undefined for a list.
      num_left_out: Number of further lists that were not ranked, because nothing in them is relevant.
    """

    names: Sequence[str]
    values: np.ndarray
    weights: np.ndarray
    num_left_out: int = 0

    def means(self) -> Metrics:
        """The weighted mean of each metric over the lists, without intervals."""
        return self.means_with(np.full([2, len(self.names)], np.nan))

    def means_with_intervals(self, *, seed: int) -> Metrics:
        """The weighted mean of each metric over the lists, with 95% intervals; see `bootstrap_intervals`."""
        return self.means_with(bootstrap_intervals(self.values, self.weights, seed=seed))

    def means_with(self, limits: np.ndarray) -> Metrics:
        """The weighted mean of each metric over the lists, with the limits of its interval, [2, num_metrics]."""
        means = weighted_means(self.values, self.weights)
        num_lists = np.count_nonzero(self.weights, axis=0)
        num_left_out = self.num_left_out + len(self.values) - num_lists
        columns = zip(self.names, means, *limits, num_lists, num_left_out, strict=True)
        return {
            name: Mean(float(mean), float(low), float(high), int(number), int(left_out))
            for name, mean, low, high, number, left_out in columns
        }


def means_of_scorers(by_scorer: Mapping[str, ListMetrics], *, seed: int) -> dict[str, Metrics]:
    """The same as `ListMetrics.means_with_intervals` of each scorer, in less time.

    Drawing the samples takes the most time, and all scorers share them.

    Args:
      by_scorer: The metrics of the same lists by scorer.
      seed: Determines the samples.
    """
    scorers = by_scorer.values()
    limits = bootstrap_intervals(
        np.concatenate([lists.values for lists in scorers], axis=1),
        np.concatenate([lists.weights for lists in scorers], axis=1),
        seed=seed,
    )
    ends = np.cumsum([len(lists.names) for lists in scorers])
    of_scorers = np.split(limits, ends[:-1], axis=1)
    return {
        name: lists.means_with(of_scorer)
        for (name, lists), of_scorer in zip(by_scorer.items(), of_scorers, strict=True)
    }


def weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean of each column: float64 [num_metrics]. Lists of weight 0 do not count, whatever their value.

    Args:
      values: [num_lists, num_metrics].
      weights: [num_lists, num_metrics], at least 0.
    """
    total = np.sum(weights, axis=0, dtype=np.float64)
    products = np.sum(_products(values, weights), axis=0)
    return np.divide(products, total, out=np.full(total.shape, np.nan), where=total > 0)


def bootstrap_intervals(values: np.ndarray, weights: np.ndarray, *, seed: int) -> np.ndarray:
    """The limits of the 95% percentile bootstrap interval of each weighted mean.

    `NUM_RESAMPLES` samples of num_lists lists are drawn with replacement. The limits are the 2.5% and the 97.5%
    quantile of the samples' weighted means (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).

    Args:
      values: [num_lists, num_metrics].
      weights: [num_lists, num_metrics], at least 0. Lists of weight 0 do not count, whatever their value.
      seed: Determines the samples.

    Returns:
      float64 [2, num_metrics]: the lower and the upper limits; NaN for a metric with fewer than two lists.
    """
    limits: np.ndarray = np.full([2, values.shape[1]], np.nan)
    # Metrics are resampled over the lists that define them. All metrics with the same lists share the samples.
    is_defined = weights > 0
    for lists, columns in _equal_columns(is_defined):
        if np.count_nonzero(lists) < 2:
            continue
        rows = np.flatnonzero(lists)
        column_weights = weights[np.ix_(rows, columns)].astype(np.float64)
        products = _products(values[np.ix_(rows, columns)], column_weights)
        sums = np.concatenate([products, column_weights], axis=1)
        samples = np.concatenate([counts @ sums for counts in _resamples(len(rows), seed=seed)])
        means = samples[:, : len(columns)] / samples[:, len(columns) :]
        tail = (1 - LEVEL) / 2
        limits[:, columns] = np.quantile(means, [tail, 1 - tail], axis=0)
    return limits


@dataclass(frozen=True)
class Difference:
    """The difference of the means of a metric, B − A, over the same queries.

    Attributes:
      mean_a: The mean of A.
      mean_b: The mean of B.
      value: mean_b − mean_a.
      low: The lower limit of the 95% bootstrap interval of the difference; NaN for fewer than two queries.
      high: The upper limit.
      p_value: Two-sided p-value of the paired randomisation test.
      num_queries: Number of queries.
    """

    mean_a: float
    mean_b: float
    value: float
    low: float
    high: float
    p_value: float
    num_queries: int


def paired_differences(
    values_a: np.ndarray, values_b: np.ndarray, weights: np.ndarray, *, seed: int
) -> list[Difference]:
    """Compares two scorers by their metrics of each query.

    The interval is the percentile bootstrap over queries. The p-value is that of the paired randomisation test
    (Fisher, 1935; Smucker, Allan and Carterette, "A comparison of statistical significance tests for information
    retrieval evaluation", CIKM 2007): if A and B are equally good, the difference of each query could as well have the
    other sign. It is (1 + the number of flips with at least this mean difference) / (1 + NUM_FLIPS).

    Args:
      values_a: [num_queries, num_metrics].
      values_b: [num_queries, num_metrics].
      weights: [num_queries, num_metrics]: the weight of each query in both means. A query of weight 0 does not count.
      seed: Determines the samples and the flips.

    Returns:
      One difference per metric.
    """
    means_a, means_b = weighted_means(values_a, weights), weighted_means(values_b, weights)
    differences = np.where(weights > 0, values_b.astype(np.float64) - values_a, 0)
    limits = bootstrap_intervals(differences, weights, seed=seed)
    products = _products(differences, weights)
    # Sums of the same numbers in another order may differ by rounding. Such a flip is as extreme as the result.
    least = np.abs(np.sum(products, axis=0)) - 1e-9 * np.sum(np.abs(products), axis=0)
    num_extreme = sum(np.sum(np.abs(signs @ products) >= least, axis=0) for signs in _flips(len(products), seed=seed))
    num_queries = np.count_nonzero(weights > 0, axis=0)
    p_values = np.where(num_queries > 0, (1 + num_extreme) / (1 + NUM_FLIPS), np.nan)
    columns = np.stack([means_a, means_b, weighted_means(differences, weights), *limits, p_values, num_queries], axis=1)
    return [
        Difference(mean_a, mean_b, value, low, high, p_value, int(number))
        for mean_a, mean_b, value, low, high, p_value, number in columns.tolist()
    ]


def mean_of_runs(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of a metric over runs that differ in their seed, and the limits of its 95% interval by Student's t.

    The limits are mean ± t · s / √n, with the sample standard deviation s of the n values and the 97.5% quantile t of
    the t distribution with n − 1 degrees of freedom (Student, "The probable error of a mean", Biometrika 1908).

    Args:
      values: one per run, at least one.

    Returns:
      The mean and the two limits, which are NaN for a single run.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, math.nan
    margin = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - margin, mean + margin


def t_quantile(num_degrees: int) -> float:
    """The number t such that LEVEL of Student's t distribution is between −t and t.

    Args:
      num_degrees: the degrees of freedom, at least 1.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # Halves the range of the angle down to the precision of a float.
        middle = (low + high) / 2
        low, high = (middle, high) if _part_of_t_within(middle, num_degrees) < LEVEL else (low, middle)
    return math.sqrt(num_degrees) * math.tan(high)


def _part_of_t_within(angle: float, num_degrees: int) -> float:
    """The part of the t distribution between −t and t, for t = √num_degrees · tan(angle).

    Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.3 and 26.7.4.
    """
    cosine, is_odd = math.cos(angle), num_degrees % 2
    term, total = (cosine if is_odd else 1.0), 0.0
    for order in range(1 + is_odd, num_degrees, 2):
        total += term
        term *= order / (order + 1) * cosine**2
    if is_odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def _products(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """values × weights in float64; 0 where the weight is 0, also if the value is not finite."""
    return np.where(weights > 0, values, 0).astype(np.float64) * weights


def _equal_columns(table: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each distinct column of a bool table, and the positions of the columns that are equal to it."""
    packed, inverse = np.unique(np.packbits(table, axis=0), axis=1, return_inverse=True)
    for group in range(packed.shape[1]):
        columns = np.flatnonzero(inverse.reshape(-1) == group)
        yield table[:, columns[0]], columns


def _resamples(num_lists: int, *, seed: int) -> Iterator[np.ndarray]:
    """How often each list is in each sample: float64 [samples of a chunk, num_lists], NUM_RESAMPLES rows in all."""
    generator = np.random.default_rng(seed)
    size = max(1, _CELLS_PER_CHUNK // num_lists)
    for begin in range(0, NUM_RESAMPLES, size):
        num_rows = min(size, NUM_RESAMPLES - begin)
        drawn = generator.integers(num_lists, size=[num_rows, num_lists]) + num_lists * np.arange(num_rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=num_rows * num_lists)
        yield counts.reshape(num_rows, num_lists).astype(np.float64)


def _flips(num_queries: int, *, seed: int) -> Iterator[np.ndarray]:
    """Random signs, float64 [flips of a chunk, num_queries], NUM_FLIPS rows in all."""
    generator = np.random.default_rng(seed)
    size = max(1, _CELLS_PER_CHUNK // max(num_queries, 1))
    for begin in range(0, NUM_FLIPS, size):
        num_rows = min(size, NUM_FLIPS - begin)
        packed = generator.integers(256, size=[num_rows, -(-num_queries // 8)], dtype=np.uint8)
        yield 2.0 * np.unpackbits(packed, axis=1, count=num_queries) - 1.0
