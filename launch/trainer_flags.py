"""Reads and checks the trainer's flags that a launcher depends on, without importing the trainer."""

import copy
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import default
from settings import cli
from settings.errors import ConfigError
from settings.trainer_config import DEFAULTS_FILE, TrainerConfig, load_trainer_config
from settings.trainer_flags import define_trainer_flags

# Their flags are flags of every command, such as --verbosity and --traceback.
_MODULES_OF_EVERY_COMMAND = ("absl.app", "absl.logging", "settings.cli")


@dataclass(frozen=True)
class TrainerFlags:
    """The flags that decide where a run can train, and its checked config.

    Attributes:
      config_file: The value of --config, or None: then the trainer uses configs/default.py.
      config_dict: The same config, to try other values of its fields.
    """

    strategy: str
    workdir: str
    config_file: str | None
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
    with_config = cli.with_default_config(arguments, str(pathlib.Path(default.__file__)))
    values = flags.FlagValues()
    define_trainer_flags(values)
    values.set_default("strategy", default_strategy)
    # By default ml_collections looks for overrides in sys.argv, which also has the launcher's flags.
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=["", *with_config])
    _add_flags_of_every_command(values)
    try:
        rest = cli.parse_flags(
            values, with_config, defaults_file=DEFAULTS_FILE, help_command="`python -m trainer.main --help`"
        )
        if rest:
            raise ConfigError(f"{rest[0]!r} is not a flag. Write each argument as --name=value.")
        config_dict = values.config
        config = load_trainer_config(config_dict)
    except ConfigError as error:
        raise ConfigError(f"In the trainer's flags, which follow --: {error}") from error
    config_file = None if with_config != list(arguments) else config_flags.get_config_filename(values["config"])
    return TrainerFlags(values.strategy, values.workdir or "", config_file, config, config_dict)


def _add_flags_of_every_command(values: flags.FlagValues) -> None:
    flags_of = flags.FLAGS.flags_by_module_dict()
    for module in _MODULES_OF_EVERY_COMMAND:
        for flag in flags_of.get(module, ()):
            # --help would end the launcher as soon as it is parsed.
            if not flag.name.startswith("help"):
                # A copy, because parsing changes a flag, and this process has the original.
                values[flag.name] = copy.deepcopy(flag)
