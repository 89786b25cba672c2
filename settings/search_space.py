"""Search spaces: which fields of the trainer's config a search varies, and the values that it tries.

`trainer.tune` and the studies of Vertex AI have the same form.
"""

import ast
import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from pydantic import model_validator

from settings.errors import ConfigError
from settings.sections import Section, cannot_be_used

Number: TypeAlias = int | float

FORM = (
    'of the form {"field": ..., "range": (LOWEST, HIGHEST)} or {"field": ..., "values": (...)}, with an optional '
    '"scale": linear, log or reverse_log'
)


class SearchParameter(Section):
    """A field of the trainer's config, with the range or the values to try.

    Attributes:
      field: The dotted name of the field, such as optimizer.learning_rate.
      range: The lowest and the highest value. Of two ints, all ints between them are tried.
      values: Numbers in ascending order, or categories: strings, bools, or tuples for a field that is a tuple.
      scale: How numbers are spread.
    """

    field: str
    range: tuple[Number, Number] | None = None
    values: tuple[bool | Number | str | tuple[Number | str, ...], ...] | None = None
    scale: Literal["linear", "log", "reverse_log"] = "linear"

    @model_validator(mode="after")
    def _check_numbers(self) -> "SearchParameter":
        shown, tried = self.model_dump(exclude_unset=True), self.tried
        if (self.range is None) == (self.values is None):
            raise cannot_be_used("parameter", shown, FORM)
        if not tried or not (self.is_numeric or all(isinstance(value, bool | str | tuple) for value in tried)):
            raise cannot_be_used(
                "parameter", shown, "a tuple of numbers or a tuple of strings, bools or tuples, with at least one value"
            )
        if self.range is not None and not self.range[0] < self.range[1]:
            raise cannot_be_used("parameter", shown, "a range of two numbers, the lowest first")
        if self.values is not None and self.is_numeric and list(tried) != sorted(set(tried)):
            raise cannot_be_used("parameter", shown, "a tuple of different numbers in ascending order")
        if len(set(tried)) < len(tried):
            raise cannot_be_used("parameter", shown, "a tuple of different values")
        if self.scale != "linear" and not (self.is_numeric and min(tried) > 0):
            raise cannot_be_used("parameter", shown, "numbers above 0, or of scale linear")
        return self

    @property
    def tried(self) -> tuple[Any, ...]:
        """The ends of the range, or the values."""
        return self.range if self.range is not None else self.values or ()

    @property
    def is_numeric(self) -> bool:
        """Whether the values are numbers, and not categories."""
        return not any(isinstance(value, bool | str | tuple) for value in self.tried)


def check_unique(parameters: Iterable[SearchParameter], where: str) -> None:
    """Checks that each field is varied by one parameter.

    Args:
      where: What has the parameters, for the message.

    Raises:
      ConfigError: A field is there twice.
    """
    names = [parameter.field for parameter in parameters]
    if len(set(names)) < len(names):
        raise ConfigError(f"{where} has a field twice. Its fields are {', '.join(names)}.")


def with_values(fields: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns a copy of a config with other values.

    Args:
      fields: The config, with sections as nested mappings.
      values: Values by the dotted names of their fields. For a field that is a tuple, a string is read as on the
        command line.
      where: What has the values, for the message.

    Raises:
      ConfigError: A name is not a field.
    """
    changed = copy.deepcopy(dict(fields))
    for name, value in values.items():
        _set_field(changed, name, value, where)
    return changed


def sample_trials(
    parameters: Iterable[SearchParameter], fields: Mapping[str, Any], where: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yields configs with which a space can be checked before a search: each value or end of each parameter once.

    The other parameters have their first value.

    Args:
      fields: The config that the search starts from.
      where: What has the parameters, for messages.

    Yields:
      The value by the name of its field, and the config.

    Raises:
      ConfigError: A name is not a field.
    """
    parameters = list(parameters)
    first = with_values(fields, {parameter.field: parameter.tried[0] for parameter in parameters}, where)
    for parameter in parameters:
        for value in parameter.tried:
            tried = {parameter.field: value}
            yield tried, with_values(first, tried, where)


def _set_field(fields: dict[str, Any], dotted_name: str, value: Any, where: str) -> None:
    *sections, name = dotted_name.split(".")
    section: Any = fields
    for part in sections:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict) or name not in section or isinstance(section[name], dict):
        raise ConfigError(
            f"{where}: config.{dotted_name} is not a field of the trainer's config. configs/default.py lists and "
            "explains all fields."
        )
    if isinstance(section[name], tuple | list) and isinstance(value, str):
        # As on the command line of a trial: --config.model.hidden_sizes="(64, 32)".
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
    section[name] = value
