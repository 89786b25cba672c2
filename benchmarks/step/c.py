"""C, compiled on the spot: what one thread of plain loops reaches."""

import ctypes
import pathlib
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.harness import time_repeatedly
from benchmarks.step.job import EPSILON, INITIAL_SLOT, LEARNING_RATE, Job, load_job

SOURCE = pathlib.Path(__file__).parent / "step.c"


def train(folder: str, *, flags: Sequence[str], touched_rows: bool = False) -> dict[str, Any]:
    """The losses of two epochs, and then the seconds of an epoch.

    Args:
      folder: of the job.
      flags: of the compiler.
      touched_rows: updates only the rows with a gradient.
    """
    job = load_job(folder)
    epochs = Epochs(job, compile_step(flags), touched_rows=touched_rows)
    losses = [epochs.take(), epochs.take()]
    return {"losses": losses, "seconds": time_repeatedly(epochs.take), "device": "CPU"}


def compile_step(flags: Sequence[str]) -> Any:
    """Compiles step.c and returns its function `train_epoch`."""
    with tempfile.TemporaryDirectory() as folder:
        compiled, library = f"{folder}/step.o", f"{folder}/step.so"
        subprocess.run(["cc", *flags, "-fPIC", "-c", str(SOURCE), "-o", compiled], check=True)
        # Linked with -ffast-math, the library would turn the smallest numbers of the whole process into 0.
        subprocess.run(["cc", "-shared", compiled, "-o", library, "-lm"], check=True)
        function = ctypes.CDLL(library).train_epoch
    function.restype = ctypes.c_double
    return function


class Epochs:
    """The tables and slots, and their training."""

    def __init__(self, job: Job, train_epoch: Any, *, touched_rows: bool):
        self._job, self._train_epoch, self._touched_rows = job, train_epoch, touched_rows
        self.tables = [job.query_table.copy(), job.item_table.copy()]
        self._slots = [np.full_like(table, INITIAL_SLOT) for table in self.tables]
        self._gradients = [np.zeros_like(table) for table in self.tables]
        self._marks: list[np.ndarray] = [np.zeros(len(table), np.uint8) for table in self.tables]

    def take(self) -> float:
        """Trains for an epoch and returns its mean loss."""
        job = self._job
        by_table = zip(self.tables, self._slots, self._gradients, self._marks, strict=True)
        total = self._train_epoch(
            *(ctypes.c_int(extent) for extent in (*job.items.shape, job.item_table.shape[1])),
            *(ctypes.c_int(len(table)) for table in self.tables),
            *(_pointer(array) for array in (job.queries, job.items, job.labels, job.num_lists)),
            *(_pointer(array) for arrays in by_table for array in arrays),
            ctypes.c_float(LEARNING_RATE),
            ctypes.c_float(EPSILON),
            ctypes.c_int(self._touched_rows),
        )
        return total / float(job.num_lists.sum())


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
