"""Train with several workers on this machine, each in its own process.

python -m launch.local --num_workers=2 -- --workdir=runs/mine --config=configs/default.py
"""

import contextlib
import socket
import sys
from collections.abc import Sequence

from absl import flags

from launch import network
from launch.processes import GRACE_SECONDS, Outcome, Worker, run
from launch.trainer_flags import TrainerFlags, read_trainer_flags
from settings import cli
from settings.cluster import Cluster, format_tf_config
from settings.errors import ConfigError

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


def main(trainer_flags: list[str]) -> int:
    """Trains with --num_workers processes and returns the exit code."""
    _check_network(_check_flags(trainer_flags))
    # absl uses the last value of a flag, so the same --strategy can be given twice.
    command = [sys.executable, "-m", "trainer.main", f"--strategy={_STRATEGY}", *trainer_flags]
    return train(command, _NUM_WORKERS.value, max_restarts=_MAX_RESTARTS.value, warn_of_ports=_SHARE_NETWORK.value)


def train(
    command: Sequence[str],
    num_workers: int,
    *,
    max_restarts: int = 0,
    warn_of_ports: bool = False,
    grace_seconds: float = GRACE_SECONDS,
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
            _say(f"{outcome.reason}. A restart would not help.")
            return outcome.exit_code
        if num_restarts == max_restarts:
            _say(f"{outcome.reason}. No restart of {max_restarts} is left.")
            return outcome.exit_code
        num_restarts += 1
        _say(f"{outcome.reason}. Restart {num_restarts} of {max_restarts}.")


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
            f"{reason} needs a network, but launch.local gives its workers one that ends at this machine. {danger}"
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
