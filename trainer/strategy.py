"""Builds a `tf.distribute` strategy by its name, and tells what this process is in it."""

import atexit
import contextlib
import enum
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from settings.cluster import parse_tf_config
from settings.errors import ConfigError, LostWorkerError, UserError
from settings.trainer_config import STRATEGIES
from trainer.compat import configure_coordination_service, tf

# The class of the default strategy has no public name.
_DEFAULT_STRATEGY = type(tf.distribute.get_strategy())

# A worker that sends no heartbeat for this long is lost, and ends the job. A pause of some seconds, as in a live
# migration of a virtual machine, does not. TensorFlow's default depends on its version.
HEARTBEAT_TIMEOUT_SECONDS = 20

# What TensorFlow says on a worker when another one is lost.
_LOST_WORKER = re.compile(r"Collective ops is aborted|CoordinationService|remote target /job:")


class Compilation(enum.Enum):
    """Which part of training XLA compiles."""

    LOOP = "the loop over the steps of a call"
    STEP = "the forward and backward pass of a step"
    RUN = "whatever strategy.run runs"


def compilation(strategy: tf.distribute.Strategy) -> Compilation:
    """Which part of training XLA compiles under a strategy.

    A strategy of several replicas sums gradients outside of `strategy.run`, which a compiled loop cannot do. TPUs
    compile `strategy.run` by themselves.
    """
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return Compilation.RUN
    return Compilation.LOOP if isinstance(strategy, _DEFAULT_STRATEGY) else Compilation.STEP


def build_strategy(
    name: str, *, tpu: str = "local", num_cpu_devices: int = 1, require_gpu: bool = False
) -> tf.distribute.Strategy:
    """Builds the strategy, before any other use of TensorFlow.

    Args:
      name: one of STRATEGIES. `mirrored` uses all GPUs of this machine, or its CPU if it has no GPU. With a single
        device it is the default strategy.
      tpu: the name of the TPU, `local` on the machine of the TPU, a grpc:// address, or empty for the node in
        TPU_CONFIG, which Vertex AI sets.
      num_cpu_devices: the number of logical devices to split the CPU into, to try several replicas without GPUs.
      require_gpu: refuse to train on several replicas of a machine without a GPU.

    Raises:
      ConfigError: the strategy is unknown, or its devices are not available.
    """
    if num_cpu_devices > 1:
        _split_cpu(num_cpu_devices)
    if require_gpu and name in ("mirrored", "multi_worker_mirrored"):
        _check_gpu(name)
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        # One device has nothing to mirror. The default strategy uses the same device, and compiles the whole loop.
        if len(devices) == 1:
            return tf.distribute.get_strategy()
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if name == "multi_worker_mirrored":
        return _build_multi_worker_strategy(os.environ.get("TF_CONFIG", ""))
    if name == "tpu":
        return _build_tpu_strategy(tpu)
    raise ConfigError(f"--strategy={name} is unknown; use one of {', '.join(STRATEGIES)}.")


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the files of a run. In a cluster one process does."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type is None:
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" if has_chief else resolver.task_id == 0


def worker_name(strategy: tf.distribute.Strategy) -> str:
    """A name that is unique in the cluster, such as `worker-1`."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type is None:
        return "worker-0"
    return f"{resolver.task_type}-{resolver.task_id}"


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """The number of processes that train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    return sum(len(tasks) for tasks in strategy.cluster_resolver.cluster_spec().as_dict().values())


def is_remote(strategy: tf.distribute.Strategy) -> bool:
    """Whether the replicas run on another machine than this process, as those of a TPU node do."""
    if not isinstance(strategy, tf.distribute.TPUStrategy):
        return False
    return strategy.cluster_resolver.master() not in ("", "local")


@contextlib.contextmanager
def failing_fast(
    strategy: tf.distribute.Strategy, *, at_exit: Callable[..., object] = atexit.register
) -> Iterator[None]:
    """Ends a job of several workers soon, and with a reason, after one of them has failed in the body.

    Args:
      at_exit: is given a function and its argument, which end this process without TensorFlow's teardown. After an
        error the teardown can take half a minute, and until it is over the other workers know nothing.

    Raises:
      LostWorkerError: another worker no longer answers. TensorFlow says so in long errors of whatever was running.
    """
    try:
        yield
    except UserError as error:
        if num_workers(strategy) > 1:
            at_exit(_end_without_teardown, error.exit_code)
        raise
    except tf.errors.OpError as error:
        if num_workers(strategy) == 1 or not _LOST_WORKER.search(error.message):
            raise
        at_exit(_end_without_teardown, LostWorkerError.exit_code)
        raise LostWorkerError(
            f"{worker_name(strategy)} stops, because another worker of the job no longer answers "
            f"({_lost_worker(error.message)}). The reason is in the output of that worker. The same command on all "
            "machines resumes the run from the last checkpoint."
        ) from error


def _lost_worker(message: str) -> str:
    """What TensorFlow says of the lost worker, in few words."""
    task = re.search(r"/job:(\w+)(?:/replica:\d+)?/task:(\d+)", message)
    reason = "no heartbeat" if "heartbeat" in message.lower() else "a connection was closed"
    return f"{task[1]}-{task[2]}: {reason}" if task else reason


def _end_without_teardown(exit_code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def barrier(strategy: tf.distribute.Strategy) -> None:
    """Waits until every worker is here. After it, one worker may read what another wrote before it."""
    if num_workers(strategy) > 1:
        _build_barrier(strategy)().numpy()


@functools.cache
def _build_barrier(strategy: tf.distribute.Strategy) -> Callable[[], tf.Tensor]:
    """A sum over all replicas. No worker gets it before all workers have given their part."""

    @tf.function(autograph=False)
    def add_ones() -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.ones([])), axis=None)

    return add_ones


def build_any_worker(strategy: tf.distribute.Strategy) -> Callable[[Sequence[bool]], list[bool]]:
    """Returns a function that tells which of some statements is true on at least one worker.

    All workers have to call it together, with the same number of statements.
    """
    if num_workers(strategy) == 1:
        return list

    @tf.function(autograph=False)
    def count(values: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: values), axis=None)

    return lambda values: (count(tf.constant(list(values), tf.float32)).numpy() > 0).tolist()


def check_workers_agree(strategy: tf.distribute.Strategy, facts: Mapping[str, str]) -> None:
    """Compares what each worker is about to train, before the first step.

    Gradients are summed over workers. If one of them trains other weights, or on other data, the sum means nothing, and
    nothing else would notice.

    Args:
      facts: what has to be equal on all workers, by name, such as the step and the fingerprints of the data. Every
        worker passes the same names.

    Raises:
      ConfigError: names the workers that differ from the chief, and what differs. Every worker raises it.
    """
    if num_workers(strategy) == 1:
        return
    text = json.dumps(dict(facts), sort_keys=True)
    chief, *others = _gather_texts(strategy, text)
    differences = []
    for worker, other in others:
        theirs, expected = json.loads(other), json.loads(chief[1])
        differing = [
            f"{name} {theirs.get(name)!r} instead of {value!r}"
            for name, value in expected.items()
            if theirs.get(name) != value
        ]
        if differing:
            differences.append(f"worker {worker} has {', '.join(differing)}")
    if differences:
        raise ConfigError(
            f"The workers are not about to train the same thing, so none of them starts: compared with worker 0, "
            f"{'; '.join(differences)}. Give all workers one --workdir that they share, the same config, and the same "
            "ratings, and start all of them again."
        )


def value_of_chief(strategy: tf.distribute.Strategy, value: Any) -> Any:
    """Returns the chief's value, plain values that JSON can hold, on all workers. All of them have to call it."""
    return value if num_workers(strategy) == 1 else json.loads(_gather_texts(strategy, json.dumps(value))[0][1])


def _gather_texts(strategy: tf.distribute.Strategy, text: str) -> list[tuple[int, str]]:
    """The number and the text of each worker, in order of rank."""
    encoded = np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def all_gather(values: np.ndarray) -> np.ndarray:
        def gather() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            assert context is not None
            return context.all_gather(tf.constant(values), axis=0)

        # In a graph, because collective operations warn about their speed elsewhere.
        gathered = tf.function(lambda: strategy.run(gather), autograph=False)()
        return strategy.experimental_local_results(gathered)[0].numpy()

    replicas = strategy.num_replicas_in_sync
    sizes = all_gather(np.array([len(encoded)], np.int32))
    padded = np.zeros([1, sizes.max()], np.int32)
    padded[0, : len(encoded)] = encoded
    rows = all_gather(padded)
    per_worker = replicas // num_workers(strategy)
    return [
        (replica // per_worker, rows[replica, : sizes[replica]].astype(np.uint8).tobytes().decode())
        for replica in range(0, replicas, per_worker)
    ]


def _check_gpu(name: str) -> None:
    """Refuses to train on the CPU in the GPU image, whose user pays for GPUs."""
    if not tf.config.list_physical_devices("GPU"):
        raise ConfigError(
            f"--strategy={name}: this is the image for GPUs (LISTWISE_REQUIRE_GPU=1), and TensorFlow sees no GPU. "
            "Give the container GPUs (docker run --gpus=all; on Vertex AI, add an accelerator), or pass "
            "--allow_cpu to train on the CPU."
        )


def _build_multi_worker_strategy(text: str) -> tf.distribute.Strategy:
    """Builds the strategy of the processes in TF_CONFIG that train.

    It leaves out other processes: TensorFlow would wait forever for a reduction server, which is listed as `ps`.
    """
    if not text:
        raise ConfigError(
            "--strategy=multi_worker_mirrored needs TF_CONFIG in the environment, which describes the workers. Start "
            "the run with `python -m launch.local` or on Vertex AI, or use --strategy=mirrored for the devices of "
            "one machine."
        )
    cluster, task = parse_tf_config(text)
    configure_coordination_service(
        f"/job:{cluster.chief.type}/replica:0/task:{cluster.chief.index}",
        {job: len(addresses) for job, addresses in cluster.addresses.items()},
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS,
    )
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster.addresses), task_type=task.type, task_id=task.index, rpc_layer="grpc"
    )
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


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
            f"--strategy=tpu: no TPU answers at --tpu={node['tpu']} ({_first_sentence(error)}). On the machine "
            "of the TPU, install the TPU build of TensorFlow and use --tpu=local. From another machine, pass the "
            "name of the TPU or grpc://HOST:8470."
        ) from error


def _node_of_tpu_config(text: str) -> dict[str, str]:
    """Returns the arguments of the resolver for the node in TPU_CONFIG.

    TensorFlow's own client reads TPU_CONFIG. If cloud-tpu-client is installed, TensorFlow uses that client instead,
    which does not read the variable. With these arguments both find the node.
    """
    try:
        described = json.loads(text)
        node = {"tpu": "tpu_node_name", "zone": "zone", "project": "project"}
        return {argument: str(described[key]) for argument, key in node.items()}
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            "--tpu is empty, which means the node in the environment variable TPU_CONFIG. It should be JSON with "
            f"tpu_node_name, zone and project, but TPU_CONFIG is {text!r}. Pass --tpu=local, the name of the TPU, or "
            "grpc://HOST:8470."
        ) from error


def _check_tpu_node(name: str) -> None:
    """Refuses a node that is not healthy or runs another version of TensorFlow. Needs the `tpu` extra.

    Connecting to such a node would wait for many minutes, or fail in the middle of a step.
    """
    try:
        import cloud_tpu_client
    except ImportError:
        return
    try:
        client = cloud_tpu_client.Client(tpu=name)
        state, health, version = client.state(), client.health(), client.runtime_version()
    except Exception as error:  # The errors of its HTTP and credentials libraries have no common base class.
        raise ConfigError(
            f"--tpu={name}: Google Cloud does not know a TPU node of this name ({_first_sentence(error)}). "
            "Check the name and zone with `gcloud compute tpus list`, and log in with "
            "`gcloud auth application-default login`; grpc://HOST:8470 needs neither."
        ) from error
    if (state, health) != ("READY", "HEALTHY"):
        raise ConfigError(
            f"--tpu={name}: the node is not ready: its state is {state}, its health {health}. Wait until "
            f"`gcloud compute tpus describe {name}` shows READY and HEALTHY, start it if it was stopped, or create "
            "it again if it was preempted."
        )
    wanted, found = ".".join(tf.__version__.split(".")[:2]), re.search(r"\d+\.\d+", version or "")
    if found is None or found[0] != wanted:
        raise ConfigError(
            f"--tpu={name}: the node runs {version}, but TensorFlow {tf.__version__} is installed here. They must "
            f"agree. Create the node with a runtime of TensorFlow {wanted}, or install the node's version here."
        )


def _first_sentence(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].split(". ")[0]
