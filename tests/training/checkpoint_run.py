"""A small run that can be saved and restored, and the names of its files."""

import os
from typing import Any

import numpy as np

from trainer import storage
from trainer.compat import keras, tf
from trainer.training.checkpoint import Checkpointer

SIZE = 1000
DATA, INDEX, MANIFEST, MARKER = "data-00000-of-00001", "index", "json", "partial"


class Run:
    """A model and an optimizer with slots. Their values depend on the step."""

    def __init__(self, folder: str, *, size: int = SIZE, dtype: tf.DType = tf.float32, keep: int = 3, **options: Any):
        self.weights = tf.Variable(tf.zeros([size], dtype), name="weights")
        self.optimizer = keras.optimizers.Adam(jit_compile=False)
        self.optimizer.build([self.weights])
        self.checkpointer = Checkpointer(
            folder,
            tf.train.Checkpoint(model=tf.Module(), weights=self.weights, optimizer=self.optimizer),
            keep=keep,
            **options,
        )

    def save(self, step: int, **options: Any) -> None:
        for variable, value in zip(self.variables, self.values_after(step), strict=True):
            variable.assign(value)
        self.checkpointer.save(step, {"step": step, "sums": [[step / 3, 0.1]], "best_step": None}, **options)

    @property
    def variables(self) -> list[tf.Variable]:
        return [self.weights, *self.optimizer.variables]

    def values_after(self, step: int) -> list[tf.Tensor]:
        rng = np.random.default_rng(step)
        return [tf.cast(100 * rng.normal(size=variable.shape), variable.dtype) for variable in self.variables]

    def is_after(self, step: int) -> bool:
        return all(
            np.array_equal(variable, value)
            for variable, value in zip(self.variables, self.values_after(step), strict=True)
        )


def path_of(folder: str, step: int, suffix: str) -> str:
    return f"{folder}/step-{step:08d}.{suffix}"


def files_in(folder: str) -> list[str]:
    return sorted(tf.io.gfile.listdir(folder))


def contents_of(folder: str) -> dict[str, bytes]:
    """Every file below a local folder."""
    return {
        os.path.join(parent, name): storage.read_bytes(os.path.join(parent, name))
        for parent, _, names in os.walk(folder)
        for name in names
    }


def whole(*steps: int) -> list[str]:
    """The names of the files of complete checkpoints."""
    return sorted(f"step-{step:08d}.{suffix}" for step in steps for suffix in (DATA, INDEX, MANIFEST))


def truncate(path: str, fraction: float) -> None:
    os.truncate(path, int(os.path.getsize(path) * fraction))


def flip_bit(path: str, position: float = 0.5) -> None:
    content = bytearray(storage.read_bytes(path))
    content[int(position * len(content))] ^= 1
    with open(path, "wb") as file:
        file.write(content)


def write(path: str, content: str) -> None:
    with open(path, "w") as file:
        file.write(content)
