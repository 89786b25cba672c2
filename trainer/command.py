"""The command `listwise`, which an installation of the package has: `listwise train` is `python -m trainer.main`."""

import difflib
import runpy
import sys

from settings.cli import report_errors
from settings.errors import ConfigError

COMMANDS = {
    "train": "trainer.main",
    "evaluate": "trainer.evaluate",
    "compare": "trainer.compare",
    "report": "trainer.report",
    "recommend": "trainer.recommend",
    "export": "trainer.export",
    "tune": "trainer.tune",
    "prepare": "trainer.prepare",
    "doctor": "trainer.doctor",
}
"""The first word after `listwise` → the module that is run."""

_USAGE = "\n".join(
    [
        "listwise COMMAND [flags]",
        "",
        *(f"  {name:10} python -m {module}" for name, module in COMMANDS.items()),
        "",
        "`listwise COMMAND --help` explains a command.",
    ]
)


def main() -> int:
    """Runs the command that the command line names, and returns its exit code."""
    if {"-h", "--help"} & set(sys.argv[1:2]):
        print(_USAGE)
        return 0
    return report_errors(_run) or 0


def _run() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"{name!r} is not a command.{hint} Write listwise and one of {', '.join(COMMANDS)}.")
    del sys.argv[1]
    runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)
