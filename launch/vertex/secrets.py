"""Finds secrets in a job: its description is shown in the console and kept in logs, and it cannot be deleted."""

from collections.abc import Sequence

from settings.errors import ConfigError
from settings.secrets import has_secret, is_secret_name


def check_no_secrets(arguments: Sequence[str], whose: str) -> None:
    """Refuses keys, tokens and passwords among arguments.

    Args:
      arguments: The arguments of a program.
      whose: What an argument is called in messages.

    Raises:
      ConfigError: It names the flag, but not its value.
    """
    for position, argument in enumerate(arguments, start=1):
        name, _, _ = argument.partition("=")
        # An argument that is not a flag can be the secret itself.
        shown = name if name.startswith("-") and not has_secret(name) else f"number {position}"
        _check(argument, name if name.startswith("-") else "", f"{whose} {shown}")


def check_no_secret_variables(environment: Sequence[str]) -> None:
    """Refuses keys, tokens and passwords among the variables of a job.

    Args:
      environment: Strings "NAME=VALUE".

    Raises:
      ConfigError: It names the variable, but not its value.
    """
    for position, pair in enumerate(environment, start=1):
        name, _, _ = pair.partition("=")
        shown = f"{name}=..." if not has_secret(name) else f"number {position}"
        _check(pair, name, f"config.environment: {shown}")


def _check(text: str, name: str, where: str) -> None:
    if is_secret_name(name) or has_secret(text):
        raise ConfigError(
            f"{where} looks like a secret (its value is not repeated here). Everyone who can see the job can read its "
            "description. Give the job rights through config.service_account, or let it read the secret from Secret "
            "Manager."
        )
