"""Turns the fields of a config file into a typed section, and describes what is wrong with a field.

A section is a pydantic model: it declares the type and the range of each field. `build_section` is the only way
from a config file to a section, for the trainer and for the launcher.
"""

import difflib
import itertools
from collections.abc import Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict
from pydantic import BaseModel, ValidationError
from pydantic import ConfigDict as PydanticConfig
from pydantic_core import ErrorDetails

from settings.errors import ConfigError


class Section(BaseModel):
    """A group of config fields. It cannot be changed after it was checked.

    Types are strict, with two exceptions: an int is accepted for a float, and a list for a tuple. A bool is not a
    number. A field's `description` completes the sentence "it has to be ..." in error messages. Without one,
    the message is written from the field's constraint.
    """

    model_config = PydanticConfig(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


SectionType = TypeVar("SectionType", bound=Section)


def build_section(
    section_type: type[SectionType],
    fields: ConfigDict | Mapping[str, Any],
    *,
    defaults: ConfigDict | Mapping[str, Any],
    defaults_file: str,
) -> SectionType:
    """Checks the fields of a config and returns them as a typed section.

    Args:
      section_type: The section that the fields have to match.
      fields: The fields, with nested sections as nested mappings.
      defaults: Default values with the same structure. Error messages show them as examples.
      defaults_file: The file that documents the fields. Error messages name it.

    Raises:
      ConfigError: A field is unknown, missing, of the wrong type, or out of range.
    """
    plain_fields, plain_defaults = _plain(fields), _plain(defaults)
    try:
        return section_type.model_validate(plain_fields)
    except ValidationError as error:
        details = min(error.errors(include_url=False), key=_severity)
        raise ConfigError(_sentence(details, section_type, plain_fields, plain_defaults, defaults_file)) from None


def cannot_be_used(name: str, value: Any, allowed: str) -> ConfigError:
    """Builds the error for a field or flag whose value is not allowed.

    Args:
      name: The full name, such as "config.seed" or "--region".
      allowed: Completes the sentence "it has to be ...".
    """
    return ConfigError(f"{name}={value!r} cannot be used: it has to be {allowed}.")


def _plain(value: Any) -> Any:
    """Converts ConfigDicts to dicts and lists to tuples, at every level."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _severity(details: ErrorDetails) -> tuple[int, tuple[str, ...]]:
    """Sorts unknown fields first: a misspelt field is also a missing one."""
    path, in_tuple = _path(details)
    if details["type"] == "extra_forbidden" and not in_tuple:
        return 0, tuple(path)
    return (1 if details["type"] == "missing" and not in_tuple else 2), ()


def _path(details: ErrorDetails) -> tuple[list[str], bool]:
    """Returns the path of a field, and whether the error is in an element of its tuple."""
    path = list(itertools.takewhile(lambda part: isinstance(part, str), details["loc"]))
    return [str(part) for part in path], len(path) < len(details["loc"])


def _sentence(
    details: ErrorDetails,
    section_type: type[Section],
    fields: Mapping[str, Any],
    defaults: Mapping[str, Any],
    defaults_file: str,
) -> str:
    # For an error in an element of a tuple, the message shows the whole tuple.
    path, in_tuple = _path(details)
    name, kind = "config." + ".".join(path), details["type"]
    if kind == "extra_forbidden" and not in_tuple:
        close = difflib.get_close_matches(path[-1], _look_up(defaults, path[:-1]) or (), n=1)
        hint = f"; did you mean {close[0]}?" if close else "."
        return f"{name} is not a field{hint} {defaults_file} lists and explains all fields."
    if kind == "missing" and not in_tuple:
        module = defaults_file.removesuffix(".py").replace("/", ".")
        return f"{name} is missing. Start from {module}.get_config() and change only what differs."

    value, default = _look_up(fields, path), _look_up(defaults, path)
    has_wrong_type = kind == "literal_error" and not isinstance(value, str)
    if not in_tuple and (has_wrong_type or kind.endswith("_type")):
        if isinstance(default, Mapping):
            return f"{name}={value!r} cannot be used: it is a section with the fields {', '.join(default)}."
        return (
            f"{name}={value!r} is of type {type(value).__name__}. It has to be of type "
            f"{type(default).__name__}, like its default {default!r}."
        )
    return str(cannot_be_used(name, value, _allowed(details, section_type, path, in_tuple)))


def _look_up(tree: Any, path: list[str]) -> Any:
    for part in path:
        tree = tree[part] if isinstance(tree, Mapping) and part in tree else None
    return tree


def _allowed(details: ErrorDetails, section_type: type[Section], path: list[str], in_tuple: bool) -> str:
    context = details.get("ctx", {})
    if details["type"] == "finite_number" and not in_tuple:
        return "a finite number"
    if description := _description(section_type, path):
        return description
    match details["type"]:
        case "greater_than_equal":
            return f"at least {_number(context['ge'])}"
        case "greater_than":
            return f"above {_number(context['gt'])}"
        case "less_than_equal":
            return f"at most {_number(context['le'])}"
        case "less_than":
            return f"below {_number(context['lt'])}"
        case "literal_error":
            return context["expected"].replace("'", "")
    return details["msg"][0].lower() + details["msg"][1:]


def _number(limit: float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"


def _description(section_type: type[Section], path: list[str]) -> str | None:
    *parents, last = path
    for parent in parents:
        annotation = section_type.model_fields[parent].annotation
        assert isinstance(annotation, type) and issubclass(annotation, Section)
        section_type = annotation
    return section_type.model_fields[last].description
