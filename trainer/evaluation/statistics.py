"""Means over lists, with standard errors and confidence intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Mean:
    """The mean of a metric over lists.

    The standard error is the standard deviation over lists / √num_lists. Where a metric weights lists
    (ordered_pair_accuracy, arp), the mean and the standard deviation are weighted, and Kish's effective sample size
    (Kish, Survey Sampling, 1965), (Σ w)² / Σ w², replaces num_lists.

    Attributes:
      value: NaN if no list has a weight above 0.
      standard_error: NaN for fewer than two lists.
      num_lists: Number of lists with a weight above 0.
    """

    value: float
    standard_error: float
    num_lists: int

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        """The lower and upper limit of the interval, from the normal approximation."""
        margin = NormalDist().inv_cdf((1 + level) / 2) * self.standard_error
        return self.value - margin, self.value + margin

    def __str__(self) -> str:
        """The value and one standard error, as in `0.9053 ± 0.0032`. One list has no standard error."""
        return f"{self.value:.4f}" + (f" ± {self.standard_error:.4f}" if self.num_lists > 1 else "")


Metrics = dict[str, Mean]
"""Means by the names of the metrics."""


def mean_over_lists(values: np.ndarray, weights: np.ndarray) -> Mean:
    """The weighted mean of `values` [num_lists]. Lists of weight 0 do not count, whatever their value."""
    values, weights = (array[weights > 0].astype(np.float64) for array in (values, weights))
    if not len(values):
        return Mean(math.nan, math.nan, 0)
    mean = float(np.average(values, weights=weights))
    if len(values) < 2:
        return Mean(mean, math.nan, 1)
    variance = float(np.average((values - mean) ** 2, weights=weights))
    return Mean(mean, math.sqrt(variance * float(np.sum(weights**2))) / float(np.sum(weights)), len(values))


@dataclass(frozen=True, eq=False)
class ListMetrics:
    """The metrics of each list, for means and for paired comparisons.

    Attributes:
      names: The names of the metrics.
      values: float32 [num_lists, num_metrics].
      weights: float32 [num_lists, num_metrics]; 0 where a metric does not count for a list.
    """

    names: Sequence[str]
    values: np.ndarray
    weights: np.ndarray

    def means(self) -> Metrics:
        """The mean of each metric over the lists."""
        columns = zip(self.names, self.values.T, self.weights.T, strict=True)
        return {name: mean_over_lists(values, weights) for name, values, weights in columns}
