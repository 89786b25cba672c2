"""The config as a whole: every field checked once, before anything slow; saved; compared.

Names that belong to a module (losses, metrics, optimizers, splits) are checked where they are known, by
building the thing, which also comes before any data is read.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import default
from settings.errors import ConfigError

_POSITIVE = (lambda value: value >= 1, "at least 1")
_NOT_NEGATIVE = (lambda value: value >= 0, "at least 0")
_ABOVE_0 = (lambda value: value > 0, "a number above 0")

_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": (lambda value: 0 <= value < 2**31, "from 0 to 2147483647"),
    "data.source": (bool, "a source of ratings"),
    "data.rating_range": (
        lambda value: len(value) == 2 and all(_is_number(n) for n in value) and 0 <= value[0] < value[1] <= 100,
        "two numbers, the lowest rating and the highest, from 0 to 100: beyond, the gain of NDCG, 2^rating, overflows",
    ),
    "data.max_bad_fraction": (lambda value: 0 <= value < 1, "from 0 up to, but not, 1"),
    "data.item_identity": (lambda value: value in ("item_id", "title"), "item_id or title"),
    "list_size": (lambda value: value >= 2, "at least 2: one entry has no order"),
    "model.embedding_size": _POSITIVE,
    "model.hidden_sizes": (
        lambda value: all(type(n) is int and n >= 1 for n in value),
        "sizes from 1 up",
    ),
    "loss.temperature": _ABOVE_0,
    "loss.lambda_weight_cutoff": _NOT_NEGATIVE,
    "optimizer.learning_rate": _ABOVE_0,
    "optimizer.warmup_steps": _NOT_NEGATIVE,
    "train.global_batch_size": _POSITIVE,
    "train.num_epochs": _POSITIVE,
    "train.steps_per_execution": _POSITIVE,
    "train.log_every_steps": _NOT_NEGATIVE,
    "train.eval_every_steps": _NOT_NEGATIVE,
    "train.checkpoint_every_steps": _NOT_NEGATIVE,
    "train.keep_checkpoints": _POSITIVE,
    "train.early_stopping_patience": _NOT_NEGATIVE,
    "eval.metrics": (lambda value: all(type(name) is str for name in value), "names of metrics"),
    "eval.relevance_threshold": _ABOVE_0,
    "eval.best_direction": (lambda value: value in ("max", "min"), "max or min"),
    "eval.num_catalogue_users": (lambda value: value >= -1, "a number of users, 0 for none, -1 for all"),
    "eval.num_sample_users": _NOT_NEGATIVE,
}

# By what runs are compared; a name that ends in a dot stands for all fields of its section.
_HYPERPARAMETERS = (
    *("data.source", "split.", "list_size", "model.", "loss.", "optimizer.", "seed"),
    *("train.global_batch_size", "train.num_epochs"),
)

# What may differ when a run is taken up again: none of it changes a step that has been taken.
_CHANGEABLE = {
    "data.data_dir",
    "train.num_epochs",
    "train.steps_per_execution",
    "train.checkpoint_every_steps",
    "train.keep_checkpoints",
    "train.early_stopping_patience",
    "eval.num_catalogue_users",
    "eval.num_sample_users",
}


def check_config(config: ConfigDict) -> None:
    """Checks names, types and ranges of all fields.

    Raises:
      ConfigError: names the field, its value and what is allowed.
    """
    fields, known = flatten(config.to_dict()), flatten(default.get_config().to_dict())
    for name in sorted(fields.keys() - known.keys()):
        raise ConfigError(f"config.{name} is not a field; configs/default.py lists and explains all there are.")
    for name, default_value in known.items():
        if name not in fields:
            raise ConfigError(
                f"config.{name} is missing: start from configs.default.get_config() and change what differs."
            )
        value, wanted = fields[name], type(default_value)
        if wanted is float and type(value) is int:
            wanted = int
        if type(value) is not wanted and not (wanted is tuple and isinstance(value, list)):
            raise ConfigError(
                f"config.{name}={value!r} is of type {type(value).__name__}; it has to be {wanted.__name__}, "
                f"like its default {default_value!r}."
            )
        if wanted is float and not math.isfinite(value):
            raise ConfigError(f"config.{name}={value!r} cannot be used: it has to be a finite number.")
    for name, (is_valid, allowed) in _RANGES.items():
        if not is_valid(fields[name]):
            raise ConfigError(f"config.{name}={fields[name]!r} cannot be used: it has to be {allowed}.")
    if fields["eval.relevance_threshold"] > fields["data.rating_range"][1]:
        raise ConfigError(
            f"config.eval.relevance_threshold={fields['eval.relevance_threshold']!r} cannot be used: it has to be at "
            f"most the highest rating of config.data.rating_range={fields['data.rating_range']}."
        )
    measured = ("loss", *fields["eval.metrics"])
    if fields["eval.best_metric"] not in measured:
        raise ConfigError(
            f"config.eval.best_metric={fields['eval.best_metric']!r} is not measured: it has to be one of "
            f"{', '.join(measured)}, or be added to config.eval.metrics."
        )


def dataset_arguments(config: ConfigDict) -> dict[str, Any]:
    """The arguments of `dataset.load_dataset`, which training and evaluation call alike."""
    return {
        **config.data,
        "split_method": config.split.method,
        "validation_fraction": config.split.validation_fraction,
        "test_fraction": config.split.test_fraction,
        "list_size": config.list_size,
        "seed": config.seed,
    }


def protocol_arguments(config: ConfigDict) -> dict[str, Any]:
    """The arguments of `evaluate.evaluate_protocols`, which training and evaluation call alike."""
    return {
        "list_size": config.list_size,
        "global_batch_size": config.train.global_batch_size,
        "num_catalogue_users": config.eval.num_catalogue_users,
        "seed": config.seed,
    }


def hyperparameters(config: ConfigDict) -> dict[str, Any]:
    """The fields by which runs are compared, by dotted name."""
    fields = flatten(config.to_dict())
    return {
        name: value
        for name, value in fields.items()
        if any(name == wanted or (wanted.endswith(".") and name.startswith(wanted)) for wanted in _HYPERPARAMETERS)
    }


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """Reads what `to_json` wrote. Lists come back as tuples, which is what every field with several has.

    Raises:
      ValueError: it is no JSON, or not of a config.
    """
    tree = json.loads(text)
    if not isinstance(tree, dict):
        raise ValueError(f"{text.strip()[:20]} has no fields")
    return ConfigDict(_tuples(tree))


def changed_fields(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """The fields that forbid to go on with a run: name → (old value, new value)."""
    before, after = flatten(_tuples(old.to_dict())), flatten(_tuples(new.to_dict()))
    # A schedule that knows its last step is stretched by more epochs.
    stretches = after["optimizer.schedule"] != "constant"
    free = _CHANGEABLE - ({"train.num_epochs"} if stretches else set())
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name not in free
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections → dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(value) if isinstance(value, list) else value
