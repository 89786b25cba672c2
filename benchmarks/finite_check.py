"""Measures what it costs to check the loss and the gradients of each step before the update.

    python -m benchmarks.finite_check [--data_dir=DIR] [--seconds=60]

It takes the steps of the tutorial's job without metrics, on one device and on two. On a machine without GPUs the two
devices are parts of the same CPU. A process trains with the check and without it, an epoch of each in turn, so that a
slow minute of the machine or an unlucky placement of threads hits both. All numbers are medians over the epochs.

It takes three minutes on 2 CPU cores.
"""

import pathlib
import statistics
import time
from collections.abc import Mapping
from typing import Any

from absl import flags

from benchmarks import harness
from benchmarks.config import movielens, tutorial_config
from benchmarks.training import Training, build_training
from settings import cli
from trainer.compat import tf
from trainer.strategy import build_strategy
from trainer.training import divergence


def measure(values: Mapping[str, Any], *, num_devices: int, seconds: float) -> dict[str, list[float]]:
    """The wall and CPU seconds of a step, without the check and with it."""
    strategy = build_strategy("mirrored" if num_devices > 1 else "default", num_cpu_devices=num_devices)

    def warm() -> tuple[Training, Any]:
        training = build_training(tutorial_config(values), strategy=strategy)
        superbatch = next(training.superbatches())
        training.take_steps(superbatch)
        return training, superbatch

    checked = warm()
    # What has been traced does not change any more.
    divergence.health = lambda loss, gradients: tf.zeros([2])
    divergence.mark = lambda health, gradients: gradients
    divergence.is_usable = lambda gradients: tf.constant(True)
    divergence.zeros_unless = lambda is_usable, gradients, in_xla: gradients
    sides = {"without": warm(), "with": checked}

    found: dict[str, list[float]] = {f"{clock} {side}": [] for clock in ("wall", "cpu") for side in sides}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for side, (training, superbatch) in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            training.take_steps(superbatch)
            found[f"wall {side}"].append((time.perf_counter() - wall) / training.steps_per_execution)
            found[f"cpu {side}"].append((time.process_time() - cpu) / training.steps_per_execution)
    return found


def main() -> int:
    """Prints the table."""
    values = movielens(str(pathlib.Path(flags.FLAGS.data_dir).resolve()) if flags.FLAGS.data_dir else "")
    rows, results = [], []
    for num_devices in (1, 2):
        outcome = harness.run_side(
            "benchmarks.finite_check:measure", values=values, num_devices=num_devices, seconds=flags.FLAGS.seconds
        )
        found = {name: statistics.median(of_epochs) for name, of_epochs in outcome.value.items()}
        ratios = [found[f"{clock} with"] / found[f"{clock} without"] for clock in ("wall", "cpu")]
        milliseconds = [f"{1000 * found[f'wall {side}']:.3f}" for side in ("without", "with")]
        rows.append((str(num_devices), *milliseconds, *(f"{ratio:.2f}" for ratio in ratios)))
        results.append({"devices": num_devices, **found})
    columns = ("devices", "ms without", "ms with", "times the wall time", "times the CPU time")
    harness.report("finite_check", columns, rows, sides=results)
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", "", "The folder of MovieLens 100K of TensorFlow Datasets. Empty: embedded ratings.")
    flags.DEFINE_integer("seconds", 60, "How long each number of devices is measured.", lower_bound=1)
    cli.run(main)
