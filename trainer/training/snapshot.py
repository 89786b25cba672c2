"""The tensors of a checkpoint: their names, a copy of them in the memory of the host, and TensorFlow's files of them.

The files have the format of `tf.train.Checkpoint`, and `tf.train.load_checkpoint` reads them. The names are paths of
attributes, such as `model/query_tower/hidden/0/kernel`, so they are the same in every process.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from trainer.compat import tf
from trainer.retries import retry

Variables = Mapping[str, tf.Variable]
Snapshot = Mapping[str, tf.Tensor]
"""The values of variables by name."""

_HOST = "/device:CPU:0"


def named_variables(**owners: Any) -> dict[str, tf.Variable]:
    """Returns all variables of some objects, such as a model and its optimizer, by unique names.

    Args:
      **owners: objects that TensorFlow tracks, with the first part of the names of their variables.
    """
    named: dict[str, tf.Variable] = {}
    for owner_name, owner in owners.items():
        view, visited = tf.train.TrackableView(owner), set()
        # Breadth first, so that a variable that several attributes hold gets the shortest path.
        waiting = deque([(owner_name, owner)])
        while waiting:
            path, node = waiting.popleft()
            if id(node) in visited:
                continue
            visited.add(id(node))
            if isinstance(node, tf.Variable):
                named[path] = node
            else:
                waiting.extend((f"{path}/{name.lstrip('_')}", child) for name, child in view.children(node).items())
    return named


def describe(variables: Variables) -> dict[str, str]:
    """Returns the type and shape of each variable, such as `float32 [20, 8]`."""
    return {name: f"{variable.dtype.name} {variable.shape.as_list()}" for name, variable in variables.items()}


def take(variables: Variables) -> dict[str, tf.Tensor]:
    """Returns the values of variables as of now. Later updates of the variables do not change them.

    Of a variable in the memory of the host, TensorFlow makes the copy when it is updated next. A value on another
    device is copied now. Nothing is asked of other workers.
    """
    with tf.device(_HOST):
        return {name: tf.identity(_replicas(variable)[0].read_value()) for name, variable in variables.items()}


def first_not_finite(snapshot: Snapshot) -> str | None:
    """Returns the name of the first tensor that holds a number that is not finite; None if all are finite."""
    with tf.device(_HOST):
        for name, value in snapshot.items():
            if value.dtype.is_floating:
                try:
                    tf.raw_ops.CheckNumerics(tensor=value, message=name)
                except tf.errors.InvalidArgumentError:
                    return name
    return None


def write(prefix: str, snapshot: Snapshot) -> None:
    """Writes PREFIX.index and PREFIX.data-00000-of-00001."""

    def save() -> None:
        with tf.device(_HOST):
            tf.raw_ops.SaveV2(
                prefix=prefix,
                tensor_names=list(snapshot),
                shape_and_slices=[""] * len(snapshot),
                tensors=list(snapshot.values()),
            )

    retry(prefix, save)


def assign(prefix: str, variables: Variables) -> None:
    """Reads the files and assigns each variable its value, on all replicas of this worker.

    There is one tensor at a time in memory besides the variables. The caller has compared names, types and shapes.
    """
    for name, variable in variables.items():

        def read(name: str = name, variable: tf.Variable = variable) -> tf.Tensor:
            with tf.device(_HOST):
                (value,) = tf.raw_ops.RestoreV2(
                    prefix=prefix, tensor_names=[name], shape_and_slices=[""], dtypes=[variable.dtype]
                )
            return value

        value = retry(prefix, read)
        for replica in _replicas(variable):
            replica.assign(value)


def _replicas(variable: tf.Variable) -> list[tf.Variable]:
    """The variable of each replica of this worker."""
    return list(variable.values) if isinstance(variable, tf.distribute.DistributedValues) else [variable]
