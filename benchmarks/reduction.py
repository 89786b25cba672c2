"""Measures what it costs to sum the gradients of virtual replicas in a fixed order.

    python -m benchmarks.reduction [--data_dir=DIR] [--rounds=3]

Each side takes the steps of the tutorial's job without metrics, in a process of its own. The sides run in turn, and a
time is that of the fastest epoch of all rounds. On a machine without GPUs two devices are parts of the same CPU: they
show what it costs to exchange gradients, and not how much faster two devices are.

It takes about two minutes a round on 2 CPU cores.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from benchmarks import harness
from benchmarks.config import movielens, tutorial_config
from benchmarks.harness import time_repeatedly
from benchmarks.training import build_training
from settings import cli
from trainer.strategy import build_strategy

_SIDES = [(1, 0), (1, 1), (1, 2), (1, 4), (2, 0), (2, 2), (2, 4)]
"""Numbers of devices and of virtual replicas. Those without virtual replicas are what the others are compared with."""


def train(values: Mapping[str, Any], *, num_devices: int, num_virtual: int) -> float:
    """The seconds of a step."""
    strategy = build_strategy("mirrored" if num_devices > 1 else "default", num_cpu_devices=num_devices)
    training = build_training(tutorial_config(values), strategy=strategy, num_virtual=num_virtual)
    superbatch = next(training.superbatches())
    training.take_steps(superbatch)
    return time_repeatedly(lambda: training.take_steps(superbatch)) / training.steps_per_execution


def main() -> int:
    """Runs all sides in turn and prints the table."""
    values = movielens(str(pathlib.Path(flags.FLAGS.data_dir).resolve()) if flags.FLAGS.data_dir else "")
    seconds: dict[tuple[int, int], list[float]] = {side: [] for side in _SIDES}
    for _ in range(flags.FLAGS.rounds):
        for num_devices, num_virtual in _SIDES:
            outcome = harness.run_side(
                "benchmarks.reduction:train", values=values, num_devices=num_devices, num_virtual=num_virtual
            )
            seconds[num_devices, num_virtual].append(outcome.value)
    rows, results = [], []
    for (num_devices, num_virtual), of_rounds in seconds.items():
        second, reference = min(of_rounds), min(seconds[num_devices, 0])
        rows.append((str(num_devices), str(num_virtual or "none"), f"{1000 * second:.3f}", f"{second / reference:.2f}"))
        results.append({"devices": num_devices, "virtual_replicas": num_virtual, "milliseconds": 1000 * second})
    columns = ("devices", "virtual replicas", "ms per step", "times without")
    harness.report("reduction", columns, rows, rounds=flags.FLAGS.rounds, sides=results)
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", "", "The folder of MovieLens 100K of TensorFlow Datasets. Empty: embedded ratings.")
    flags.DEFINE_integer("rounds", 3, "How often each side runs.", lower_bound=1)
    cli.run(main)
