"""Measures how long saving a checkpoint holds training up, against a copy of it in memory and against waiting for it.

    python -m benchmarks.saving [--megabytes=100] [--update=dense]

A table is updated in steps that XLA compiles. A dense update writes all of it, a sparse one a few rows. Each number is
the median of some rounds, in milliseconds.

- copy: of the table, in memory.
- step: one training step.
- save: until `Checkpointer.save` returns.
- held up: how much later the steps after the save are done than without it, with `save` itself. While the checkpoint is
  written, the steps share the processor with the thread that writes.
- foreground: until the checkpoint is written, which is what a run would wait without the background.

It takes less than a minute on 2 CPU cores.
"""

import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable

from absl import flags

from benchmarks import harness
from settings import cli

_ROUNDS = 7
_ROW_SIZE = 64


def measure(megabytes: int, update: str) -> dict[str, float]:
    """The milliseconds of each part."""
    import numpy as np

    from trainer.compat import tf
    from trainer.training.checkpoint import Checkpointer

    num_rows = megabytes * 10**6 // (4 * _ROW_SIZE)
    table = tf.Variable(tf.random.stateless_normal([num_rows, _ROW_SIZE], (1, 2)))
    rows, values = tf.range(1000), tf.ones([1000, _ROW_SIZE])

    @tf.function(jit_compile=True, autograph=False)
    def step() -> tf.Tensor:
        if update == "dense":
            table.assign_add(tf.ones_like(table))
        else:
            table.scatter_add(tf.IndexedSlices(values, rows))
        return table[0, 0]

    numbers = itertools.count()

    def milliseconds(action: Callable[[], object]) -> float:
        started = time.perf_counter()
        action()
        return 1000 * (time.perf_counter() - started)

    def save() -> None:
        checkpointer.save(next(numbers), {})

    def save_and_wait() -> None:
        save()
        checkpointer.wait()

    def run_steps(count: int) -> None:
        for _ in range(count):
            step().numpy()

    run_steps(20)
    content = table.numpy()
    found: dict[str, list[float]] = {"copy": [], "step": [], "save": [], "held up": [], "foreground": []}
    with tempfile.TemporaryDirectory() as folder, Checkpointer(folder, {"model/table": table}, keep=1) as checkpointer:
        for _ in range(_ROUNDS):
            found["copy"].append(milliseconds(lambda: np.copy(content)))
            found["foreground"].append(milliseconds(save_and_wait))
            quiet = milliseconds(lambda: run_steps(20)) / 20
            found["step"].append(quiet)
            num_steps = math.ceil(3 * found["foreground"][-1] / quiet)
            started = time.perf_counter()
            found["save"].append(milliseconds(save))
            run_steps(num_steps)
            found["held up"].append(1000 * (time.perf_counter() - started) - num_steps * quiet)
            checkpointer.wait()
    return {name: statistics.median(each) for name, each in found.items()}


def main() -> int:
    """Prints the numbers."""
    outcome = harness.run_side("benchmarks.saving:measure", megabytes=flags.FLAGS.megabytes, update=flags.FLAGS.update)
    rows = [(name, f"{milliseconds:.1f}") for name, milliseconds in outcome.value.items()]
    harness.report("saving", ("what", "ms"), rows, **outcome.value)
    return 0


if __name__ == "__main__":
    flags.DEFINE_integer("megabytes", 100, "The size of the table.", lower_bound=1)
    flags.DEFINE_enum("update", "dense", ["dense", "sparse"], "Which rows a step updates: all, or 1,000.")
    cli.run(main)
