"""Compares reading and preparing of ratings with pandas and with the way of the TF-Ranking tutorial.

    python -m benchmarks.reading [--num_ratings=100000,1000000] [--max_tutorial_ratings=100000]

All sides start from one CSV file of synthetic ratings with MovieLens' shape and end with query lists of up to 100
items:

- `read`: our reading, from the file to lists in memory. It also checks each row, counts dropped rows, maps ids to
  indices and computes fingerprints.
- `prepare`: `python -m trainer.prepare`, which writes the same lists to the disk with checksums; with the start of
  Python.
- `open`: our reading of what was prepared.
- `pandas`: `read_csv`, categories for ids, a stable sort by user, and the boundaries of the lists. It checks nothing.
- `the tutorial`: a stream of rows through `group_by_window` of tf.data and padded batches of 32, once through. That is
  what each epoch of the tutorial does anew. It takes a minute for a million ratings and so stops at
  --max_tutorial_ratings.

Times are without imports, except for `prepare`. Memory is the peak of the process, with the interpreter and its
libraries; TensorFlow, which only the tutorial needs, is 0.4 GB of it.

It takes about a minute on 2 CPU cores. --num_ratings=25000000 takes several minutes and about 4 GB of memory.
"""

import importlib
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks import harness
from benchmarks.config import tutorial_config
from settings import cli
from settings.trainer_config import load_trainer_config

_LIST_SIZE = 100
_BATCH_SIZE = 32


def read(source: str) -> dict[str, Any]:
    """Reads a file or what was prepared, as a run does."""
    from trainer import config as config_lib
    from trainer.data.loading import load_dataset

    config = tutorial_config({"data.source": source, "data.item_identity": "item_id"})
    arguments = config_lib.dataset_arguments(load_trainer_config(config))
    # If pandas is installed, pyarrow imports it when it first converts an array, which takes a second.
    if harness.is_installed("pandas"):
        importlib.import_module("pandas")
    started = time.perf_counter()
    dataset = load_dataset(**arguments)
    return {"seconds": time.perf_counter() - started, "num_lists": dataset.lists["train"].num_lists}


def prepare(source: str, output: str) -> dict[str, Any]:
    """Prepares a file as a user does. The peak memory is that of the command."""
    started = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-m", "trainer.prepare", "--config=configs/tutorial.py"),
            *(f"--config.data.source={source}", "--config.data.item_identity=item_id", f"--output={output}"),
        ],
        cwd=harness.REPOSITORY,
        check=True,
    )
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}


def read_with_pandas(source: str) -> dict[str, Any]:
    """Reads a file with pandas, as one would in a notebook."""
    import pandas

    started = time.perf_counter()
    ratings = pandas.read_csv(source, dtype={"user_id": "category", "item_id": "category", "rating": "float32"})
    ratings["user"], ratings["item"] = ratings["user_id"].cat.codes, ratings["item_id"].cat.codes
    ratings = ratings.sort_values("user", kind="stable")
    position = ratings.groupby("user").cumcount()
    num_lists = int((position % _LIST_SIZE == 0).sum())
    return {"seconds": time.perf_counter() - started, "num_lists": num_lists}


def read_as_tutorial(source: str) -> dict[str, Any]:
    """Goes through the lists of a file once, as the tutorial cuts them in each epoch."""
    from trainer.compat import tf

    started = time.perf_counter()
    rows = tf.data.experimental.CsvDataset(
        source, [tf.int64, tf.string, tf.float32], header=True, select_cols=[0, 1, 2]
    )
    lists = rows.group_by_window(
        key_func=lambda user, item, rating: user,
        reduce_func=lambda user, window: window.batch(_LIST_SIZE),
        window_size=_LIST_SIZE,
    )
    num_lists = sum(len(users) for users, _, _ in lists.ragged_batch(_BATCH_SIZE).map(lambda *row: _padded(tf, row)))
    return {"seconds": time.perf_counter() - started, "num_lists": num_lists}


def _padded(tf: Any, row: Any) -> tuple[Any, ...]:
    return tuple(column.to_tensor() if isinstance(column, tf.RaggedTensor) else column for column in row)


def main() -> int:
    """Measures all sides at all sizes and prints the table."""
    notes, rows, results = [], [], []
    if reason := harness.why_not_installed("pandas"):
        notes.append(f"Left out: pandas, because {reason}")
    for num_ratings in map(int, flags.FLAGS.num_ratings):
        with tempfile.TemporaryDirectory() as folder:
            source, output = os.path.join(folder, "ratings.csv"), os.path.join(folder, "prepared")
            shape = harness.run_side(
                "benchmarks.ratings_file:write_ratings", path=source, num_ratings=num_ratings
            ).value
            sides = {
                "read": ("read", {"source": source}),
                "prepare": ("prepare", {"source": source, "output": output}),
                "open": ("read", {"source": output}),
            }
            if not reason:
                sides["pandas"] = ("read_with_pandas", {"source": source})
            if num_ratings <= flags.FLAGS.max_tutorial_ratings:
                sides["the tutorial"] = ("read_as_tutorial", {"source": source})
            else:
                notes.append(f"Left out: the tutorial at {num_ratings:,} ratings; see --max_tutorial_ratings.")
            megabytes = pathlib.Path(source).stat().st_size / 1e6
            lists, unit = set(), None
            for name, (function, arguments) in sides.items():
                outcome = harness.run_side(f"benchmarks.reading:{function}", **arguments)
                value = {"peak_bytes": outcome.peak_bytes, **outcome.value}
                lists |= {value["num_lists"]} if "num_lists" in value else set()
                unit = unit or value["seconds"]
                rows.append(
                    (
                        name,
                        f"{num_ratings:,}",
                        f"{value['seconds']:.2f}",
                        f"{value['seconds'] / unit:.2f}",
                        f"{num_ratings / value['seconds'] / 1e6:.2f}",
                        f"{megabytes / value['seconds']:.0f}",
                        f"{value['peak_bytes'] / 1e9:.2f}",
                    )
                )
                results.append({"side": name, **shape, **value})
            assert len(lists) == 1, f"The sides made different numbers of lists: {lists}."
    columns = ("side", "ratings", "seconds", "times read", "million ratings/s", "MB/s of the file", "peak memory, GB")
    harness.report("reading", columns, rows, notes=notes, sides=results)
    return 0


if __name__ == "__main__":
    flags.DEFINE_list("num_ratings", ["100000", "1000000"], "The numbers of ratings.")
    flags.DEFINE_integer("max_tutorial_ratings", 100_000, "The tutorial's way is left out above this number.")
    cli.run(main)
