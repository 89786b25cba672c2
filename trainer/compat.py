"""TensorFlow Ranking 0.5.3 on TensorFlow 2.20 and 2.21. Import `tf`, `keras` and `tfr` from here.

Two problems are solved here before the first import:

- TensorFlow Ranking needs Keras 2. Since TensorFlow 2.16, Keras 2 is the package `tf-keras`. `tf.keras` is that
  package only if TF_USE_LEGACY_KERAS is set before TensorFlow is imported.
- TensorFlow Ranking imports `tensorflow.estimator`, which TensorFlow 2.16 removed, for functions that this project does
  not call. A stub with the one name that is read during the import is enough.

Versions after 0.5.3 require TensorFlow below 2.16.
"""

import contextlib
import os
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping

from settings.errors import Stopped

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


_DROP = b"\0drop\0"
_KEEPER = f"""
import sys
text = sys.stdin.buffer.read()
if not text.endswith({_DROP!r}):
    sys.stdout.buffer.write(text)
"""


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
    """Holds back what C++ code prints to stderr, and prints it if the body fails or the process dies.

    While it loads, TensorFlow 2.21 reports the instruction sets and drivers that it found, whatever
    TF_CPP_MIN_LOG_LEVEL is set to. A small process keeps that text. When the import succeeds it is told to drop the
    text. When Python raises, or when a native library aborts or crashes, the pipe closes and it prints the text.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _KEEPER], stdin=subprocess.PIPE, stdout=stderr, start_new_session=True
    )
    assert keeper.stdin is not None
    os.dup2(keeper.stdin.fileno(), 2)
    try:
        yield
        os.write(2, _DROP)
    except Stopped:
        os.write(2, _DROP)
        raise
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        keeper.stdin.close()
        keeper.wait()


with _held_stderr():
    import tensorflow as tf
    from tensorflow.python.eager import context

    # Looks for GPUs now. Otherwise the first tensor does, and reports an error of CUDA on a machine without GPUs.
    tf.config.list_physical_devices()


def _stub_estimator() -> None:
    """Puts a module with `ModeKeys` where TensorFlow Ranking looks for the estimator API."""

    class ModeKeys:
        TRAIN, EVAL, PREDICT = "train", "eval", "infer"

    for parent in ("tensorflow", "tensorflow.compat.v1"):
        name = f"{parent}.estimator"
        if name not in sys.modules:
            stub = types.ModuleType(name)
            stub.ModeKeys = ModeKeys  # type: ignore[attr-defined]
            sys.modules[name] = stub
            setattr(sys.modules[parent], "estimator", stub)  # noqa: B010


def _require_keras_2() -> None:
    """Raises ImportError if `tf.keras` is Keras 3, which TensorFlow Ranking cannot use."""
    if not tf.keras.Model.__module__.startswith("tf_keras."):
        raise ImportError(
            "TensorFlow was imported with Keras 3 before this project could choose Keras 2, which TensorFlow "
            "Ranking needs. Import trainer.compat before tensorflow, or set TF_USE_LEGACY_KERAS=1 in the "
            "environment."
        )


_require_keras_2()
_stub_estimator()

with _held_stderr():
    import tensorflow_ranking as tfr

keras = tf.keras

# Its warnings, for example of functions that are traced again for another run, are not for the user of a command.
tf.get_logger().setLevel("ERROR")
tf.autograph.set_verbosity(0)


def configure_coordination_service(
    leader: str, num_tasks: Mapping[str, int], *, heartbeat_timeout_seconds: float
) -> None:
    """Configures the service through which the workers of a job notice that one of them is lost.

    MultiWorkerMirroredStrategy configures it too, without a limit for heartbeats, unless that has been done before.
    TensorFlow has no public name for it.

    Args:
      leader: the task that runs the service, such as "/job:worker/replica:0/task:0".
      num_tasks: job name → the number of its tasks.
      heartbeat_timeout_seconds: a worker is lost when it sends no heartbeat for this long.
    """
    # The class of the messages has moved between versions. A field of a public message leads to it.
    service = tf.compat.v1.ConfigProto().experimental.coordination_config
    jobs = [service.coordinated_job_list.add(name=name, num_tasks=number) for name, number in num_tasks.items()]
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=leader,
        heartbeat_timeout_in_ms=round(1000 * heartbeat_timeout_seconds),
        coordinated_jobs=jobs,
    )


@contextlib.contextmanager
def stateless_random(seed: tf.Tensor | int, step: tf.Tensor | int, rows: tf.Tensor, num_rows: int) -> Iterator[None]:
    """Makes the random numbers of TensorFlow Ranking a function of (seed, step, global row).

    Its Gumbel and ListMLE losses call `tf.random.uniform`. The state of that generator is in no checkpoint, and each
    replica has its own. While this context is open, that is, while a step is traced, `tf.random.stateless_uniform`
    answers these calls. It draws the numbers of the whole global batch, and each replica takes those of its rows.
    So a resumed run draws what the uninterrupted run draws, on any number of replicas.

    Args:
      seed: of the run.
      step: of the run.
      rows: int32 [batch_size], the row of each list in the global batch.
      num_rows: the global batch size.
    """
    num_calls = 0

    def uniform(  # type: ignore[no-untyped-def]
        shape, minval=0, maxval=None, dtype=tf.float32, seed=None, name=None
    ):
        nonlocal num_calls
        num_calls += 1
        call_seed = tf.random.experimental.stateless_fold_in(base_seed, num_calls)
        shape = tf.convert_to_tensor(shape, tf.int32)
        # TensorFlow Ranking puts the samples of one list next to each other: the first axis is rows, or rows × samples.
        samples = shape[:1] // rows.shape[0]
        of_batch = tf.random.stateless_uniform(
            tf.concat([[num_rows], samples, shape[1:]], 0), call_seed, minval, maxval, dtype
        )
        return tf.reshape(tf.gather(of_batch, rows), shape, name=name)

    base_seed = tf.stack([tf.cast(seed, tf.int32), tf.cast(step, tf.int32)])
    stateful = tf.random.uniform
    tf.random.uniform = uniform
    try:
        yield
    finally:
        tf.random.uniform = stateful
