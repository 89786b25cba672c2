"""The section `eval`: what is measured, and the names of metrics."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from settings.errors import ConfigError
from settings.sections import Section

# Metric key → whether a cutoff can follow it, as in ndcg@10.
METRIC_KEYS = {
    "alpha_dcg": True,
    "arp": False,
    "binary_ndcg": True,
    "dcg": True,
    "hits": True,
    "map": True,
    "mrr": True,
    "ndcg": True,
    "ordered_pair_accuracy": False,
    "precision": True,
    "precision_ia": True,
    "recall": True,
    "tfr_precision": True,
}


# What stands before the name of a metric of the whole catalogue, to tell it from the same metric of rated lists.
CATALOGUE = "catalogue/"

MAX_CUTOFF = 2**31 - 1
"""The largest cutoff of a metric. Ranks have 32 bits."""

_USERS = "a number of users up to 2147483647, 0 for none, or -1 for all users"


class EvalConfig(Section):
    """What is measured."""

    metrics: tuple[str, ...] = Field(min_length=1, description="a tuple of at least one metric name")
    relevance_threshold: float = Field(gt=0)
    best_metric: str
    best_direction: Literal["max", "min"]
    num_catalogue_users: int = Field(ge=-1, lt=2**31, description=_USERS)
    num_validation_users: int = Field(ge=-1, lt=2**31, description=_USERS)
    num_sample_users: int = Field(ge=0, lt=2**31, description="a number of users from 0 to 2147483647")

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        for name in metrics:
            parse_metric_name(name)
        if len(set(metrics)) < len(metrics):
            raise ConfigError(f"config.eval.metrics={metrics!r} cannot be used: a metric is named twice.")
        return metrics

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of what a validation measures."""
        catalogue = [f"{CATALOGUE}{name}" for name in self.metrics] if self.num_validation_users else []
        return ("loss", *self.metrics, *catalogue)

    @model_validator(mode="after")
    def _check_best_metric(self) -> "EvalConfig":
        if self.best_metric not in self.measured:
            raise ConfigError(
                f"config.eval.best_metric={self.best_metric!r} is not measured. Set it to one of "
                f"{', '.join(self.measured)}, or add it to config.eval.metrics."
            )
        return self


def parse_metric_name(name: str) -> tuple[str, int | None]:
    """Splits "ndcg@10" into the metric's key and its cutoff, which is None for the whole list.

    Raises:
      ConfigError: The key is unknown, or the cutoff is not a rank, or the metric has no cutoff.
    """
    key, at, digits = name.partition("@")
    if key not in METRIC_KEYS:
        raise ConfigError(
            f"config.eval.metrics contains {name!r}, which is not a metric. Use one of {', '.join(METRIC_KEYS)}, with "
            "or without a cutoff, as in ndcg@10."
        )
    if not at:
        return key, None
    if not METRIC_KEYS[key]:
        raise ConfigError(f"config.eval.metrics contains {name!r}, but {key} has no cutoff. Write {key}.")
    # isdecimal alone accepts the digits of other scripts.
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20 and 1 <= int(digits) <= MAX_CUTOFF):
        raise ConfigError(
            f"config.eval.metrics contains {name!r}. A cutoff is a rank from 1 to {MAX_CUTOFF}, as in {key}@10."
        )
    return key, int(digits)
