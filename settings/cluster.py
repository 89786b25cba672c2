"""Writes and reads TF_CONFIG, which tells each process of a cluster the addresses of all processes.

TensorFlow reads it in tf.distribute.cluster_resolver.TFConfigClusterResolver. On Vertex AI it has more keys, and
CLUSTER_SPEC has the same information by worker pool:
https://cloud.google.com/vertex-ai/docs/training/distributed-training
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from settings.errors import ConfigError

# The task types that train, in the order of their ranks. The first task of a cluster is its chief.
TRAINING_TYPES = ("chief", "worker")

# The worker pools of Vertex AI. The third one has parameter servers or, with an image of Google, reduction servers,
# which add up gradients. They do not run the trainer.
_POOL_TYPES = {"workerpool0": "chief", "workerpool1": "worker", "workerpool2": "ps", "workerpool3": "evaluator"}
_POOLS = {task_type: pool for pool, task_type in _POOL_TYPES.items()}


@dataclass(frozen=True)
class Task:
    """One process of a cluster."""

    type: str
    index: int

    def __str__(self) -> str:
        return f"{self.type} {self.index}"


@dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Attributes:
      addresses: Task type → the host:port of each of its tasks.

    Raises:
      ConfigError: There is no process, more than one chief, or a type that does not train.
    """

    addresses: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        types = {task_type: tuple(self.addresses[task_type]) for task_type in self.addresses}
        for task_type in types:
            if task_type not in TRAINING_TYPES:
                raise ConfigError(_refusal(task_type))
        if not any(types.values()):
            raise ConfigError("A cluster needs a chief or a worker, but this one has no process.")
        if len(types.get("chief", ())) > 1:
            raise ConfigError(f"A cluster has one chief, but this one has {len(types['chief'])}.")
        # In a fixed order and without empty types, so that equal clusters compare equal.
        object.__setattr__(self, "addresses", {name: types[name] for name in TRAINING_TYPES if types.get(name)})

    @property
    def tasks(self) -> list[Task]:
        """All processes in the order of their ranks: the chief, then the workers."""
        return [Task(name, index) for name, addresses in self.addresses.items() for index in range(len(addresses))]

    @property
    def chief(self) -> Task:
        """The process that writes the output of a run: the chief, or worker 0 in a cluster without a chief."""
        return self.tasks[0]


def format_tf_config(cluster: Cluster, task: Task) -> str:
    """Returns TF_CONFIG for a task of the cluster, as JSON."""
    return json.dumps({"cluster": cluster.addresses, "task": {"type": task.type, "index": task.index}})


def format_cluster_spec(cluster: Cluster, task: Task) -> str:
    """Returns CLUSTER_SPEC for a task of the cluster, as JSON, in the format of Vertex AI."""
    return json.dumps(
        {
            "cluster": {_POOLS[name]: addresses for name, addresses in cluster.addresses.items()},
            "environment": "cloud",
            "task": {"type": _POOLS[task.type], "index": task.index},
        }
    )


def parse_tf_config(text: str) -> tuple[Cluster, Task]:
    """Reads TF_CONFIG, with or without the additional keys of Vertex AI.

    Returns:
      The cluster of the processes that train, and the task of this process.

    Raises:
      ConfigError: It has another format, or this process is a parameter server or an evaluator.
    """
    return _parse("TF_CONFIG", text, {})


def parse_cluster_spec(text: str) -> tuple[Cluster, Task]:
    """Reads Vertex AI's CLUSTER_SPEC, and returns the same as `parse_tf_config`.

    Raises:
      ConfigError: The same as `parse_tf_config`.
    """
    return _parse("CLUSTER_SPEC", text, _POOL_TYPES)


def _parse(variable: str, text: str, type_names: Mapping[str, str]) -> tuple[Cluster, Task]:
    try:
        described = json.loads(text)
        addresses = {type_names.get(name, name): _strings(tasks) for name, tasks in described["cluster"].items()}
        (type_name,) = _strings([described["task"]["type"]])
        task = Task(type_names.get(type_name, type_name), int(described["task"]["index"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f'{variable} is not JSON of the form {{"cluster": {{TYPE: [HOST:PORT, ...]}}, '
            f'"task": {{"type": TYPE, "index": N}}}}: it is {text!r}.'
        ) from error
    if task.type not in TRAINING_TYPES:
        raise ConfigError(f"{variable}: {_refusal(task.type)}")
    # The description can have reduction servers, which do not run the trainer.
    cluster = Cluster({name: tasks for name, tasks in addresses.items() if name in TRAINING_TYPES})
    if task not in cluster.tasks:
        raise ConfigError(f"{variable} describes this process as {task}, but its cluster has no such task: {text}.")
    return cluster, task


def _strings(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{values!r} is not a list of strings")
    return tuple(values)


def _refusal(task_type: str) -> str:
    return (
        f"task type {task_type!r} does not train. Each process has to be a chief or a worker. Leave out parameter "
        "servers and evaluators: the chief and the workers evaluate the model."
    )
