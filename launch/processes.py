"""Runs the processes of a job on this machine: one log, one end, and a reason for it."""

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from settings.errors import LostWorkerError

# Long enough to save a checkpoint. A worker that hangs in a collective operation does not react to SIGTERM.
GRACE_SECONDS = 20.0
# The longest time until the end of a worker is noticed.
_POLL_SECONDS = 0.1
# How a worker ends if it may work when it is started again. Other exit codes mean that a person has to act.
_TEMPORARY_CODE = LostWorkerError.exit_code
_CRASHES = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
# How a worker ends after the launcher's own signals.
_ENDED_BY_LAUNCHER = (-signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM)
_COLOURS = (36, 33, 35, 32, 34, 31)

# Reads lines "+GROUP" and "-GROUP". At the end of its input, also when the launcher is killed, it kills the groups.
_GUARD = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


@dataclass(frozen=True)
class Worker:
    """A process to start.

    Attributes:
      name: The prefix of each line of its output.
      command: The program and its arguments.
      environment: Variables in addition to the launcher's environment.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """How the workers ended.

    Attributes:
      exit_code: The exit code of the worker that failed first, or 128 + the signal that ended the launcher, or 0. A
        worker that only lost another one does not count if that one failed too.
      failed: The index of this worker, or None.
      reason: How it failed, in words.
      can_restart: Whether it may work when all workers are started again, and nobody asked the launcher to end.
    """

    exit_code: int
    failed: int | None = None
    reason: str = ""
    can_restart: bool = False


def run(workers: Sequence[Worker], *, grace_seconds: float = GRACE_SECONDS) -> Outcome:
    """Starts the workers, prints their output, and returns when all of them have ended.

    When a worker fails, or the launcher gets a signal, the other workers get SIGTERM. After `grace_seconds`, or at a
    second signal, they get SIGKILL. The processes that a worker started end with it, and the workers end with the
    launcher.
    """
    log = _MergedLog([worker.name for worker in workers])
    processes: list[subprocess.Popen[str]] = []
    # After an exception, such as a closed output, the guard ends all workers.
    with _collected_signals() as signals, _guard() as guard:
        for worker in workers:
            processes.append(_start(worker, guard))
            log.follow(worker.name, processes[-1])
        outcome = _wait(workers, processes, signals, log, guard, grace_seconds)
        log.print_rest()
    return outcome


def _wait(
    workers: Sequence[Worker],
    processes: Sequence[subprocess.Popen[str]],
    signals: Sequence[signal.Signals],
    log: "_MergedLog",
    guard: IO[str],
    grace_seconds: float,
) -> Outcome:
    running = set(range(len(workers)))
    failed = deadline = None
    while running:
        log.print_next()
        for index in sorted(running):
            if processes[index].poll() is not None:
                running.remove(index)
                _forget(processes[index], guard)
                code = processes[index].returncode
                if not code or (deadline is not None and code in _ENDED_BY_LAUNCHER):
                    continue
                # A worker that ends because it lost another one can be faster than that one, which is the reason.
                if deadline is None if failed is None else processes[failed].returncode == _TEMPORARY_CODE != code:
                    failed = index
        if deadline is None and (signals or failed is not None):
            deadline = time.monotonic() + grace_seconds
            why = signals[0].name if failed is None else _describe(workers[failed], processes[failed])
            log.print_line("launch", f"{why}: ending {len(running)} of {len(workers)} workers.")
            for index in running:
                _signal_group(processes[index], signal.SIGTERM)
        elif deadline is not None and (time.monotonic() > deadline or len(signals) > 1):
            for index in running:
                _signal_group(processes[index], signal.SIGKILL)
    if failed is not None:
        code = processes[failed].returncode
        can_restart = not signals and (code == _TEMPORARY_CODE or -code in _CRASHES)
        return Outcome(_code(processes[failed]), failed, _describe(workers[failed], processes[failed]), can_restart)
    return Outcome(128 + signals[0] if signals and any(process.returncode for process in processes) else 0)


def _describe(worker: Worker, process: subprocess.Popen[str]) -> str:
    if process.returncode < 0:
        return f"{worker.name} was killed ({signal.Signals(-process.returncode).name})"
    return f"{worker.name} failed ({process.returncode})"


class _MergedLog:
    """Prints the lines of several processes, each with the name of its process."""

    def __init__(self, names: Sequence[str]) -> None:
        width = max(map(len, [*names, "launch"]))
        colours = dict(zip(names, itertools.cycle(_COLOURS))) if sys.stdout.isatty() else {}
        self._prefixes = {
            name: f"\x1b[{colours[name]}m{name:<{width}} |\x1b[0m " if name in colours else f"{name:<{width}} | "
            for name in [*names, "launch"]
        }
        # Limited, so that a worker waits when its lines cannot be printed fast enough.
        self._lines: queue.Queue[tuple[str, str]] = queue.Queue(maxsize=1000)
        self._readers: list[threading.Thread] = []

    def follow(self, name: str, process: subprocess.Popen[str]) -> None:
        """Starts to collect the output of a process."""
        self._readers.append(threading.Thread(target=self._read, args=[name, process], daemon=True))
        self._readers[-1].start()

    def print_line(self, name: str, line: str) -> None:
        print(self._prefixes[name] + line.rstrip("\r\n"), flush=True)

    def print_next(self) -> bool:
        """Prints one line, and returns whether there was one."""
        try:
            self.print_line(*self._lines.get(timeout=_POLL_SECONDS))
        except queue.Empty:
            return False
        return True

    def print_rest(self) -> None:
        """Prints the rest of the output after all processes have ended."""
        while self.print_next() or any(reader.is_alive() for reader in self._readers):
            pass

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        with process.stdout:
            for line in process.stdout:
                self._lines.put((name, line))


def _start(worker: Worker, guard: IO[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        worker.command,
        # Python buffers its output to a pipe, but the log has to be printed at once.
        env={**os.environ, "PYTHONUNBUFFERED": "1", **worker.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        # Its own process group, so that Ctrl-C reaches only the launcher, which sends SIGTERM.
        start_new_session=True,
    )
    guard.write(f"+{process.pid}\n")
    guard.flush()
    return process


def _forget(process: subprocess.Popen[str], guard: IO[str]) -> None:
    """Ends the processes that an ended worker started. Afterwards its process id can be reused."""
    _signal_group(process, signal.SIGKILL)
    guard.write(f"-{process.pid}\n")
    guard.flush()


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _code(process: subprocess.Popen[str]) -> int:
    """Returns the exit code as a shell does: 128 + the signal that ended the process, if there was one."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


@contextlib.contextmanager
def _guard() -> Iterator[IO[str]]:
    """Starts the process that ends the workers if the launcher is killed. Yields its input."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUARD], stdin=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdin
        yield process.stdin


@contextlib.contextmanager
def _collected_signals() -> Iterator[list[signal.Signals]]:
    """Yields a list that collects the signals that would end the launcher."""
    signals: list[signal.Signals] = []
    kept = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Signals stay ignored under `nohup` and in background jobs of a shell.
        if signal.getsignal(number) != signal.SIG_IGN:
            kept[number] = signal.signal(number, lambda number, _: signals.append(signal.Signals(number)))
    try:
        yield signals
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
