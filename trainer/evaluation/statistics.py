"""Means over lists with their standard errors."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A mean over lists, and its standard error: the standard deviation over lists / √num_lists.

    Where a metric weighs lists (ordered_pair_accuracy, arp) both are weighted, and Kish's effective sample size
    takes the place of num_lists. Of fewer than two lists the error is NaN.
    """

    value: float
    standard_error: float
    num_lists: int

    def __str__(self) -> str:
        """`0.9053 ± 0.0032`; one list says nothing of the error."""
        return f"{self.value:.4f}" + (f" ± {self.standard_error:.4f}" if self.num_lists > 1 else "")


Figures = dict[str, Figure]


def figure_from_sums(num_lists: float, sum_w: float, sum_wx: float, sum_wxx: float, sum_ww: float) -> Figure:
    """From the sums of `build_eval_call`: the weighted mean, and its error by Kish's effective sample size."""
    if not sum_w:
        return Figure(math.nan, math.nan, 0)
    mean = sum_wx / sum_w
    if num_lists < 2:
        return Figure(mean, math.nan, int(num_lists))
    variance = max(sum_wxx / sum_w - mean**2, 0.0)
    return Figure(mean, math.sqrt(variance * sum_ww) / sum_w, int(num_lists))
