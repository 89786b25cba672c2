"""A cluster as data → TF_CONFIG, by which each of its tasks learns who the others are; and back.

TF_CONFIG is what TensorFlow reads: tf.distribute.cluster_resolver.TFConfigClusterResolver. On Vertex AI it comes
with more keys, and CLUSTER_SPEC beside it says the same by worker pool:
https://cloud.google.com/vertex-ai/docs/training/distributed-training
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from settings.errors import ConfigError

# The types that train, in the order of the tasks' ranks. The first task of a cluster is its chief.
TRAINING_TYPES = ("chief", "worker")

# Vertex AI's worker pools by their place. The third serves parameters or, with an image of Google's, sums
# gradients on their way between the workers (Reduction Server); neither runs the trainer.
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
      addresses: task type → host:port of each of its tasks, by index.

    Raises:
      ConfigError: no process, or more than one chief, or a type that does not train.
    """

    addresses: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        types = {task_type: tuple(self.addresses[task_type]) for task_type in self.addresses}
        for task_type in types:
            if task_type not in TRAINING_TYPES:
                raise ConfigError(_refusal(task_type))
        if not any(types.values()):
            raise ConfigError("A cluster needs a chief or a worker, and this one has no process at all.")
        if len(types.get("chief", ())) > 1:
            raise ConfigError(f"A cluster has one chief, and this one has {len(types['chief'])}.")
        # Types in one order, without the empty: two descriptions of one cluster are then equal.
        object.__setattr__(self, "addresses", {name: types[name] for name in TRAINING_TYPES if types.get(name)})

    @property
    def tasks(self) -> list[Task]:
        """All processes by rank: the chief, then the workers."""
        return [Task(name, index) for name, addresses in self.addresses.items() for index in range(len(addresses))]

    @property
    def chief(self) -> Task:
        """Who writes what a run leaves: the chief, or worker 0 where there is none."""
        return self.tasks[0]


def format_tf_config(cluster: Cluster, task: Task) -> str:
    """The value of TF_CONFIG for one task of the cluster, as JSON."""
    return json.dumps({"cluster": cluster.addresses, "task": {"type": task.type, "index": task.index}})


def format_cluster_spec(cluster: Cluster, task: Task) -> str:
    """The value of CLUSTER_SPEC for one task of the cluster, as JSON, the way Vertex AI writes it."""
    return json.dumps(
        {
            "cluster": {_POOLS[name]: addresses for name, addresses in cluster.addresses.items()},
            "environment": "cloud",
            "task": {"type": _POOLS[task.type], "index": task.index},
        }
    )


def parse_tf_config(text: str) -> tuple[Cluster, Task]:
    """TF_CONFIG, TensorFlow's own or Vertex AI's → the cluster that trains, and this process's task in it.

    Raises:
      ConfigError: it is not what TF_CONFIG is to be, or this process is a parameter server or an evaluator.
    """
    return _parse("TF_CONFIG", text, {})


def parse_cluster_spec(text: str) -> tuple[Cluster, Task]:
    """Vertex AI's CLUSTER_SPEC → the cluster that trains, and this process's task in it.

    Raises:
      ConfigError: as of `parse_tf_config`.
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
    # A Reduction Server stands in the description, but is no process of the trainer's.
    cluster = Cluster({name: tasks for name, tasks in addresses.items() if name in TRAINING_TYPES})
    if task not in cluster.tasks:
        raise ConfigError(f"{variable} says that this process is {task}, and its cluster has no such task: {text}.")
    return cluster, task


def _strings(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{values!r} is not a list of strings")
    return tuple(values)


def _refusal(task_type: str) -> str:
    return (
        f"task type {task_type!r} does not train: every process of this trainer is a chief or a worker. Leave out "
        "parameter servers and evaluators; the chief and the workers evaluate as they train."
    )
