"""Checks a config file before its fields are read, so that whatever is wrong with it is one sentence."""

import os
import runpy
import traceback

from ml_collections import ConfigDict

from settings.errors import ConfigError, StorageError
from settings.special_files import check_is_no_special_file


def check_config_file(value: str) -> None:
    """Runs a config file and checks that `get_config` returns a config.

    Args:
      value: the value of --config: a path, or PATH:ARGUMENT for a `get_config` with an argument.

    Raises:
      ConfigError: the file cannot be read or run, or it returns something else.
    """
    path, has_argument, argument = value.partition(".py:")
    path += ".py" * bool(has_argument)
    try:
        check_is_no_special_file(path)
        if os.path.isdir(path):
            raise ConfigError(f"--config={path} cannot be loaded: it is a folder. Set it to a file in it.")
        # It may not end the program, so not even SystemExit may leave.
        get_config = runpy.run_path(path).get("get_config")
        if not callable(get_config):
            raise ConfigError(
                f"--config={path} is not a config: it has no function get_config. configs/default.py is an example."
            )
        config = get_config(argument) if has_argument else get_config()
    except ConfigError:
        raise
    except StorageError as error:
        raise ConfigError(f"--config={path} cannot be loaded: {error}") from error
    except SyntaxError as error:
        raise ConfigError(f"--config={path} is not a config: line {error.lineno}, {error.msg}.") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--config={path} cannot be loaded: {_described(error, path)}.") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"--config={path} is not a config: its get_config returned {type(config).__name__} instead of a ConfigDict "
            "of ml_collections. configs/default.py is an example."
        )


def _described(error: BaseException, path: str) -> str:
    """What the file did, and in which of its lines."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, OSError) and error.filename in (path, os.path.abspath(path)):
        return str(error.strerror)
    what = "it ends the program" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
    what = " ".join(what.split()).rstrip(".")
    return f"line {lines[-1]}, {what}" if lines else what
