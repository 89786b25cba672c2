"""How every entry point starts and ends: flags, logging, one paragraph and an exit code for an error."""

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags, logging
from rich.console import Console

from trainer.errors import ConfigError, UserError

_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show the traceback of an error, for a bug report.")


def run(main: Callable[[], int | None]) -> None:
    """Parses the command line, then exits with what `main` returns.

    A `UserError` becomes one paragraph on stderr and its exit code; with --traceback it is raised.
    """
    # TensorFlow logs through absl too, and what it reports as INFO is of no use to who trains.
    logging.set_verbosity(logging.WARNING)
    app.run(lambda _: _guarded(main), flags_parser=_parse)


def build_console(*, quiet: bool = False) -> Console:
    """Where output for people goes: as wide as the terminal, and never cut where there is none."""
    console = Console(quiet=quiet, highlight=False)
    return console if console.is_terminal else Console(quiet=quiet, highlight=False, width=1000)


def _parse(arguments: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(list(arguments))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        _fail(ConfigError(_command_line_error(error)))
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
        print("Interrupted.", file=sys.stderr)
        return 130


def _fail(error: UserError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def _command_line_error(error: Exception) -> str:
    """The first sentence of what absl or ml_collections says, with the way out."""
    message = str(error.args[0] if error.args else error).strip()
    return f"{message.splitlines()[0].rstrip('.')}. --help lists the flags, configs/default.py the fields."
