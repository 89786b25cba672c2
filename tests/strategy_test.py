import json

import pytest

from settings.errors import ConfigError
from trainer.compat import tf
from trainer.strategy import build_strategy

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
