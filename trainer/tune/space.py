"""Reads a search space, and checks it before anything slow."""

import runpy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from settings.errors import ConfigError
from settings.search_space import FORM, SearchParameter, check_unique, sample_trials
from settings.sections import cannot_be_used
from settings.trainer_config import load_trainer_config
from settings.trainer_config.evaluation import CATALOGUE
from trainer import config as config_lib

# Trials that differ in these fields are not measured on the same validation split or by the same metric. A name that
# ends in a dot means all fields of the section.
_MEASURES = ("seed", "data.", "split.", "eval.")
_INPUTS = "data.features."
# Scales of Vertex AI that the sampler does not have.
_UNAVAILABLE_SCALES = ("reverse_log",)


def load_space(path: str) -> tuple[SearchParameter, ...]:
    """Calls `get_space()` of a Python file, which returns a tuple of parameters as `SearchParameter` describes them.

    Raises:
      ConfigError: the file cannot be loaded, or a parameter has another form, or there is none.
    """
    try:
        space = runpy.run_path(path)["get_space"]()
    except Exception as error:  # The file can raise anything.
        reason = "it has no get_space()" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"--space={path} cannot be loaded: {reason}.") from error
    if not isinstance(space, tuple | list) or not space:
        raise cannot_be_used(f"--space={path}: get_space()", space, f"a tuple of parameters, each {FORM}")
    return tuple(_parameter(path, item) for item in space)


def check_space(parameters: tuple[SearchParameter, ...], config: Mapping[str, Any], where: str) -> None:
    """Checks that every value of a space gives a config that can be trained, and that its trials can be compared.

    Args:
      config: the config that the search starts from, with sections as nested mappings.
      where: what has the parameters, for messages.

    Raises:
      ConfigError: names the field and its value.
    """
    check_unique(parameters, where)
    for parameter in parameters:
        if parameter.scale in _UNAVAILABLE_SCALES:
            raise ConfigError(f"{where}: the scale {parameter.scale!r} of {parameter.field} is only for Vertex AI.")
    for tried, fields in sample_trials(parameters, config, where):
        try:
            load_trainer_config(fields)
        except ConfigError as error:
            raise ConfigError(f"{where}: with {tried}, a trial would fail: {error}") from error
    base = load_trainer_config(config)
    if base.split.method == "none" or not (base.split.validation_fraction or base.split.validation_source):
        raise ConfigError(
            "There is no validation split, so trials cannot be compared. Set config.split.method and "
            "config.split.validation_fraction."
        )
    for parameter in parameters:
        _check_comparable(parameter.field, base.eval.best_metric, where)


def _parameter(path: str, item: Any) -> SearchParameter:
    where = f"--space={path}"
    if not isinstance(item, Mapping):
        raise cannot_be_used(f"{where}: parameter", item, FORM)
    try:
        return SearchParameter.model_validate(config_lib.plain(item))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except ValidationError:
        raise cannot_be_used(f"{where}: parameter", item, FORM) from None


def _check_comparable(field: str, metric: str, where: str) -> None:
    depends_on: tuple[str, ...] = _MEASURES
    if metric == "loss":
        depends_on += ("list_size", "loss.", "candidates.")
    elif not metric.startswith(CATALOGUE):
        depends_on += ("list_size",)
    changes = any(field == name or (name.endswith(".") and field.startswith(name)) for name in depends_on)
    if changes and not field.startswith(_INPUTS):
        raise ConfigError(
            f"{where} cannot vary {field}: the validation {metric} of trials with different values would not measure "
            "the same thing. Run one search for each value instead."
        )
