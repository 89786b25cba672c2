"""Train with several workers on this machine, each in its own process.

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

from launch import network
from launch.trainer_flags import TrainerFlags, read_trainer_flags
from settings import cli
from settings.cluster import Cluster, format_tf_config
from settings.errors import ConfigError, LostWorkerError

_NUM_WORKERS = flags.DEFINE_integer("num_workers", 2, "The number of workers.", 1)
_MAX_RESTARTS = flags.DEFINE_integer(
    "max_restarts",
    0,
    "How often to start all workers again, from the last checkpoint, after one of them crashed, was killed or hung.",
    0,
)
_SHARE_NETWORK = flags.DEFINE_bool(
    "share_network",
    False,
    "Let the workers use the network of this machine, as gs:// paths and downloads need it. Every machine that can "
    "connect to this one can then control the workers, without a password.",
)

_STRATEGY = "multi_worker_mirrored"
# Long enough to save a checkpoint. A worker that hangs in a collective operation does not react to SIGTERM.
_GRACE_SECONDS = 20.0
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
      exit_code: The exit code of the worker that failed first, or 128 + the signal that ended the launcher, or 0.
      failed: The index of the worker that failed first, or None.
      reason: How this worker failed, in words.
      can_restart: Whether it may work when all workers are started again, and nobody asked the launcher to end.
    """

    exit_code: int
    failed: int | None = None
    reason: str = ""
    can_restart: bool = False


def main(trainer_flags: list[str]) -> int:
    """Trains with --num_workers processes and returns the exit code."""
    _check_network(_check_flags(trainer_flags))
    # absl uses the last value of a flag, so the same --strategy can be given twice.
    command = [sys.executable, "-m", "trainer.main", f"--strategy={_STRATEGY}", *trainer_flags]
    return train(
        command, _NUM_WORKERS.value, max_restarts=_MAX_RESTARTS.value, warn_of_ports=_SHARE_NETWORK.value
    )


def train(
    command: Sequence[str],
    num_workers: int,
    *,
    max_restarts: int = 0,
    warn_of_ports: bool = False,
    grace_seconds: float = _GRACE_SECONDS,
) -> int:
    """Starts the command once for each worker of a cluster on loopback, and waits until all have ended.

    If a worker fails for a reason that may be gone the next time, all workers are started again. They resume the run
    from its last checkpoint.

    A port is free when it is chosen, but TensorFlow opens it seconds later. If another program has it by then, all
    workers are started once more, with other ports. This does not count as a restart.

    Args:
      command: The command of each worker. TF_CONFIG in its environment tells the worker its index.
      num_workers: The number of workers.
      max_restarts: How often the workers are started again.
      warn_of_ports: Whether to say on which ports the workers listen.
      grace_seconds: The same as in `run`.

    Returns:
      The exit code, as in `Outcome`.
    """
    num_restarts, took_other_ports = 0, False
    while True:
        ports, outcome = _train_once(command, num_workers, grace_seconds, warn_of_ports)
        if outcome.failed is None:
            return outcome.exit_code
        if not took_other_ports and _is_taken(ports[outcome.failed]):
            took_other_ports = True
            _say(f"Another program took port {ports[outcome.failed]}. Starting again with other ports.")
            continue
        if not max_restarts:
            return outcome.exit_code
        if not outcome.can_restart:
            _say(f"{outcome.reason}, for which a restart is no help.")
            return outcome.exit_code
        if num_restarts == max_restarts:
            _say(f"{outcome.reason}. The restarts, {max_restarts}, are used up.")
            return outcome.exit_code
        num_restarts += 1
        _say(f"{outcome.reason}. Restart {num_restarts} of {max_restarts}.")


def run(workers: Sequence[Worker], *, grace_seconds: float = _GRACE_SECONDS) -> Outcome:
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
                if code and (deadline is None if failed is None else _explains(code, processes[failed].returncode)):
                    failed = index
        if deadline is None and (signals or failed is not None):
            deadline = time.monotonic() + grace_seconds
            why = signals[0].name if failed is None else _describe(failed, processes[failed])
            log.print_line("launch", f"{why}: ending {len(running)} of {len(workers)} workers.")
            for index in running:
                _signal_group(processes[index], signal.SIGTERM)
        elif deadline is not None and (time.monotonic() > deadline or len(signals) > 1):
            for index in running:
                _signal_group(processes[index], signal.SIGKILL)
    if failed is not None:
        code = processes[failed].returncode
        can_restart = not signals and (code == _TEMPORARY_CODE or -code in _CRASHES)
        return Outcome(_code(processes[failed]), failed, _describe(failed, processes[failed]), can_restart)
    return Outcome(128 + signals[0] if signals and any(process.returncode for process in processes) else 0)


def _explains(code: int, first: int) -> bool:
    """Whether a worker that ended with `code` is the reason why another one ended before, with the code `first`.

    A worker that ends because it lost another one can be faster than that one.
    """
    return first == _TEMPORARY_CODE and code != _TEMPORARY_CODE and code not in _ENDED_BY_LAUNCHER


def _describe(index: int, process: subprocess.Popen[str]) -> str:
    if process.returncode < 0:
        return f"worker {index} was killed ({signal.Signals(-process.returncode).name})"
    return f"worker {index} failed ({process.returncode})"


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


def _train_once(
    command: Sequence[str], num_workers: int, grace_seconds: float, warn_of_ports: bool
) -> tuple[list[int], Outcome]:
    ports = _free_ports(num_workers)
    if warn_of_ports:
        _say(
            f"WARNING: the workers listen on the ports {', '.join(map(str, ports))} of all network interfaces, and ask "
            "for no password. Whoever can connect can control them and read and write their files. Let a firewall "
            "block these ports for other machines."
        )
    cluster = Cluster({"worker": [f"127.0.0.1:{port}" for port in ports]})
    workers = [Worker(str(task), command, {"TF_CONFIG": format_tf_config(cluster, task)}) for task in cluster.tasks]
    return ports, run(workers, grace_seconds=grace_seconds)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as held:
        # Held until all are chosen, so that no port comes twice. TensorFlow listens on all interfaces.
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        # Without this option, closed connections of the workers would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


def _check_network(trainer_flags: TrainerFlags) -> None:
    """Gives this process and its workers a network of their own, unless --share_network allows this machine's.

    Raises:
      ConfigError: The run needs this machine's network, or this machine allows no other.
    """
    if _SHARE_NETWORK.value:
        return
    danger = (
        "On this machine's own network, TensorFlow's servers in the workers listen on all interfaces and ask for no "
        "password, so every machine that can connect to this one could control the workers. If no machine that you "
        "do not trust can connect, because of a firewall or a container, add --share_network before the --."
    )
    if reason := network.reason_to_share(trainer_flags):
        raise ConfigError(
            f"{reason} needs a network, but launch.local gives its workers a network that ends at this machine. {danger}"
        )
    try:
        network.leave()
    except OSError as error:
        raise ConfigError(
            f"launch.local gives its workers a network that ends at this machine, and this machine does not allow it "
            f"(network namespace: {error.strerror}). {danger}"
        ) from error


def _check_flags(trainer_flags: Sequence[str]) -> TrainerFlags:
    """Checks the trainer's flags once, so that not every worker prints the same error."""
    checked = read_trainer_flags(trainer_flags, default_strategy=_STRATEGY)
    strategy = checked.strategy
    if strategy != _STRATEGY:
        raise ConfigError(
            f"--strategy={strategy} trains in one process, but launch.local starts several workers with "
            f"--strategy={_STRATEGY}. Leave --strategy out, or run `python -m trainer.main` without launch.local."
        )
    return checked


def _say(line: str) -> None:
    print(f"launch | {line}", flush=True)


if __name__ == "__main__":
    cli.run_launcher(main)
