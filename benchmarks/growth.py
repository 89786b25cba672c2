"""Measures how the time and the memory of a training step grow with the catalogue, the batch and the lists.

    python -m benchmarks.growth [--sides=catalogue] [--num_items=1700,1000000] [--optimizers=adagrad]

Each row is one training of full lists of random items in a process of its own: embeddings of 64 numbers, no metrics.
One value grows within each group of rows. The time of the first row of a group, in the catalogue of the first row with
the same optimizer, is the unit of the column `times`. In the rows of the catalogue the lists keep their size, so what
grows is the tables.

Memory is the peak of the process above its memory before the model was built, as a multiple of the tables and the
slots of the optimizer. The smallest tables say nothing about it, because the code that XLA compiles is larger than
they are; below 256 MB it is left out.

The rows of candidates compare what a list is scored against: its own items (`rated`), 1,000 sampled items besides
(`sampled`), or all items (`catalogue`).

It takes about five minutes on 2 CPU cores, and 2 GB of memory. --num_items=1700,5000000 needs 6 GB.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from absl import flags

from benchmarks import counts, harness
from benchmarks.config import SYNTHETIC, tutorial_config
from settings import cli
from settings.errors import ConfigError

_NUM_USERS = 1000
_SIZE = 64
_STEPS = 20
"""The steps of a call: enough to hide what a call costs besides."""

_SMALL_TABLES = 256 << 20


@dataclass(frozen=True)
class Point:
    """A training whose step is measured."""

    num_items: int
    optimizer: str = "adagrad"
    candidates: str = "rated"
    batch_size: int = 32
    list_size: int = 100


def measure(point: Point) -> dict[str, Any]:
    """The seconds of a step, and the memory of the training, in bytes."""
    from benchmarks.planted import build_planted_dataset
    from benchmarks.training import build_training

    values = SYNTHETIC | {
        "optimizer.name": point.optimizer,
        "optimizer.learning_rate": 0.5 if "adagrad" in point.optimizer else 0.001,
        "candidates.method": point.candidates,
        "list_size": point.list_size,
        "train.global_batch_size": point.batch_size,
        "model.embedding_size": _SIZE,
        "history.size": 100,
    }
    dataset = build_planted_dataset(
        num_users=_NUM_USERS,
        num_items=point.num_items,
        list_size=point.list_size,
        history_size=0 if point.candidates == "rated" else 100,
    )
    before = harness.peak_bytes()
    training = build_training(tutorial_config(values), steps_per_execution=_STEPS, dataset=dataset)
    superbatch = next(training.superbatches())
    training.take_steps(superbatch)
    seconds = harness.time_repeatedly(lambda: training.take_steps(superbatch)) / _STEPS
    variables = [*training.learner.model.variables, *training.learner.optimizer.variables]
    state = sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)
    return {"seconds": seconds, "state_bytes": state, "peak_bytes": harness.peak_bytes() - before}


def build_points(num_items: list[int], optimizers: list[str]) -> dict[str, list[Point]]:
    """What is measured, by what grows in it."""
    first = Point(num_items[0], optimizers[0])
    middle = next((n for n in num_items if n > 10_000), num_items[-1])
    return {
        "catalogue": [Point(n, optimizer) for optimizer in optimizers for n in num_items],
        "candidates": [Point(middle, first.optimizer, candidates=name) for name in ("rated", "sampled", "catalogue")],
        "batch": [dataclasses.replace(first, batch_size=size) for size in (32, 128, 512)],
        "lists": [dataclasses.replace(first, list_size=size) for size in (20, 100, 500)],
    }


def main() -> int:
    """Measures all points and prints the table."""
    sides = build_points([int(n) for n in flags.FLAGS.num_items], flags.FLAGS.optimizers)
    if unknown := set(flags.FLAGS.sides) - sides.keys():
        raise ConfigError(f"--sides contains {unknown.pop()!r}, which is unknown. Use some of {', '.join(sides)}.")
    points = [(side, point) for side in flags.FLAGS.sides or sides for point in sides[side]]
    outcomes = [harness.run_side("benchmarks.growth:measure", point=point).value for _, point in points]
    units: dict[tuple[str, str], float] = {}
    for (side, point), outcome in zip(points, outcomes, strict=True):
        outcome["times"] = outcome["seconds"] / units.setdefault((side, point.optimizer), outcome["seconds"])
    rows = []
    for (side, point), outcome in zip(points, outcomes, strict=True):
        seconds, state = outcome["seconds"], outcome["state_bytes"]
        moved = counts.step_bytes(
            batch_size=point.batch_size,
            list_size=point.list_size,
            size=_SIZE,
            num_updated_rows=min(point.num_items, point.batch_size * point.list_size) + point.batch_size,
        )
        rows.append(
            (
                side,
                f"{point.num_items:,}",
                point.optimizer,
                point.candidates,
                f"{point.batch_size} × {point.list_size}",
                f"{1000 * seconds:.3f}",
                f"{outcome['times']:.2f}",
                f"{point.batch_size / seconds:,.0f}",
                f"{moved / seconds / 1e9:.1f}" if point.candidates == "rated" else "",
                f"{outcome['peak_bytes'] / state:.1f}" if state >= _SMALL_TABLES else "",
            )
        )
    columns = ("growth of", "items", "optimizer", "candidates", "batch × list", "ms per step", "times", "lists/s")
    results = [
        {"growth_of": side, **dataclasses.asdict(point), **outcome}
        for (side, point), outcome in zip(points, outcomes, strict=True)
    ]
    notes = [
        "GB/s counts what a step moves at the least, with an update of the rows of its batch alone "
        "(benchmarks/counts.py)."
    ]
    harness.report("growth", (*columns, "GB/s", "memory / (tables + slots)"), rows, notes=notes, points=results)
    return 0


if __name__ == "__main__":
    flags.DEFINE_list("num_items", ["1700", "27000", "200000", "1000000"], "The sizes of the catalogue.")
    flags.DEFINE_list("optimizers", ["adagrad", "lazy_adam"], "Of the catalogue. The other rows have the first one.")
    flags.DEFINE_list("sides", [], "Some of catalogue, candidates, batch, lists. Empty: all.")
    cli.run(main)
