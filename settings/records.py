"""Checks the types of what a program has written to a JSON file before, and says which field is wrong."""

from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError


class Record(BaseModel):
    """A part of a JSON file. Types are strict, but an int is accepted for a float. Other fields are not looked at."""

    model_config = ConfigDict(strict=True, extra="allow")


def check_types(kind: Any, value: Any) -> None:
    """Checks that a value from a JSON file has a type, with all its parts.

    Args:
      kind: a type that pydantic knows, such as a dataclass, a `Record` or a dict of these.
      value: dicts, lists, text and numbers.

    Raises:
      ValueError: it has another type. The message names the first field that differs.
    """
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, details["loc"])) or "content"
        raise ValueError(
            f"its {field} cannot be {_shown(details['input'])}: {details['msg'][:1].lower()}{details['msg'][1:]}"
        ) from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
