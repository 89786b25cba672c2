"""How every launcher starts and ends: flags, `--`, the trainer's flags; one paragraph and a code for an error."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from absl import app, flags

from settings.errors import ConfigError, UserError

_Result = TypeVar("_Result")


def run(main: Callable[[list[str]], int]) -> None:
    """Parses the command line, then exits with what `main` returns for the trainer's flags, those behind `--`.

    A `UserError` becomes one paragraph on stderr and its exit code.
    """
    app.run(lambda arguments: _guarded(lambda: main(arguments[1:])), flags_parser=_parse)


def _parse(arguments: Sequence[str]) -> list[str]:
    return _guarded(lambda: _parse_flags(arguments))


def _parse_flags(arguments: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(list(arguments))
    except flags.Error as error:
        raise ConfigError(
            f"{str(error).splitlines()[0].rstrip('.')}. --help lists the launcher's flags; the trainer's stand "
            "behind a lone --, as in `python -m launch.local --num_workers=2 -- --workdir=runs/mine`."
        ) from error
    trainer_flags = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    if rest[1:] != list(trainer_flags):
        raise ConfigError(f"{rest[1]!r} stands before --: the trainer's flags stand behind it.")
    return rest


def _guarded(function: Callable[[], _Result]) -> _Result:
    try:
        return function()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Who read the output is gone. Python would try to flush it once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
