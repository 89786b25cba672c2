"""The command line: see the docstring of this package."""

import pathlib
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from absl import flags

from benchmarks import counts, harness
from benchmarks.config import movielens
from settings import cli
from settings.errors import ConfigError, DataError

OURS, OURS_MEASURED, FEED = "ours", "ours, NDCG and MRR", "ours, input pipeline alone"
TUTORIAL = "the tutorial, NDCG and MRR"


@dataclass(frozen=True)
class Side:
    """One row of the table.

    Attributes:
      group: what --sides selects it by.
      function: "module:function".
      arguments: of the function, besides the folder of the job.
      reference: the side of ours that it is compared with.
      packages: what has to be installed.
    """

    group: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reference: str = OURS
    packages: tuple[str, ...] = ()


def build_sides(values: Mapping[str, Any], data_dir: str) -> dict[str, Side]:
    """All sides by name. `values` are those of our config."""

    def ours(strategy_name: str, *, has_metrics: bool) -> Side:
        arguments = {"values": values, "strategy_name": strategy_name, "has_metrics": has_metrics}
        reference = OURS_MEASURED if has_metrics else OURS
        return Side("ours", "benchmarks.step.ours:train", arguments, reference)

    def c(*compiler_flags: str, touched_rows: bool = False) -> Side:
        return Side("c", "benchmarks.step.c:train", {"flags": compiler_flags, "touched_rows": touched_rows})

    def keras(steps_per_execution: int) -> Side:
        return Side("keras", "benchmarks.step.keras_fit:train", {"steps_per_execution": steps_per_execution})

    def torch(*, sparse: bool) -> Side:
        return Side("torch", "benchmarks.step.torch_eager:train", {"sparse": sparse}, packages=("torch",))

    fast = ("-O3", "-march=native", "-ffast-math")
    return {
        TUTORIAL: Side("tutorial", "benchmarks.step.tutorial:train", {"data_dir": data_dir}, OURS_MEASURED),
        OURS: ours("default", has_metrics=False),
        OURS_MEASURED: ours("default", has_metrics=True),
        "ours, mirrored": ours("mirrored", has_metrics=False),
        "ours, mirrored, NDCG and MRR": ours("mirrored", has_metrics=True),
        FEED: Side("ours", "benchmarks.step.ours:feed", {"values": values}),
        "Keras fit": keras(1),
        "Keras fit, steps_per_execution of an epoch": keras(0),
        "PyTorch eager": torch(sparse=False),
        "PyTorch eager, sparse gradients": torch(sparse=True),
        "JAX jit of a scan": Side("jax", "benchmarks.step.jax_scan:train", packages=("jax",)),
        "C -O3": c("-O3"),
        f"C {' '.join(fast)}": c(*fast),
        f"C {' '.join(fast)}, touched rows": c(*fast, touched_rows=True),
    }


def main() -> int:
    """Runs all sides in turn and prints the table."""
    data_dir = str(pathlib.Path(flags.FLAGS.data_dir).resolve()) if flags.FLAGS.data_dir else ""
    values = movielens(data_dir)
    sides, notes = choose_sides(build_sides(values, data_dir), flags.FLAGS.sides)
    rounds: list[dict[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        exported = harness.run_side("benchmarks.step.ours:export", folder=folder, values=values)
        for _ in range(flags.FLAGS.rounds):
            rounds.append(
                {
                    name: harness.run_side(side.function, folder=folder, **side.arguments).value
                    for name, side in sides.items()
                }
            )
            check_losses(rounds[-1])
    report(sides, rounds, exported.value, notes)
    return 0


def choose_sides(sides: dict[str, Side], groups: list[str]) -> tuple[dict[str, Side], list[str]]:
    """The sides of these groups that can run, ours always among them, and notes about the others.

    Raises:
      ConfigError: a group does not exist.
    """
    known = {side.group for side in sides.values()}
    if unknown := [group for group in groups if group not in known]:
        raise ConfigError(f"--sides contains {unknown[0]!r}, which is unknown. Use some of {', '.join(sorted(known))}.")
    chosen, notes = {}, []
    for name, side in sides.items():
        if groups and side.group not in groups and name not in (OURS, OURS_MEASURED):
            continue
        if reason := _why_not(side):
            notes.append(f"Left out: {name}, because {reason}")
        else:
            chosen[name] = side
    return chosen, notes


def _why_not(side: Side) -> str:
    """Why a side cannot run here. Empty if it can."""
    if side.group == "tutorial" and not side.arguments["data_dir"]:
        return "--data_dir is empty, and it trains on MovieLens 100K only."
    if side.group == "c" and not shutil.which("cc"):
        return "there is no C compiler `cc`. Install gcc or clang."
    return harness.why_not_installed(*side.packages)


def check_losses(values: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks that all sides computed the same, by the losses of two epochs.

    The fall of the loss is checked besides, because it is small compared with the loss.

    Raises:
      DataError: a side computed something else.
    """
    first, second = values[OURS]["losses"]
    for name, value in values.items():
        if "losses" not in value:
            continue
        of_first, of_second = value["losses"]
        is_loss_equal = max(abs(of_first / first - 1), abs(of_second / second - 1)) < 1e-3
        if not (is_loss_equal and abs((of_first - of_second) / (first - second) - 1) < 1e-2):
            raise DataError(
                f"{name} does not train the same model: its losses in two epochs are {of_first:.5f} and "
                f"{of_second:.5f}, and ours are {first:.5f} and {second:.5f}. There is nothing to compare."
            )


def report(
    sides: Mapping[str, Side], rounds: list[dict[str, dict[str, Any]]], sizes: Mapping[str, int], notes: list[str]
) -> None:
    """Prints the medians of the rounds."""
    per_step = {
        "batch_size": sizes["batch_size"],
        "list_size": sizes["list_size"],
        "size": sizes["size"],
        "num_updated_rows": sizes["num_queries"] + sizes["num_items"],
    }
    flops, moved = counts.step_flops(**per_step), counts.step_bytes(**per_step)
    rows, results = [], {}
    seconds_of = {
        name: [values[name]["seconds"] / values[name].get("num_steps", sizes["num_steps"]) for values in rounds]
        for name in sides
    }
    for name, side in sides.items():
        seconds = seconds_of[name]
        ratios = [theirs / our for theirs, our in zip(seconds, seconds_of[side.reference], strict=True)]
        second, ratio = statistics.median(seconds), statistics.median(ratios)
        lists_per_second = sizes["num_lists"] / sizes["num_steps"] / second
        is_step = name != FEED
        rows.append(
            (
                name,
                f"{1000 * second:.3f}",
                f"{ratio:.2f}",
                f"{lists_per_second:,.0f}",
                f"{flops / second / 1e9:.1f}" if is_step else "",
                f"{moved / second / 1e9:.1f}" if is_step else "",
            )
        )
        results[name] = {
            "milliseconds": 1000 * second,
            "times_ours": ratio,
            "reference": side.reference,
            "lists_per_second": lists_per_second,
            "milliseconds_of_rounds": [1000 * value for value in seconds],
            "losses": rounds[0][name].get("losses"),
            "device": rounds[0][name].get("device"),
        }
    notes = [
        *notes,
        f"Batches of {sizes['batch_size']} lists of {sizes['list_size']}, embeddings of {sizes['size']}, "
        f"{sizes['num_queries']:,} and {sizes['num_items']:,} rows; {flops / 1e6:.2f} MFLOP and {moved / 1e6:.2f} MB "
        "per step (benchmarks/counts.py). Sides with metrics are compared with ours with metrics.",
    ]
    devices = {name: values["device"] for name, values in results.items() if values["device"]}
    if len(set(devices.values())) > 1:
        on_cpu = [name for name, device in devices.items() if device == "CPU"]
        notes.append(f"On the CPU, where others use the GPU: {'; '.join(on_cpu)}.")
    columns = ("side", "ms per step", "times ours", "lists/s", "GFLOP/s", "GB/s")
    harness.report("step", columns, rows, notes=notes, rounds=len(rounds), sizes=dict(sizes), sides=results)


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", "", "The folder of MovieLens 100K of TensorFlow Datasets. Empty: embedded ratings.")
    flags.DEFINE_integer("rounds", 3, "How often each side runs.", lower_bound=1)
    flags.DEFINE_list("sides", [], "Some of tutorial, ours, keras, torch, jax, c. Empty: all.")
    cli.run(main)
