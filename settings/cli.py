"""How every entry point starts and ends: flags, logging, one paragraph and an exit code for an error."""

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from settings.errors import ConfigError, UserError

_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show the traceback of an error, for a bug report.")


def run(main: Callable[[], int | None], *, default_config: str = "") -> None:
    """Parses the command line, then exits with what `main` returns.

    A `UserError` becomes one paragraph on stderr and its exit code; with --traceback it is raised.

    Args:
      main: the entry point.
      default_config: the config file where the command line has no --config. As that flag's own default it
        would be loaded, with every override, before anything could catch what is wrong with them.
    """
    if default_config and not any(argument.split("=")[0] in ("--config", "-config") for argument in sys.argv):
        sys.argv.insert(1, f"--config={default_config}")
    # TensorFlow logs through absl too, and what it reports as INFO is of no use to who trains.
    logging.set_verbosity(logging.WARNING)
    app.run(lambda _: _guarded(main), flags_parser=_parse)


def load_config() -> ConfigDict:
    """The value of the flag --config, its fields not checked yet.

    Raises:
      ConfigError: the file cannot be loaded.
    """
    config = flags.FLAGS.config
    try:
        config.to_dict()
    except OSError as error:  # ml_collections raises it on the first look into a config that did not load.
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        raise ConfigError(
            f"--config={path} cannot be loaded: {str(error).strip().splitlines()[-1].strip()}."
        ) from error
    return config


def build_console(*, quiet: bool = False) -> Console:
    """Where output for people goes: ids and titles as they are, and lines never cut where there is no terminal."""
    options: dict[str, Any] = {"quiet": quiet, "highlight": False, "markup": False, "emoji": False}
    console = Console(**options)
    return console if console.is_terminal else Console(**options, width=1000)


def _parse(arguments: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(list(arguments))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        _fail(ConfigError(_command_line_error(error, arguments)))
    if len(rest) > 1:
        _fail(ConfigError(f"{rest[1]!r} is not a flag: every argument is --name=value. --help lists them."))
    return rest


def _guarded(main: Callable[[], int | None]) -> int | None:
    try:
        return main()
    except UserError as error:
        if _TRACEBACK.value:
            raise
        _fail(error)
    except KeyboardInterrupt:
        print("Interrupted. What was saved before is whole; the same command goes on from there.", file=sys.stderr)
        return 130
    except Exception as error:
        # By name, since not every entry point has to wait for TensorFlow's import.
        if type(error).__name__ != "ResourceExhaustedError" or _TRACEBACK.value:
            raise
        _fail(
            UserError(
                "The memory of the device is exhausted. Lower config.train.global_batch_size, config.list_size or "
                "config.train.steps_per_execution, or config.eval.num_catalogue_users if it was the final evaluation."
            )
        )


def _fail(error: UserError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def _command_line_error(error: Exception, arguments: Sequence[str]) -> str:
    """What absl or ml_collections says, as one sentence, with the way out."""
    message = str(error.args[0] if error.args else error).strip()
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename} is not a config: line {error.lineno}, {error.msg}."
    if isinstance(error, AttributeError | KeyError):  # ml_collections names only the last part of the field.
        fields = [argument.lstrip("-").split("=")[0] for argument in arguments if "-config." in argument]
        unknown = next((field for field in fields if any(part in message for part in field.split(".")[1:])), message)
        meant = re.search(r'Did you mean "(\w+)"', message)
        message = f"{unknown} is not a field" + (f"; did you mean {meant[1]}?" if meant else ".")
        return f"{message} configs/default.py lists and explains all there are."
    return f"{message.splitlines()[0].rstrip('.')}. --help lists the flags."
