"""What all commands of the launcher do with their command line and their request."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from absl import flags

from launch.vertex import client
from launch.vertex.config import DEFAULTS_FILE
from settings import cli
from settings.errors import ConfigError

_PLACE = {
    "project": "The Google Cloud project that runs this and pays for it.",
    "region": "The region of the machines, such as us-central1.",
}


def define_place(values: flags.FlagValues) -> None:
    """Defines --project, --region and --dry_run."""
    for flag, meaning in _PLACE.items():
        flags.DEFINE_string(flag, None, meaning, flag_values=values)
    flags.DEFINE_bool(
        "dry_run", False, "Check everything and print the request, but do not send it.", flag_values=values
    )


def is_help(usage: str | None, values: flags.FlagValues, arguments: Iterable[str]) -> bool:
    """Whether the arguments ask for help. Then it prints the usage and the flags."""
    if not {"--help", "-help", "-h"} & set(arguments):
        return False
    print(f"{usage}\n{values.get_help()}")
    return True


def parse(values: flags.FlagValues, arguments: Sequence[str], *, required: Iterable[str], way_out: str = ".") -> None:
    """Parses the arguments of a command into `values`.

    Args:
      required: The flags that have no default.
      way_out: The end of the message about an argument that is not a flag.

    Raises:
      ConfigError: An argument is not a flag, has a value that it cannot have, or is missing.
    """
    rest = cli.parse_flags(values, arguments, defaults_file=DEFAULTS_FILE)
    if rest:
        raise ConfigError(f"{rest[0]!r} is not a flag. Write each argument as --name=value{way_out}")
    missing = [flag for flag in required if not values[flag].value]
    if missing:
        raise ConfigError(f"--{missing[0]} is missing. --help explains it.")


def print_warnings(warnings: Iterable[str]) -> None:
    """Prints each warning on a line of stderr."""
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def print_requests(requests: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks requests against the client library and prints them as YAML.

    Args:
      requests: Each request by the name of its message, in the order in which they would be sent.

    Raises:
      ConfigError: The library does not know a field or a value.
    """
    is_checked = all(client.check_request(message, request) for message, request in requests.items())
    print(yaml.safe_dump_all(requests.values(), sort_keys=False, width=1000), end="")
    if not is_checked:
        print_warnings(["The client library of Vertex AI is not installed, so the request was not checked against it."])
