"""A strategy's name → a `tf.distribute` strategy, and this process's place in it."""

import json
import os

from trainer.compat import tf
from trainer.errors import ConfigError

STRATEGIES = ("default", "mirrored", "multi_worker_mirrored", "tpu")


def build_strategy(name: str, *, tpu: str = "local", num_cpu_devices: int = 1) -> tf.distribute.Strategy:
    """Builds the strategy, before any other use of TensorFlow.

    Args:
      name: one of STRATEGIES. `mirrored` spans all GPUs of this machine, or its CPU where it has none.
      tpu: the TPU's name, `local` on the TPU's own machine, or a grpc:// address.
      num_cpu_devices: how many logical devices to split the CPU into, to try several replicas without GPUs.

    Raises:
      ConfigError: the strategy is unknown, or what it runs on cannot be had.
    """
    if num_cpu_devices > 1:
        _split_cpu(num_cpu_devices)
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        gpus = tf.config.list_logical_devices("GPU")
        return tf.distribute.MirroredStrategy([d.name for d in gpus or tf.config.list_logical_devices("CPU")])
    if name == "multi_worker_mirrored":
        _check_tf_config(os.environ.get("TF_CONFIG", ""))
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        return _build_tpu_strategy(tpu)
    raise ConfigError(f"--strategy={name} is unknown; use one of {', '.join(STRATEGIES)}.")


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes what a run leaves: true for all but the other workers of a cluster."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type is None:
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" if has_chief else resolver.task_id == 0


def worker_name(strategy: tf.distribute.Strategy) -> str:
    """A name that no other process of the cluster has, such as `worker-1`."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type is None:
        return "worker-0"
    return f"{resolver.task_type}-{resolver.task_id}"


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    return sum(len(tasks) for tasks in strategy.cluster_resolver.cluster_spec().as_dict().values())


def barrier(strategy: tf.distribute.Strategy) -> None:
    """Waits until every worker is here: one may read now what another has written before."""
    if num_workers(strategy) > 1:
        strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.ones([])), axis=None).numpy()


def _check_tf_config(text: str) -> None:
    """Refuses what TensorFlow would take for a reason to wait forever, or for a chief that evaluates."""
    if not text:
        raise ConfigError(
            "--strategy=multi_worker_mirrored needs TF_CONFIG in the environment, which names the workers "
            "and this one's place among them: start it with `python -m launch.local` or on Vertex AI, or "
            "use --strategy=mirrored for the devices of one machine."
        )
    try:
        described = json.loads(text)
        task_type, index = described["task"]["type"], int(described["task"]["index"])
        cluster = tf.train.ClusterSpec(described["cluster"]).as_dict()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f'TF_CONFIG is not JSON of the form {{"cluster": {{TYPE: [HOST:PORT, ...]}}, '
            f'"task": {{"type": TYPE, "index": N}}}}: it is {text!r}.'
        ) from error
    if task_type not in ("chief", "worker"):
        raise ConfigError(
            f"TF_CONFIG gives this process the task type {task_type!r}, which does not train: every process is a "
            "chief or a worker. Leave out parameter servers and evaluators; the workers evaluate as they train."
        )
    if not 0 <= index < len(cluster.get(task_type, [])):
        raise ConfigError(f"TF_CONFIG says that this process is {task_type} {index}, which its cluster lacks: {text}.")


def _split_cpu(num_devices: int) -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices)


def _build_tpu_strategy(tpu: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        if tpu != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0].split(". ")[0]
        raise ConfigError(
            f"--strategy=tpu: no TPU answers at --tpu={tpu} ({reason}). On the TPU's own machine install the "
            "TPU build of TensorFlow and use --tpu=local; from elsewhere pass its name or grpc://HOST:8470."
        ) from error
