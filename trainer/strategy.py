"""A strategy's name → a `tf.distribute` strategy, and this process's place in it."""

import functools
import json
import os
import re
from collections.abc import Callable

from settings.errors import ConfigError
from trainer.compat import tf

STRATEGIES = ("default", "mirrored", "multi_worker_mirrored", "tpu")


def build_strategy(name: str, *, tpu: str = "local", num_cpu_devices: int = 1) -> tf.distribute.Strategy:
    """Builds the strategy, before any other use of TensorFlow.

    Args:
      name: one of STRATEGIES. `mirrored` spans all GPUs of this machine, or its CPU where it has none.
      tpu: the TPU's name, `local` on the TPU's own machine, a grpc:// address, or empty for the node that
        TPU_CONFIG names, which Vertex AI sets.
      num_cpu_devices: how many logical devices to split the CPU into, to try several replicas without GPUs.

    Raises:
      ConfigError: the strategy is unknown, or what it runs on cannot be had.
    """
    if num_cpu_devices > 1:
        _split_cpu(num_cpu_devices)
    if name in ("mirrored", "multi_worker_mirrored"):
        _check_gpu(name)
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        gpus = tf.config.list_logical_devices("GPU")
        return tf.distribute.MirroredStrategy([d.name for d in gpus or tf.config.list_logical_devices("CPU")])
    if name == "multi_worker_mirrored":
        return tf.distribute.MultiWorkerMirroredStrategy(_build_resolver(os.environ.get("TF_CONFIG", "")))
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
        _build_meeting(strategy)().numpy()


@functools.cache
def _build_meeting(strategy: tf.distribute.Strategy) -> Callable[[], tf.Tensor]:
    """A sum over all replicas, which no worker has before all have given their part."""
    return tf.function(
        lambda: strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.ones([])), axis=None)
    )


def _check_gpu(name: str) -> None:
    """Refuses to train on the CPU of a machine that is paid for its GPUs: the GPU image sets the variable."""
    if os.environ.get("LISTWISE_REQUIRE_GPU") == "1" and not tf.config.list_physical_devices("GPU"):
        raise ConfigError(
            f"--strategy={name}: this is the image for GPUs (LISTWISE_REQUIRE_GPU=1), and TensorFlow sees no GPU. "
            "Start the container with them (docker run --gpus=all; on Vertex AI, name an accelerator), or pass "
            "--allow_cpu to train on the CPU."
        )


def _build_resolver(text: str) -> tf.distribute.cluster_resolver.ClusterResolver:
    """TF_CONFIG → the cluster of the processes that train, and this one's place in it.

    Others are left out: TensorFlow would wait for ever for a `ps`, as which a reduction server may be listed. A
    process that is one of them, or of no cluster, is refused.
    """
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
    training = {each: addresses for each, addresses in cluster.items() if each in ("chief", "worker")}
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(training), task_type=task_type, task_id=index, rpc_layer="grpc"
    )


def _split_cpu(num_devices: int) -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices)


def _build_tpu_strategy(tpu: str) -> tf.distribute.Strategy:
    node = {"tpu": tpu} if tpu else _node_of_tpu_config(os.environ.get("TPU_CONFIG", ""))
    if tpu not in ("", "local") and not tpu.startswith("grpc://"):
        _check_tpu_node(tpu)
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(**node)
        if tpu != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"--strategy=tpu: no TPU answers at --tpu={node['tpu']} ({_first_sentence(error)}). On the TPU's own "
            "machine install the TPU build of TensorFlow and use --tpu=local; from elsewhere pass its name or "
            "grpc://HOST:8470."
        ) from error


def _node_of_tpu_config(text: str) -> dict[str, str]:
    """The arguments of the resolver for the node in TPU_CONFIG.

    TensorFlow would read TPU_CONFIG itself, but not where cloud-tpu-client is installed: its resolver then uses
    that client instead of its own, and that one does not know the variable. Named in full, both find the node.
    """
    try:
        described = json.loads(text)
        node = {"tpu": "tpu_node_name", "zone": "zone", "project": "project"}
        return {argument: str(described[key]) for argument, key in node.items()}
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            "--tpu is empty, which stands for the node that TPU_CONFIG in the environment names with "
            f"tpu_node_name, zone and project, but TPU_CONFIG is {text!r}: pass --tpu=local, the TPU's name, or "
            "grpc://HOST:8470."
        ) from error


def _check_tpu_node(name: str) -> None:
    """Refuses a node that is not healthy or runs another TensorFlow; needs the `tpu` extra, and is skipped without.

    Connecting to such a node would wait for many minutes, or fail in the middle of a step.
    """
    try:
        import cloud_tpu_client
    except ImportError:
        return
    try:
        client = cloud_tpu_client.Client(tpu=name)
        state, health, version = client.state(), client.health(), client.runtime_version()
    except Exception as error:  # Those of its HTTP and credentials libraries have no base class in common.
        raise ConfigError(
            f"--tpu={name}: Google Cloud says nothing about a TPU node of this name ({_first_sentence(error)}). "
            "Check the name and zone with `gcloud compute tpus list`, and log in with "
            "`gcloud auth application-default login`; grpc://HOST:8470 needs neither."
        ) from error
    if (state, health) != ("READY", "HEALTHY"):
        raise ConfigError(
            f"--tpu={name}: the node is not ready for work: its state is {state}, its health {health}. Wait until "
            f"`gcloud compute tpus describe {name}` says READY and HEALTHY, start it if it was stopped, or create "
            "it anew if it was preempted."
        )
    wanted, found = ".".join(tf.__version__.split(".")[:2]), re.search(r"\d+\.\d+", version or "")
    if found is None or found[0] != wanted:
        raise ConfigError(
            f"--tpu={name}: the node runs {version}, and here is TensorFlow {tf.__version__}: the two have to agree. "
            f"Create the node with a runtime of TensorFlow {wanted}, or install the node's version here."
        )


def _first_sentence(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].split(". ")[0]
