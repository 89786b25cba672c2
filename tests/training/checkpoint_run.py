"""A small run that can be saved and restored, and the names of its files."""

import os
from typing import Any

import numpy as np

from trainer import storage
from trainer.compat import keras, tf
from trainer.training.checkpoint import Checkpointer
from trainer.training.snapshot import named_variables

SIZE = 1000
FINGERPRINTS = {"config": "c" * 64, "vocabulary": "0" * 64, "train lists": "1" * 64}
DATA, INDEX, MANIFEST, MARKER = "data-00000-of-00001", "index", "json", "partial"


class Run:
    """A model and an optimizer with slots. Their values depend on the step."""

    def __init__(
        self,
        folder: str,
        *,
        size: int = SIZE,
        dtype: tf.DType = tf.float32,
        optimizer: str = "Adam",
        keep: int = 3,
        **options: Any,
    ):
        self.model = tf.Module()
        self.model.weights = tf.Variable(tf.zeros([size], dtype), name="weights")
        self.optimizer = getattr(keras.optimizers, optimizer)(jit_compile=False)
        self.optimizer.build([self.model.weights])
        variables = named_variables(model=self.model, optimizer=self.optimizer)
        options = {"fingerprints": FINGERPRINTS, **options}
        self.checkpointer = Checkpointer(folder, variables, keep=keep, **options)

    def save(self, step: int, **options: Any) -> None:
        """Saves what the variables are after `step`, and waits until it is written."""
        self.begin_save(step, **options)
        self.checkpointer.wait()

    def begin_save(self, step: int, **options: Any) -> None:
        for variable, value in zip(self.variables, self.values_after(step), strict=True):
            variable.assign(value)
        self.checkpointer.save(step, {"step": step, "sums": [[step / 3, 0.1]], "best_step": None}, **options)

    @property
    def variables(self) -> list[tf.Variable]:
        return [self.model.weights, *self.optimizer.variables]

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


def fail_half_way(monkeypatch):
    """Makes TensorFlow fail while it writes a checkpoint, as on a full disk."""

    def write_half(prefix, **_):
        write(f"{prefix}.{INDEX}.tempstate1234", "x" * 100)
        write(f"{prefix}.{DATA}", "x" * 100)
        raise tf.errors.ResourceExhaustedError(None, None, f"{prefix}; No space left on device")

    monkeypatch.setattr(tf.raw_ops, "SaveV2", write_half)
