"""Finds secrets in a job: its description is shown in the console and kept in logs, and it cannot be deleted."""

import itertools
import re
from collections.abc import Sequence

from settings.errors import ConfigError

# A name is split into words, so that --config.tokenizer and --num_tokens are not secrets.
_SECRET_WORDS = {"apikey", "credential", "credentials", "passphrase", "passwd", "password", "pwd", "secret", "token"}
_SECRET_PAIRS = {("access", "key"), ("api", "key"), ("private", "key"), ("secret", "key"), ("signing", "key")}

# The keys of well-known services.
_SECRET_VALUE = re.compile(
    r"""
      AIza[\w-]{30,}                      # Google API key
    | ya29\.[\w.-]+ | 1//0[\w-]{20,}      # Google OAuth tokens
    | -----BEGIN\ [A-Z\ ]*PRIVATE\ KEY | "?private_key"?\s*:
    | gh[pousr]_\w{20,} | github_pat_\w+ | glpat-[\w-]{20,}
    | (AKIA|ASIA)[A-Z0-9]{16}             # Amazon
    | xox[abprs]-[\w-]{10,}               # Slack
    | hf_[A-Za-z0-9]{20,}                 # Hugging Face
    | sk-[\w-]{20,}                       # several
    | eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.        # JSON web token
    | \w+://[^/\s:@]+:[^/\s@]+@           # a URL with a password
    """,
    re.VERBOSE,
)


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
        shown = name if name.startswith("-") and not _SECRET_VALUE.search(name) else f"number {position}"
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
        shown = f"{name}=..." if not _SECRET_VALUE.search(name) else f"number {position}"
        _check(pair, name, f"config.environment: {shown}")


def _check(text: str, name: str, where: str) -> None:
    if is_secret_name(name) or _SECRET_VALUE.search(text):
        raise ConfigError(
            f"{where} looks like a secret (its value is not repeated here). Everyone who can see the job can read its "
            "description. Give the job rights through config.service_account, or let it read the secret from Secret "
            "Manager."
        )


def is_secret_name(name: str) -> bool:
    """Whether the name of a flag or variable is that of a secret, such as HF_TOKEN or --dbPassword."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    return bool(_SECRET_WORDS & set(words) or _SECRET_PAIRS & set(itertools.pairwise(words)))
