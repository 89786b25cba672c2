"""Compares the training speed with that of the tutorial, on the tutorial's job, in one run.

    python -m benchmarks.tutorial --data_dir=DIR [--rounds=3]

Both sides train the same model on the same lists with the same batch size. Both measure NDCG and MRR on every training
batch. The sides run in turn, each in its own process. The tutorial's time excludes its first epoch, which traces. Our
time excludes the first call, which compiles, and the saving of checkpoints; it includes the input pipeline. Compare the
ratios: single times depend on the machine.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from absl import app, flags
from rich.console import Console
from rich.table import Table

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def tutorial_milliseconds(data_dir: str) -> float:
    """Milliseconds a step of the tutorial as its author wrote it."""
    output = run_module("benchmarks.tutorial_baseline", f"--data_dir={data_dir}", "--num_epochs=4")
    result = json.loads(output.splitlines()[-1])
    return 1000 * statistics.mean(result["seconds_per_epoch"][1:]) / result["steps_per_epoch"]


def our_milliseconds(data_dir: str, strategy: str) -> float:
    """Milliseconds a step of `python -m trainer.main --config=configs/tutorial.py`, from its result.json."""
    with tempfile.TemporaryDirectory() as workdir:
        run_module(
            "trainer.main",
            "--config=configs/tutorial.py",
            f"--config.data.data_dir={data_dir}",
            "--config.train.num_epochs=100",
            "--config.train.checkpoint_every_steps=1000000",
            f"--strategy={strategy}",
            f"--workdir={workdir}",
        )
        result = json.loads((pathlib.Path(workdir) / "result.json").read_text())
    return 1000 / result["speed"]["steps_per_second"]


def run_module(module: str, *flags_: str) -> str:
    """Runs a module as a user would, and returns what it printed."""
    process = subprocess.run(
        [sys.executable, "-m", module, *flags_], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if process.returncode:
        sys.exit(process.stderr)
    return process.stdout


def main(_: list[str]) -> None:
    data_dir = str(pathlib.Path(flags.FLAGS.data_dir).resolve())
    table = Table("round", "the tutorial", "ours, default", "times faster", "ours, mirrored", "times faster", box=None)
    ratios: list[tuple[float, float]] = []
    for number in range(1, flags.FLAGS.rounds + 1):
        theirs = tutorial_milliseconds(data_dir)
        ours = {strategy: our_milliseconds(data_dir, strategy) for strategy in ("default", "mirrored")}
        ratios.append((theirs / ours["default"], theirs / ours["mirrored"]))
        table.add_row(
            str(number),
            f"{theirs:.1f} ms",
            *(cell for ms in ours.values() for cell in (f"{ms:.2f} ms", f"{theirs / ms:.0f}")),
        )
    default, mirrored = (statistics.median(column) for column in zip(*ratios, strict=True))
    table.add_row("median", "", "", f"{default:.0f}", "", f"{mirrored:.0f}")
    Console().print(table)


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "The folder that TensorFlow Datasets keeps MovieLens in.", required=True)
    flags.DEFINE_integer("rounds", 3, "How often each side runs.", lower_bound=1)
    app.run(main)
