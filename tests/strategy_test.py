import json
from types import SimpleNamespace

import pytest
from tensorflow.python.eager import context

from settings.errors import ConfigError, DataError, LostWorkerError, Stopped
from trainer import strategy as strategy_lib
from trainer.compat import tf
from trainer.strategy import build_strategy, failing_fast

CLUSTER = {"chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]}


def tf_config(task_type, index=0, cluster=CLUSTER):
    return json.dumps({"cluster": cluster, "task": {"type": task_type, "index": index}})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "needs TF_CONFIG in the environment"),
        ("{'cluster'", "TF_CONFIG is not JSON of the form"),
        ('{"cluster": {}}', "TF_CONFIG is not JSON of the form"),
        (tf_config(["worker"]), "TF_CONFIG is not JSON of the form"),
        (tf_config("worker", cluster={"worker": "127.0.0.1:1"}), "TF_CONFIG is not JSON of the form"),
        (tf_config("evaluator"), "task type 'evaluator' does not train"),
        (tf_config("ps", cluster={**CLUSTER, "ps": ["127.0.0.1:3"]}), "task type 'ps' does not train"),
        (tf_config("worker", 1), "this process as worker 1, but its cluster"),
    ],
)
def test_a_tf_config_that_cannot_train_is_refused(monkeypatch, value, says):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(ConfigError) as caught:
        build_strategy("multi_worker_mirrored")
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("num_devices", "mirrored"), [(1, False), (2, True)])
def test_only_several_devices_are_mirrored(monkeypatch, num_devices, mirrored):
    devices = tf.config.list_logical_devices("CPU")[:num_devices]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: devices if kind == "CPU" else [])
    strategy = build_strategy("mirrored")
    assert strategy.num_replicas_in_sync == num_devices
    assert isinstance(strategy, tf.distribute.MirroredStrategy) == mirrored


def test_workers_notice_within_seconds_that_another_one_is_lost(monkeypatch):
    """The service is configured before the strategy starts it."""
    monkeypatch.setattr(context.context(), "_coordination_service_config", None)
    started = []
    monkeypatch.setattr(
        tf.distribute, "MultiWorkerMirroredStrategy", lambda _: started.append(context.context().coordination_service)
    )
    monkeypatch.setenv("TF_CONFIG", tf_config("worker", 0, {"chief": ["a:1"], "worker": ["b:1", "c:1"]}))
    build_strategy("multi_worker_mirrored")
    (service,) = started
    assert service.service_type == "standalone"
    assert service.service_leader == "/job:chief/replica:0/task:0"
    assert service.heartbeat_timeout_in_ms == 20_000
    assert [(job.name, job.num_tasks) for job in service.coordinated_job_list] == [("chief", 1), ("worker", 2)]


# The ends of what TensorFlow 2.21 raises on the other worker after SIGSTOP and SIGKILL of one of two.
LOST = {
    "frozen": (
        tf.errors.UnavailableError,
        "Graph execution error:\n\nDetected at node CollectiveReduceV2 defined at (most recent call last):\n  ...\n"
        "Collective ops is aborted by: Error reported from /job:worker/task:1: The following tasks are unhealthy "
        "(stopped sending heartbeats):\n/job:worker/replica:0/task:1\nThe tasks have crashed. ...",
        "(worker-1: no heartbeat)",
    ),
    "the leader is frozen": (
        tf.errors.DeadlineExceededError,
        "Graph execution error:\n\nCollective ops is aborted by: Deadline Exceeded\n\n"
        "RPC: /tensorflow.CoordinationService/Heartbeat",
        "(no heartbeat)",
    ),
    "dead": (
        tf.errors.UnavailableError,
        "Collective ops is aborted by: recvmsg:Connection reset by peer\nAdditional GRPC error information from remote "
        "target /job:worker/replica:0/task:1 while calling /tensorflow.WorkerService/RecvBuf:",
        "(worker-1: a connection was closed)",
    ),
}


@pytest.fixture
def one_of_two(monkeypatch):
    """A strategy that counts as one of two workers."""
    monkeypatch.setattr(strategy_lib, "num_workers", lambda strategy: 2)
    resolver = SimpleNamespace(task_type="worker", task_id=0)
    return SimpleNamespace(cluster_resolver=resolver)


@pytest.mark.parametrize(("error_type", "message", "says"), LOST.values(), ids=LOST)
def test_a_lost_worker_is_one_sentence_and_ends_the_process_soon(one_of_two, error_type, message, says):
    exits = []
    with pytest.raises(LostWorkerError) as caught, failing_fast(one_of_two, at_exit=lambda *what: exits.append(what)):
        raise error_type(None, None, message)
    assert caught.value.exit_code == 75 and [code for _, code in exits] == [75]
    assert str(caught.value).startswith("worker-0 stops") and says in str(caught.value)
    assert "resumes the run from the last checkpoint" in str(caught.value) and "\n" not in str(caught.value)


def test_other_errors_stay_as_they_are(one_of_two):
    exits = []
    bug = tf.errors.InvalidArgumentError(None, None, "Incompatible shapes: [3] vs. [4]")
    for error in (bug, ValueError("a bug"), Stopped("after step 7", exit_code=143)):
        with pytest.raises(type(error)) as caught, failing_fast(one_of_two, at_exit=lambda *what: exits.append(what)):
            raise error
        assert caught.value is error
    assert not exits


def test_an_error_of_this_worker_ends_it_soon_with_its_own_code(one_of_two):
    """So that the launcher learns the reason before the other workers lose this one."""
    exits = []
    with pytest.raises(DataError), failing_fast(one_of_two, at_exit=lambda *what: exits.append(what)):
        raise DataError("two files differ")
    assert [code for _, code in exits] == [65]


def test_a_process_that_trains_alone_has_no_one_to_lose():
    exits = []
    for error in (tf.errors.UnavailableError(None, None, LOST["dead"][1]), DataError("no ratings")):
        with (
            pytest.raises(type(error)) as caught,
            failing_fast(tf.distribute.get_strategy(), at_exit=lambda *what: exits.append(what)),
        ):
            raise error
        assert caught.value is error
    assert not exits
