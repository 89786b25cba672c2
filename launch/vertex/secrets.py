"""Secrets do not belong into a job: its description is shown in the console, kept in logs, and cannot be deleted."""

import itertools
import re
from collections.abc import Sequence

from settings.errors import ConfigError

# A name is told by its words, so that --config.tokenizer or --num_tokens is none.
_SECRET_WORDS = {"apikey", "credential", "credentials", "passphrase", "passwd", "password", "pwd", "secret", "token"}
_SECRET_PAIRS = {("access", "key"), ("api", "key"), ("private", "key"), ("secret", "key"), ("signing", "key")}

# What the keys of well-known services look like.
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


def check_no_secrets(trainer_flags: Sequence[str], environment: Sequence[str]) -> None:
    """Refuses what looks like a key, a token or a password, without repeating it.

    Args:
      trainer_flags: the arguments of the trainer.
      environment: "NAME=VALUE" each.

    Raises:
      ConfigError: names the flag or the variable, not its value.
    """
    for position, argument in enumerate(trainer_flags, start=1):
        name, _, _ = argument.partition("=")
        # What is no flag may be the secret itself.
        shown = name if name.startswith("-") and not _SECRET_VALUE.search(name) else f"number {position}"
        _check(argument, name if name.startswith("-") else "", f"The trainer's argument {shown}")
    for position, pair in enumerate(environment, start=1):
        name, _, _ = pair.partition("=")
        shown = f"{name}=..." if not _SECRET_VALUE.search(name) else f"number {position}"
        _check(pair, name, f"config.environment: {shown}")


def _check(text: str, name: str, where: str) -> None:
    if is_secret_name(name) or _SECRET_VALUE.search(text):
        raise ConfigError(
            f"{where} looks like a secret (its value is not repeated here), and a job's description is readable by "
            "everyone who can see the job. Give the job rights through config.service_account instead, or let it "
            "read what it needs from Secret Manager."
        )


def is_secret_name(name: str) -> bool:
    """Whether a flag's or variable's name says that its value is a secret, as HF_TOKEN or --dbPassword does."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    return bool(_SECRET_WORDS & set(words) or _SECRET_PAIRS & set(itertools.pairwise(words)))
