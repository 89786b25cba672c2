"""Reads and checks the trainer's flags that a launcher depends on, without importing the trainer."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import default
from settings import cli
from settings.errors import ConfigError
from settings.trainer_config import DEFAULTS_FILE, STRATEGIES, TrainerConfig, load_trainer_config


@dataclass(frozen=True)
class TrainerFlags:
    """The flags that decide where a run can train, and its checked config.

    Attributes:
      config_dict: The same config, to try other values of its fields.
    """

    strategy: str
    workdir: str
    config: TrainerConfig
    config_dict: ConfigDict


def read_trainer_flags(arguments: Sequence[str], *, default_strategy: str = "default") -> TrainerFlags:
    """Reads and checks the arguments of `trainer.main`.

    Args:
      arguments: The command line without the name of the program.
      default_strategy: The strategy of arguments without --strategy.

    Raises:
      ConfigError: The trainer would refuse a flag or a field of its config.
    """
    arguments = cli.with_default_config(arguments, str(pathlib.Path(default.__file__)))
    values = flags.FlagValues()
    flags.DEFINE_enum("strategy", default_strategy, STRATEGIES, "", flag_values=values)
    flags.DEFINE_string("workdir", "", "", flag_values=values)
    # By default ml_collections looks for overrides in sys.argv, which also has the launcher's flags.
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=["", *arguments])
    try:
        cli.parse_flags(values, arguments, defaults_file=DEFAULTS_FILE, known_only=True)
        config_dict = cli.load_config(values)
        config = load_trainer_config(config_dict)
    except ConfigError as error:
        raise ConfigError(f"In the trainer's flags, which follow --: {error}") from error
    return TrainerFlags(values.strategy, values.workdir, config, config_dict)
