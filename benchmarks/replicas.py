"""Measures training with 1, 2 and 4 devices and with 1 and 2 workers on this machine.

    python -m benchmarks.replicas [--data_dir=DIR] [--num_epochs=30] [--sides=devices]

Each row is a run of the job of the tutorial, with NDCG and MRR, by the command that a user would give. Its speed is
that of its result.json: without the first call, which compiles, and with the input pipeline. The batch of 32 lists is
shared by the replicas. On a machine without GPUs the devices are parts of the same CPU: the rows then show what it
costs to sum gradients, and not how much faster several devices are. On a machine with GPUs, --strategy=mirrored uses
all of them; hide some with CUDA_VISIBLE_DEVICES.

The bytes are those that each replica sends in a step if the gradients of all rows are summed in a ring, computed from
the shapes (benchmarks/counts.py).

It takes about three minutes on 2 CPU cores, most of it for the start and the export of each run.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from absl import flags

from benchmarks import counts, harness
from benchmarks.config import movielens
from settings import cli
from settings.errors import ConfigError

_SIZE = 64
_SIDES = {
    "devices": {
        "1 device, default": ("trainer.main", "--strategy=default"),
        "1 device, mirrored": ("trainer.main", "--strategy=mirrored"),
        "2 devices, mirrored": ("trainer.main", "--strategy=mirrored", "--num_cpu_devices=2"),
        "4 devices, mirrored": ("trainer.main", "--strategy=mirrored", "--num_cpu_devices=4"),
    },
    "workers": {
        "1 worker": ("launch.local", "--num_workers=1", "--"),
        "2 workers": ("launch.local", "--num_workers=2", "--"),
    },
}


def train(command: tuple[str, ...], config_flags: list[str]) -> dict[str, Any]:
    """Runs a command of the trainer. Returns the speed of its result.json and the rows of its tables."""
    module, *own_flags = command
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / "run"
        process = subprocess.run(
            [sys.executable, "-m", module, *own_flags, f"--workdir={workdir}", *config_flags],
            cwd=harness.REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode}: {process.stderr}")
        speed = json.loads((workdir / "result.json").read_text())["speed"]
        data = json.loads((workdir / "data.json").read_text())
    return {**speed, "num_rows": data["num_users"] + data["num_items"] + 2}


def main() -> int:
    """Runs all sides and prints the table."""
    data_dir = str(pathlib.Path(flags.FLAGS.data_dir).resolve()) if flags.FLAGS.data_dir else ""
    values = movielens(data_dir) | {
        "train.num_epochs": flags.FLAGS.num_epochs,
        "train.checkpoint_every_steps": 1_000_000,
    }
    config_flags = ["--config=configs/tutorial.py", *(f"--config.{name}={value}" for name, value in values.items())]
    if unknown := set(flags.FLAGS.sides) - _SIDES.keys():
        raise ConfigError(f"--sides contains {unknown.pop()!r}, which is unknown. Use devices, workers or both.")
    results = {
        name: harness.run_side("benchmarks.replicas:train", command=command, config_flags=config_flags).value
        for group in flags.FLAGS.sides
        for name, command in _SIDES[group].items()
    }
    first = next(iter(results))
    unit = results[first]["lists_per_second"]
    rows = []
    for name, result in results.items():
        sent = counts.all_reduce_bytes(num_replicas=result["num_replicas"], num_numbers=result["num_rows"] * _SIZE)
        result["bytes_sent_per_step"] = sent
        rows.append(
            (
                name,
                str(result["num_replicas"]),
                f"{1000 / result['steps_per_second']:.2f}",
                f"{result['lists_per_second']:,.0f}",
                f"{result['lists_per_second'] / unit:.2f}",
                f"{sent / 1e6:.2f}",
                f"{sent * result['steps_per_second'] / 1e9:.2f}",
            )
        )
    columns = ("side", "replicas", "ms per step", "lists/s", f"× {first}", "MB sent per step", "GB/s sent")
    harness.report("replicas", columns, rows, sides=results)
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", "", "The folder of MovieLens 100K of TensorFlow Datasets. Empty: embedded ratings.")
    flags.DEFINE_integer("num_epochs", 30, "The length of each run.", lower_bound=3)
    flags.DEFINE_list("sides", ["devices", "workers"], "devices, workers or both.")
    cli.run(main)
