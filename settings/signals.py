"""SIGTERM and Ctrl-C: how they stop a command, wherever it is.

A signal raises `Stopped` in the main thread, so that `finally` blocks remove what is half-written. Where work has to
end well first, as a training call and a save, the signal is only remembered. A second signal ends the process at once.
"""

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from typing_extensions import Self

from settings.errors import Stopped

HANDLED = (signal.SIGTERM, signal.SIGINT)

_MESSAGE = "Stopped by {}. No file is half-written, and the same command can be run again."


class Listener:
    """Handles SIGTERM and Ctrl-C in the body of a `with`: by default, they raise `Stopped` there.

    An error or a success of the body after `Stopped` was raised becomes `Stopped` again, because a library in between
    can catch it. Listeners can be nested; the innermost one handles a signal.

    Python handles signals in the main thread only. In another thread this class does nothing. A signal that is ignored,
    as in the background jobs of a shell, stays ignored.

    Attributes:
      arrived: the first signal; None before.
    """

    def __init__(self, message: str = _MESSAGE, *, holds: bool = False, is_first: bool = False):
        """Does nothing yet.

        Args:
          message: that of `Stopped`, with {} for the name of the signal.
          holds: remember a signal in `arrived`, and raise `Stopped` at the end of the body only.
          is_first: the process is a command, which has nothing else that handles a second signal.
        """
        self.arrived: signal.Signals | None = None
        self._message = message
        self._holds = holds
        self._is_first = is_first
        self._is_raised = False
        self._outer: Listener | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._of_second_signal: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in HANDLED:
            handler = signal.getsignal(number)
            # None: it was not installed from Python, and could not be restored.
            if handler in (signal.SIG_IGN, None):
                continue
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, Listener):
                self._outer = outer
                self._of_second_signal[number] = outer._of_second_signal[number]
            else:
                self._of_second_signal[number] = _end_at_once() if self._is_first else handler
            self._previous[number] = handler
            signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # After a signal, the next one ends the process until the outermost listener ends too.
        if self.arrived is None or self._outer is None:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
        if self.arrived is None or isinstance(error, Stopped | KeyboardInterrupt):
            return
        if error is None or self._is_raised:
            raise self._stopped() from error

    def _handle(self, number: int, frame: FrameType | None) -> None:
        for each in self._previous:
            signal.signal(each, self._of_second_signal[each])
        for listener in self._chain():
            listener.arrived = signal.Signals(number)
            listener._is_raised = not self._holds
        if not self._holds:
            raise self._stopped()

    def _chain(self) -> list["Listener"]:
        return [self, *(self._outer._chain() if self._outer else [])]

    def _stopped(self) -> Stopped:
        assert self.arrived is not None
        return stopped_by(self.arrived, self._message)


def stopped_by(number: signal.Signals, message: str) -> Stopped:
    """Returns the exception of a signal. `message` has {} for its name."""
    # As a shell reports a process that a signal has ended.
    return Stopped(message.format(number.name), exit_code=128 + number)


def listen_from_start(package: str, *, script: str = "") -> None:
    """Listens from the first import to the end of the process, if it is a command of `package`; else does nothing.

    Call it first of all in the `__init__` of the package. A command is started as `python -m PACKAGE.MODULE`, or as the
    script that the installation has made. `Stopped` that nothing else catches ends the process with its message.

    Args:
      package: a package at the top.
      script: the name of the script.
    """
    if _is_command(package, script):
        Listener(is_first=True).__enter__()
        sys.excepthook = _end_uncaught
        sys.unraisablehook = _end_unraisable


def _is_command(package: str, script: str) -> bool:
    arguments = getattr(sys, "argv", None) or [""]
    # While `python -m` imports the package, this stands for the module, whose name is in the original arguments.
    if arguments[0] == "-m":
        module = sys.orig_argv[-len(arguments)].removeprefix("-m")
        return module.partition(".")[0] == package
    return bool(script) and os.path.basename(arguments[0]) == script


def _end_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if not isinstance(error, Stopped):
        sys.__excepthook__(kind, error, traceback)
        return
    print(error, file=sys.stderr)
    raise SystemExit(error.exit_code)


def _end_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Ends the process at once if the signal arrived where nothing can be raised, as in `__del__`."""
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)
        return
    print(unraisable.exc_value, file=sys.stderr, flush=True)
    os._exit(unraisable.exc_value.exit_code)


def _end_at_once() -> Any:
    # The kernel does not end the first process of a container by a signal that it does not handle.
    return signal.SIG_DFL if os.getpid() != 1 else lambda number, frame: os._exit(128 + number)
