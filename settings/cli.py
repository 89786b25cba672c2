"""The start and the end of every command: listen to signals, parse flags, report an error or a bug."""

import importlib.metadata
import os
import platform
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging
from rich.console import Console

from settings import secrets
from settings.config_file import check_config_file
from settings.errors import BUG_EXIT_CODE, ConfigError, Stopped, UserError
from settings.signals import Listener
from settings.visible_text import visible

_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show the traceback of an error, for a bug report.")

# What absl and ml_collections raise for a flag or a field that cannot be used.
_FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError)


def run(main: Callable[[], int | None], *, default_config: str = "") -> None:
    """Parses the command line, calls `main`, and exits with its exit code. `report_errors` tells what an error does.

    Args:
      main: The command.
      default_config: The config file to load when the command line has no --config.
    """
    _run(lambda _: main(), _parse_command, default_config)


def run_on_arguments(main: Callable[[list[str]], int | None]) -> None:
    """Like `run`, for a command without a config that has positional arguments: `main` gets them."""
    _run(main, _parse_arguments)


def run_launcher(
    main: Callable[[list[str]], int],
    *,
    default_config: str = "",
    way_out: str = "Write the trainer's flags after --, as in "
    "`python -m launch.local --num_workers=2 -- --workdir=runs/mine`.",
) -> None:
    """Like `run`, for a command that passes the flags behind `--` to another program: `main` gets these flags.

    Args:
      main: The command.
      default_config: The config file to load when the command line has no --config; "" for none.
      way_out: A sentence for the error of an unknown flag: whose flags are written after --.
    """
    _run(main, lambda arguments: _parse_launcher(arguments, way_out), default_config)


def _run(
    main: Callable[[list[str]], int | None], parse: Callable[[Sequence[str]], list[str]], default_config: str = ""
) -> None:
    def command() -> None:
        sys.argv[1:] = with_default_config(sys.argv[1:], default_config)
        # TensorFlow logs through absl too. Its INFO messages do not help the user.
        logging.set_verbosity(logging.WARNING)
        app.run(lambda arguments: main(arguments[1:]), flags_parser=_with_help(parse))

    sys.exit(report_errors(command))


def report_errors(main: Callable[[], int | None]) -> int | None:
    """Calls `main` and returns its exit code.

    An error that the user can fix is printed as one paragraph on stderr, and with --traceback also where it was raised.
    A bug is printed with its traceback and with what a report of it needs. SIGTERM and Ctrl-C are one sentence.
    """
    try:
        with Listener():
            return main()
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output has gone. Python would flush the output once more at exit, and fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        known = _as_user_error(error)
        if known is None or _shows_traceback():
            print(secrets.mask("".join(traceback.format_exception(error))), file=sys.stderr)
        return _print_bug() if known is None else _print_error(known)


def _as_user_error(error: Exception) -> UserError | None:
    """The error that the user can fix; None for a bug."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError):
        return UserError(
            f"This machine is out of memory ({error or 'no size was given'}). Use a machine with more of it, or less "
            "data. In a training run, config.train.global_batch_size, config.list_size and "
            "config.eval.num_catalogue_users can also be lowered."
        )
    # Compared by name, because not every command imports TensorFlow.
    if type(error).__name__ == "ResourceExhaustedError":
        return UserError(
            "The device is out of memory. Lower config.train.global_batch_size, config.list_size or "
            "config.train.steps_per_execution. If it happened in the final evaluation, lower "
            "config.eval.num_catalogue_users."
        )
    return None


def with_default_config(arguments: Sequence[str], default_config: str) -> list[str]:
    """Puts --config in front of its overrides, or adds --config=`default_config` to arguments without it.

    ml_collections refuses an override such as --config.seed=1 in front of --config. As the default of the flag itself,
    the file would be loaded before any of its errors could be caught. What follows `--` is not read.
    """
    num_own = arguments.index("--") if "--" in arguments else len(arguments)
    own, passed_on = list(arguments[:num_own]), list(arguments[num_own:])
    position = _position_of_config(own)
    if position is None:
        return [*([f"--config={default_config}"] if default_config else []), *own, *passed_on]
    num_words = 1 if "=" in own[position] else 2
    config = own[position : position + num_words]
    return [*config, *own[:position], *own[position + num_words :], *passed_on]


def _position_of_config(arguments: Sequence[str]) -> int | None:
    names = ("--config", "-config")
    return next((i for i, argument in enumerate(arguments) if argument.split("=")[0] in names), None)


def _config_file(arguments: Sequence[str]) -> str | None:
    """The value of --config, also where it is an argument of its own."""
    position = _position_of_config(arguments)
    if position is None:
        return None
    return arguments[position].partition("=")[2] or next(iter(arguments[position + 1 : position + 2]), None)


def parse_flags(
    values: flags.FlagValues, arguments: Sequence[str], *, defaults_file: str, help_command: str = "--help"
) -> list[str]:
    """Parses `arguments` into `values` and returns the arguments that are not flags.

    Args:
      values: The flags. One of them can be a config flag.
      arguments: The command line without the name of the program.
      defaults_file: The file that documents the config fields. Error messages name it.
      help_command: What lists the flags, for error messages.

    Raises:
      ConfigError: A flag is unknown or has an invalid value, or a config field is unknown.
    """
    if config_file := _config_file(arguments):
        check_config_file(config_file)
    try:
        return list(values(["", *arguments])[1:])
    except _FLAG_ERRORS as error:
        raise ConfigError(_flag_error(error, arguments, defaults_file, help_command)) from error


def build_console(*, quiet: bool = False) -> Console:
    """Builds the console for messages. It prints markup as it is, and breaks no lines outside of a terminal."""
    options: dict[str, Any] = {"quiet": quiet, "highlight": False, "markup": False, "emoji": False}
    console = Console(**options)
    return console if console.is_terminal else Console(**options, width=1000)


def _parse_arguments(arguments: Sequence[str]) -> list[str]:
    return [arguments[0], *parse_flags(flags.FLAGS, arguments[1:], defaults_file="configs/default.py")]


def _parse_command(arguments: Sequence[str]) -> list[str]:
    program, *rest = _parse_arguments(arguments)
    if rest:
        raise ConfigError(f"{rest[0]!r} is not a flag. Write each argument as --name=value; --help lists the flags.")
    return [program]


def _parse_launcher(arguments: Sequence[str], way_out: str) -> list[str]:
    try:
        program, *rest = _parse_arguments(arguments)
    except ConfigError as error:
        raise ConfigError(f"{error} {way_out}") from error
    passed_on = list(arguments[arguments.index("--") + 1 :]) if "--" in arguments else []
    if rest != passed_on:
        raise ConfigError(f"{rest[0]!r} is not a flag. {way_out}")
    return [program, *passed_on]


def _with_help(parse: Callable[[Sequence[str]], list[str]]) -> Callable[[Sequence[str]], list[str]]:
    def parse_or_help(arguments: Sequence[str]) -> list[str]:
        # absl knows no -h.
        arguments = [arguments[0], *("--help" if argument == "-h" else argument for argument in arguments[1:])]
        try:
            return parse(arguments)
        except SystemExit as end:
            # absl prints the help, and then exits with 1.
            sys.exit(0 if _asks_for_help(arguments) else end.code)

    return parse_or_help


def _asks_for_help(arguments: Sequence[str]) -> bool:
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(argument.lstrip("-") in ("help", "?", "helpfull", "helpshort", "helpxml") for argument in own[1:])


def _shows_traceback() -> bool:
    # launch.vertex parses flags of its own instead of these.
    return bool(flags.FLAGS.is_parsed() and _TRACEBACK.value)


def _print_error(error: UserError) -> int:
    print(visible(secrets.mask(f"error: {error}")), file=sys.stderr)
    return error.exit_code


def _print_bug() -> int:
    print(
        f"error: This is a bug of Listwise. Please report it, with the lines above. Versions: {_versions()}. Command: "
        f"{_command_line(sys.orig_argv)}",
        file=sys.stderr,
    )
    return BUG_EXIT_CODE


def _versions() -> str:
    try:
        own = importlib.metadata.version("listwise")
    except importlib.metadata.PackageNotFoundError:
        own = "that is not installed"
    versions = {"listwise": own, "Python": platform.python_version()}
    # Not imported for this: not every command needs it.
    if version := getattr(sys.modules.get("tensorflow"), "__version__", ""):
        versions["TensorFlow"] = version
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _command_line(arguments: Sequence[str]) -> str:
    """The command that was started, for a shell, without secrets.

    Args:
      arguments: Those of the interpreter, as it was started.
    """
    begin = arguments.index("-m") if "-m" in arguments else 1
    return shlex.join(["python", *map(secrets.mask_argument, arguments[begin:])])


def _flag_error(error: Exception, arguments: Sequence[str], defaults_file: str, help_command: str) -> str:
    """Turns an error of absl or ml_collections into a sentence with the way out."""
    message = str(error.args[0] if error.args else error).strip()
    if isinstance(error, AttributeError | KeyError):  # ml_collections names only the last part of the field.
        fields = [argument.lstrip("-").split("=")[0] for argument in arguments if "-config." in argument]
        unknown = next((field for field in fields if any(part in message for part in field.split(".")[1:])), message)
        meant = re.search(r'Did you mean "(\w+)"', message)
        hint = f"; did you mean {meant[1]}?" if meant else "."
        return f"{unknown} is not a field{hint} {defaults_file} lists and explains all fields."
    if isinstance(error, flags.UnrecognizedFlagError):
        meant = re.search(r"Did you mean: (\w+)", message)
        hint = f"; did you mean --{meant[1]}?" if meant else "."
        return f"--{error.flagname} is not a flag{hint} {help_command} lists the flags."
    return f"{message.splitlines()[0].rstrip('.')}. {help_command} lists the flags."
