"""Calls a command in this process as `python -m` would, and finds what it has written."""

import contextlib
import copy
import hashlib
import io
import os
import pathlib
import runpy
import signal
import stat
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from logging import getLogger

from absl import flags, logging
from absl.testing import flagsaver

import settings.cli  # noqa: F401  Its flag is one of those that stay.

_ROOT_LOGGER = getLogger()

_KEPT = ("absl.", "settings.cli")
"""The modules whose flags stay. Each command defines its own ones, some with the names of others."""


@dataclass(frozen=True)
class Answer:
    """What a command left behind: its exit code and what it printed."""

    exit_code: int
    stdout: str
    stderr: str


def call(command: str, *arguments: str, seconds: int = 60) -> Answer:
    """Runs `python -m COMMAND ARGUMENTS` in this process.

    Raises:
      TimeoutError: it took longer than the limit, so it hangs.
      BaseException: whatever it raises beside SystemExit, which is a traceback for the user.
    """
    stdout, stderr = io.StringIO(), io.StringIO()
    exit_code: object = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(_own_flags())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # runpy warns about modules that a test has imported.
        stack.enter_context(_arguments(command, *arguments))
        stack.enter_context(contextlib.redirect_stdout(stdout))
        stack.enter_context(contextlib.redirect_stderr(stderr))
        stack.enter_context(_limit(seconds))
        try:
            runpy.run_module(command, run_name="__main__")
        except SystemExit as end:
            exit_code = end.code
    return Answer(int(exit_code or 0), stdout.getvalue(), stderr.getvalue())  # type: ignore[call-overload]


def snapshot(folder: pathlib.Path) -> dict[str, str]:
    """What is below a folder: the path of each file → its kind, its time and its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        # Whoever asks for the lock writes its process id into it. Python keeps what it has compiled of a config file.
        if path.name == ".lock" or "__pycache__" in path.parts:
            continue
        facts = path.lstat()
        kind = stat.filemode(facts.st_mode)
        content = ""
        if stat.S_ISREG(facts.st_mode):
            content = f"{facts.st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        elif stat.S_ISLNK(facts.st_mode):
            content = os.readlink(path)
        found[str(path.relative_to(folder))] = f"{kind} {content}"
    return found


@contextlib.contextmanager
def _own_flags() -> Iterator[None]:
    """Hides the flags that the tests of this process have defined, and forgets those that the body defines."""
    verbosity, handlers = logging.get_verbosity(), [*_ROOT_LOGGER.handlers]
    values = flags.FLAGS.__dict__
    with flagsaver.flagsaver():
        before = {name: _copy(value) for name, value in values.items()}
        for module, of_module in flags.FLAGS.flags_by_module_dict().items():
            if not module.startswith(_KEPT):
                for flag in list(of_module):
                    if flag.name in flags.FLAGS:
                        delattr(flags.FLAGS, flag.name)
        try:
            yield
        finally:
            values.clear()
            values.update(before)
            logging.set_verbosity(verbosity)
            # A command sends what is logged to stderr.
            _ROOT_LOGGER.handlers[:] = handlers


def _copy(value: object) -> object:
    # absl keeps the flags of a module in a list, and takes those out that it forgets.
    if isinstance(value, dict):
        return {name: list(item) if isinstance(item, list) else item for name, item in value.items()}
    return copy.copy(value)


@contextlib.contextmanager
def _arguments(command: str, *arguments: str) -> Iterator[None]:
    before = sys.argv
    sys.argv = [command, *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def hangs(number: int, frame: object) -> None:
        raise TimeoutError(f"The command hangs: it has not ended within {seconds} s.")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
