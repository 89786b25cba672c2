"""Reads the launcher's flags and those of the trainer that a job depends on.

The trainer is not imported: these are its flags, and its config file, read the way it reads them.
"""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import default
from settings.errors import ConfigError

_CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"

# What absl and ml_collections raise at a flag, a field or a config file that cannot be used.
_UNUSABLE = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError, ImportError)


@dataclass(frozen=True)
class TrainerFlags:
    """The flags that decide where a run can train, and its config with all overrides."""

    strategy: str
    workdir: str
    config: ConfigDict


def parse(
    values: flags.FlagValues, arguments: Sequence[str], *, default_config: str, known_only: bool = False
) -> list[str]:
    """Adds --config to `values`, and parses `arguments` into them; returns those that are no flags.

    Args:
      default_config: the config file where the arguments name none, as a path within configs/.

    Raises:
      ConfigError: what of the command line or the config cannot be used.
    """
    arguments = list(arguments)
    # As the flag's own default it would be loaded, with every override, before anything could catch an error.
    if not any(argument.split("=")[0] in ("--config", "-config") for argument in arguments):
        arguments.insert(0, f"--config={_CONFIGS / default_config}")
    # By itself ml_collections looks for overrides in all of sys.argv, where two programs' flags stand.
    config_flags.DEFINE_config_file("config", None, "Its file.", flag_values=values, sys_argv=["", *arguments])
    try:
        rest = values(["", *arguments], known_only=known_only)[1:]
        # A config that did not load says so only when it is looked into.
        values.config.to_dict()
    except _UNUSABLE as error:
        raise ConfigError(_reason(error)) from error
    return list(rest)


def _reason(error: Exception) -> str:
    """What absl or ml_collections says, as one sentence or two."""
    cause = error.args[0] if error.args else error
    if isinstance(cause, KeyError):
        cause = cause.args[0]
    first, *others = (line.strip() for line in str(cause).strip().splitlines())
    if isinstance(error, OSError):
        return f"--config cannot be loaded: {(others or [first])[-1]}."
    if isinstance(error, AttributeError | KeyError):
        return " ".join([f"{first} is not a field of the config.", *others])
    return f"{first.rstrip('.')}."


def read_trainer_flags(arguments: Sequence[str]) -> TrainerFlags:
    """Reads the arguments of `trainer.main`.

    Raises:
      ConfigError: a flag or field has a value that cannot be used, or the config file cannot be loaded.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("strategy", "default", "", flag_values=values)
    flags.DEFINE_string("workdir", "", "", flag_values=values)
    try:
        parse(values, arguments, default_config="default.py", known_only=True)
    except ConfigError as error:
        raise ConfigError(
            f"The trainer would end at its flags, which follow the `--`: {error} configs/default.py lists and explains "
            "its fields."
        ) from error
    missing = set(default.get_config()) - set(values.config)
    if missing:
        raise ConfigError(
            f"The trainer's config has no {min(missing)}: after the `--` stands a config of the trainer, such as "
            "configs/movielens_100k.py, before it one of configs/launch."
        )
    return TrainerFlags(values.strategy, values.workdir, values.config)
