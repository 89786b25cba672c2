"""Compares configs, and turns sections into arguments of functions. settings/trainer_config/ checks the fields."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from pydantic import BaseModel

from settings.trainer_config import TrainerConfig
from settings.trainer_config.data import Columns

# The fields that runs are compared by. A name that ends in a dot means all fields of the section.
_HYPERPARAMETERS = (
    *("data.source", "data.features.", "split.", "list_size", "candidates.", "model.", "history.", "transformer."),
    *("ease.", "loss.", "optimizer.", "seed"),
    *("train.global_batch_size", "train.num_epochs"),
)

RECENT_DAYS = 7.0
"""The period whose ratings the baseline `recent_popularity` counts, in days."""

COLUMN_FIELDS = {f"data.columns.{name}" for name in Columns.model_fields}
"""The names of columns. Instead of them, the fingerprints of the data are compared."""

# The fields that may change when a run is resumed. They do not affect the steps that were already taken.
_CHANGEABLE = {
    "data.source",  # The fingerprints of the data are compared.
    "data.data_dir",
    *COLUMN_FIELDS,
    "train.num_epochs",
    "train.steps_per_execution",
    "train.checkpoint_every_steps",
    "train.keep_checkpoints",
    "train.early_stopping_patience",
    "train.stall_timeout_seconds",
    "eval.num_catalogue_users",
    "eval.num_sample_users",
}


def dataset_arguments(config: TrainerConfig) -> dict[str, Any]:
    """Returns the arguments of `loading.load_dataset`. Training and evaluation call it with the same ones."""
    return {
        **config.data.model_dump(),
        "split_method": config.split.method,
        "validation_source": config.split.validation_source,
        "test_source": config.split.test_source,
        "validation_fraction": config.split.validation_fraction,
        "test_fraction": config.split.test_fraction,
        "list_size": config.list_size,
        "list_order": "time" if config.history.encoder == "transformer" else "row",
        "history_size": history_size(config),
        "seed": data_seed(config),
    }


def data_seed(config: TrainerConfig) -> int:
    """The seed of what a run is measured on: the synthetic ratings, a random split, and the users who are drawn."""
    return config.seed if config.split.seed == -1 else config.split.seed


def history_size(config: TrainerConfig) -> int:
    """The largest number of items in a history; 0 for no histories."""
    if config.history.encoder == "transformer":
        return config.list_size - 1  # It has learnt no later positions.
    # Beside describing a query, the history tells which sampled items the query has seen.
    return config.history.size if config.history.encoder == "pooled" or config.candidates.method != "rated" else 0


def protocol_arguments(config: TrainerConfig, *, has_timestamps: bool) -> dict[str, Any]:
    """Returns the arguments of `protocols.evaluate_queries`. Training and evaluation call it with the same ones.

    Args:
      has_timestamps: whether the ratings have times. If so, and the latest ratings are held out, recent popularity is
        a baseline.
    """
    is_recent_meaningful = has_timestamps and config.split.method in ("last", "time", "given")
    return {
        "global_batch_size": config.train.global_batch_size,
        "num_catalogue_users": config.eval.num_catalogue_users,
        "relevance_threshold": config.eval.relevance_threshold,
        "recent_days": RECENT_DAYS if is_recent_meaningful else None,
        "seed": data_seed(config),
    }


def hyperparameters(config: ConfigDict | BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields that runs are compared by, with dotted names."""
    return {
        name: value
        for name, value in flatten(plain(config)).items()
        if any(name == wanted or (wanted.endswith(".") and name.startswith(wanted)) for wanted in _HYPERPARAMETERS)
    }


def changed_fields(
    old: ConfigDict | BaseModel | Mapping[str, Any], new: ConfigDict | BaseModel | Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Returns the changed fields that prevent a run from being resumed, as name → (old value, new value)."""
    before, after = flatten(plain(old)), flatten(plain(new))
    changeable = _changeable(after)
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name not in changeable
    }


def fingerprint(config: ConfigDict | BaseModel | Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the fields that must not change when a run is resumed, in hexadecimal."""
    fields = flatten(plain(config))
    fixed = {name: value for name, value in fields.items() if name not in _changeable(fields)}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def _changeable(fields: Mapping[str, Any]) -> set[str]:
    """The names of the fields that may change when a run is resumed."""
    # A schedule that depends on the last step changes when epochs are added.
    depends_on_last_step = fields["optimizer.schedule"] != "constant"
    return _CHANGEABLE - ({"train.num_epochs"} if depends_on_last_step else set())


def plain(config: ConfigDict | BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """Converts a config, typed or not, to nested dicts. Lists become tuples, as in a config file."""
    if isinstance(config, BaseModel):
        config = config.model_dump()
    elif isinstance(config, ConfigDict):
        config = config.to_dict()
    return {name: _plain_value(value) for name, value in config.items()}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Converts nested sections to one level with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain_value(item) for name, item in value.items()}
    return tuple(value) if isinstance(value, list) else value
