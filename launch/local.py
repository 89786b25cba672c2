"""Several workers on this machine, each a process of its own, as if each had a machine to itself.

python -m launch.local --num_workers=2 -- --workdir=runs/mine --config=configs/default.py
"""

import contextlib
import itertools
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from absl import flags

from launch import cli
from settings.cluster import Cluster, format_tf_config
from settings.errors import ConfigError

_NUM_WORKERS = flags.DEFINE_integer("num_workers", 2, "How many processes train together.", 1)

_STRATEGY = "multi_worker_mirrored"
# Long enough to save a checkpoint. What hangs in a collective op takes no notice of SIGTERM at all.
_GRACE_SECONDS = 20.0
# How long it takes at most to see that a worker has ended.
_POLL_SECONDS = 0.1
_COLOURS = (36, 33, 35, 32, 34, 31)

# Reads "+GROUP" and "-GROUP" lines, and when they end, as they do if the launcher is killed, kills what is left.
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
      name: stands before each line of its output.
      command: the program and its arguments.
      environment: is added to the launcher's own.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
      exit_code: of the worker that failed first, or 128 + the signal that ended the launcher, or 0.
      failed: which worker failed first, by its place; None where none did.
    """

    exit_code: int
    failed: int | None = None


def main(trainer_flags: list[str]) -> int:
    """Trains with --num_workers processes, and returns the exit code."""
    _check_strategy(trainer_flags)
    # Absl takes a flag's last value, so a --strategy that says the same does no harm.
    command = [sys.executable, "-m", "trainer.main", f"--strategy={_STRATEGY}", *trainer_flags]
    return train(command, _NUM_WORKERS.value)


def train(command: Sequence[str], num_workers: int, *, grace_seconds: float = _GRACE_SECONDS) -> int:
    """Starts the command once for each worker of a cluster on loopback, and waits until all have ended.

    A port is free when it is chosen, but TensorFlow takes it only seconds later. Where somebody else has it by
    then, all are started once more, on other ports.

    Args:
      command: how each worker is started; TF_CONFIG in its environment says which it is.
      grace_seconds: as of `run`.

    Returns:
      The exit code, as of `Outcome`.
    """
    ports, outcome = _train_once(command, num_workers, grace_seconds)
    if outcome.failed is not None and _is_taken(ports[outcome.failed]):
        print(f"launch | Port {ports[outcome.failed]} was taken by another program. Starting again on others.")
        _, outcome = _train_once(command, num_workers, grace_seconds)
    return outcome.exit_code


def run(workers: Sequence[Worker], *, grace_seconds: float = _GRACE_SECONDS) -> Outcome:
    """Starts the workers, prints their lines as they come, and returns once all of them have ended.

    When one fails, or a signal asks the launcher to end, the others get SIGTERM, and `grace_seconds` later, or at
    a second signal, SIGKILL. No process that a worker started outlives it, nor any worker the launcher.
    """
    log = _MergedLog([worker.name for worker in workers])
    processes: list[subprocess.Popen[str]] = []
    # Should something be raised here, as it is when nobody reads the log any more, the guard ends them all.
    with _noted_signals() as signals, _guard() as guard:
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
                # Once the others were asked to end, that they fail is no news.
                if processes[index].returncode and failed is None and deadline is None:
                    failed = index
        if deadline is None and (signals or failed is not None):
            deadline = time.monotonic() + grace_seconds
            why = signals[0].name if failed is None else f"{workers[failed].name} failed ({_code(processes[failed])})"
            log.print_line("launch", f"{why}: ending {len(running)} of {len(workers)} workers.")
            for index in running:
                _signal_group(processes[index], signal.SIGTERM)
        elif deadline is not None and (time.monotonic() > deadline or len(signals) > 1):
            for index in running:
                _signal_group(processes[index], signal.SIGKILL)
    if failed is not None:
        return Outcome(_code(processes[failed]), failed)
    return Outcome(128 + signals[0] if signals and any(process.returncode for process in processes) else 0)


class _MergedLog:
    """Prints the lines of several processes, each with its process's name before it."""

    def __init__(self, names: Sequence[str]) -> None:
        width = max(map(len, [*names, "launch"]))
        colours = dict(zip(names, itertools.cycle(_COLOURS))) if sys.stdout.isatty() else {}
        self._prefixes = {
            name: f"\x1b[{colours[name]}m{name:<{width}} |\x1b[0m " if name in colours else f"{name:<{width}} | "
            for name in [*names, "launch"]
        }
        # Bounded: a worker waits when its lines cannot be printed as fast.
        self._lines: queue.Queue[tuple[str, str]] = queue.Queue(maxsize=1000)
        self._readers: list[threading.Thread] = []

    def follow(self, name: str, process: subprocess.Popen[str]) -> None:
        """From now on, takes what the process prints."""
        self._readers.append(threading.Thread(target=self._read, args=[name, process], daemon=True))
        self._readers[-1].start()

    def print_line(self, name: str, line: str) -> None:
        print(self._prefixes[name] + line.rstrip("\r\n"), flush=True)

    def print_next(self) -> bool:
        """Prints one line, if one comes within a moment."""
        try:
            self.print_line(*self._lines.get(timeout=_POLL_SECONDS))
        except queue.Empty:
            return False
        return True

    def print_rest(self) -> None:
        """Prints what is left of processes that have ended."""
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
        # Python holds back what it prints into a pipe, and a log is to be read as it comes.
        env={**os.environ, "PYTHONUNBUFFERED": "1", **worker.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        # A process group of its own: Ctrl-C reaches the launcher alone, which passes it on as SIGTERM.
        start_new_session=True,
    )
    guard.write(f"+{process.pid}\n")
    guard.flush()
    return process


def _forget(process: subprocess.Popen[str], guard: IO[str]) -> None:
    """Ends what a worker that has ended left behind; after that its number may become another's."""
    _signal_group(process, signal.SIGKILL)
    guard.write(f"-{process.pid}\n")
    guard.flush()


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _code(process: subprocess.Popen[str]) -> int:
    """A process's exit code as a shell reports it: 128 + the signal, if one ended it."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


@contextlib.contextmanager
def _guard() -> Iterator[IO[str]]:
    """Starts the process that ends the workers if the launcher cannot; yields where to tell it of them."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUARD], stdin=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdin
        yield process.stdin


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[signal.Signals]]:
    """Yields a list that takes the signals which ask to end, in place of what they would do."""
    signals: list[signal.Signals] = []
    kept = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` and a shell's background jobs ignore some, and so do we.
        if signal.getsignal(number) != signal.SIG_IGN:
            kept[number] = signal.signal(number, lambda number, _: signals.append(signal.Signals(number)))
    try:
        yield signals
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _train_once(command: Sequence[str], num_workers: int, grace_seconds: float) -> tuple[list[int], Outcome]:
    ports = _free_ports(num_workers)
    cluster = Cluster({"worker": [f"127.0.0.1:{port}" for port in ports]})
    workers = [Worker(str(task), command, {"TF_CONFIG": format_tf_config(cluster, task)}) for task in cluster.tasks]
    return ports, run(workers, grace_seconds=grace_seconds)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as held:
        # Held until all are known, or the same one might come twice. On every interface, as TensorFlow takes them.
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        # Or connections of the workers themselves, ended a moment ago, would count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


def _check_strategy(trainer_flags: Sequence[str]) -> None:
    for flag, following in itertools.zip_longest(trainer_flags, trainer_flags[1:], fillvalue=""):
        name, _, value = flag.partition("=")
        value = value or following
        if name.lstrip("-") == "strategy" and value != _STRATEGY:
            raise ConfigError(
                f"--strategy={value} trains in one process, and only --strategy={_STRATEGY} joins the workers that "
                "launch.local starts: leave --strategy out, or start `python -m trainer.main` itself."
            )


if __name__ == "__main__":
    cli.run(main)
