"""The whole `tpu` path, with four CPU devices in place of a TPU's cores, and what refuses to start on it.

TensorFlow's own resolver is real. Played are the service that knows TPU nodes by name, connecting to one,
starting it, and the strategy over its cores.
"""

import json
import sys
import types
import urllib.error

import numpy as np
import pytest
from tensorflow.python.distribute.cluster_resolver.tpu import tpu_cluster_resolver

from settings.errors import ConfigError
from settings.trainer_config import load_trainer_config
from tests.conftest import mirrored_strategy, train
from trainer import schema
from trainer import strategy as strategy_lib
from trainer.compat import tf
from trainer.evaluation.metrics import build_metrics
from trainer.modeling.two_tower import TwoTowerModel
from trainer.serving.export import verify_in_this_process
from trainer.training import losses, optimizers, steps
from trainer.training.objectives import Objective, rank_rated
from trainer.training.run import train_and_evaluate

TF_VERSION = ".".join(tf.__version__.split(".")[:2])
NODE_OF_VERTEX = {"tpu_node_name": "pod", "zone": "europe-west4-a", "project": "mine"}


class CloudTpuClient:
    """The class of that name of cloud-tpu-client, as far as it goes without a network."""

    nodes = {}  # noqa: RUF012
    asked = []  # noqa: RUF012

    def __init__(self, tpu=None, zone=None, project=None, **_):
        if not tpu:  # It does not look at TPU_CONFIG.
            raise ValueError("Please provide a TPU Name to connect to.")
        self.asked.append((tpu, zone, project))
        self._name = tpu

    def _get(self, key):
        if self._name not in self.nodes:
            raise urllib.error.URLError(f"no node {self._name}")
        return self.nodes[self._name].get(key)

    def name(self):
        return self._name

    def state(self):
        return self._get("state")

    def health(self):
        return self._get("health")

    def runtime_version(self):
        return self._get("tensorflowVersion")

    def network_endpoints(self):
        self._get("state")
        return [{"ipAddress": "10.0.0.7", "port": "8470"}]


@pytest.fixture
def client(monkeypatch):
    """cloud-tpu-client as installed: TensorFlow's resolver has taken it in place of its own client."""
    module = types.ModuleType("cloud_tpu_client")
    module.Client = CloudTpuClient
    monkeypatch.setitem(sys.modules, "cloud_tpu_client", module)
    monkeypatch.setattr(tpu_cluster_resolver, "client", module)
    healthy = {"state": "READY", "health": "HEALTHY", "tensorflowVersion": f"tpu-vm-tf-{TF_VERSION}.0-pjrt"}
    monkeypatch.setattr(CloudTpuClient, "nodes", {"mine": healthy})
    monkeypatch.setattr(CloudTpuClient, "asked", [])
    return CloudTpuClient


@pytest.fixture
def tpu(monkeypatch):
    """Four CPU devices as a TPU. Returns what happened to it: (what, the address of its first host)."""
    happened = []
    strategy = mirrored_strategy(4)

    class IsTheTpu(type):
        def __instancecheck__(cls, instance):
            return instance is strategy

    class TPUStrategy(metaclass=IsTheTpu):
        def __new__(cls, resolver):
            happened.append(("strategy", resolver.master()))
            monkeypatch.setattr(strategy.extended, "_cluster_resolver", resolver, raising=False)
            return strategy

    monkeypatch.setattr(tf.distribute, "TPUStrategy", TPUStrategy)
    monkeypatch.setattr(
        tf.config, "experimental_connect_to_cluster", lambda resolver: happened.append(("connect", resolver.master()))
    )
    monkeypatch.setattr(
        tf.tpu.experimental, "initialize_tpu_system", lambda resolver: happened.append(("start", resolver.master()))
    )
    return happened


@pytest.fixture(autouse=True)
def no_tpu_in_the_environment(monkeypatch):
    for name in ("TPU_CONFIG", "TPU_NAME", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS"):
        monkeypatch.delenv(name, raising=False)


def refusal(address):
    """The paragraph with which an address is refused."""
    with pytest.raises(ConfigError) as caught:
        strategy_lib.build_strategy("tpu", tpu=address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.long
def test_a_whole_run_on_a_tpu_is_that_of_one_device(tiny_config, tmp_path, tpu):
    tiny_config.train.num_epochs = 1
    tiny_config.eval.metrics = ("ndcg@5",)
    tiny_config.eval.num_catalogue_users = 0

    def run(strategy_name):
        workdir = tmp_path / strategy_name
        assert train(tiny_config, workdir, strategy_name) == 0
        assert (workdir / "model" / "saved_model.pb").exists()
        return json.loads((workdir / "result.json").read_text())

    alone = run("default")
    together = run("tpu")
    assert tpu == [("start", ""), ("strategy", "")]
    assert together["speed"]["strategy"] == "tpu" and together["speed"]["num_replicas"] == 4
    for who in ("model", "random"):
        expected = pytest.approx(alone["protocols"]["rated"][who]["ndcg@5"], rel=1e-3)
        assert together["protocols"]["rated"][who]["ndcg@5"] == expected, who


@pytest.mark.long
def test_a_tpu_on_another_machine_is_fed_from_here(tiny_config, tmp_path, tpu):
    """Its own input pipeline could not gather lists. The weights are those of one device."""
    tiny_config.train.num_epochs = 1
    tiny_config.eval.num_catalogue_users = 0
    assert train(tiny_config, tmp_path / "alone") == 0
    config = load_trainer_config(tiny_config)
    arguments = {"workdir": str(tmp_path / "remote"), "verify_export": verify_in_this_process}
    assert train_and_evaluate(config, strategy_name="tpu", tpu="grpc://10.1.2.3:8470", **arguments) == 0
    curves = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("alone", "remote")
    ]
    for line, expected in zip(*curves, strict=True):
        for name, value in expected["metrics"].items():
            assert name == "lists_per_second" or line["metrics"][name] == pytest.approx(value, rel=1e-4), name


def test_a_tpu_compiles_what_strategy_run_runs(tpu):
    assert strategy_lib.compilation(strategy_lib.build_strategy("tpu")) is strategy_lib.Compilation.RUN


def test_what_a_tpu_compiles_compiles_as_one_function():
    """A step and its metrics, compiled whole by XLA here, give the numbers of the step that is not compiled."""
    batch = {
        schema.QUERY: tf.constant([[1, 2]]),
        schema.ITEMS: tf.constant([[[1, 2, 3], [4, 3, 0]]]),
        schema.LABELS: tf.constant([[[5.0, 1.0, 3.0], [2.0, 4.0, -1.0]]]),
        schema.WEIGHTS: tf.ones([1, 2]),
        schema.ROWS: tf.constant([[0, 1]]),
        schema.NUM_LISTS: tf.constant([2.0]),
    }

    def take(*, compiled):
        model = TwoTowerModel(num_queries=3, num_items=5, embedding_size=4, seed=1)
        optimizer = optimizers.build_optimizer(
            "adagrad",
            optimizers.build_schedule("constant", learning_rate=0.3, total_steps=9, warmup_steps=0),
            tables=model.table_variables,
        )
        optimizer.build(model.trainable_variables)
        objective = Objective(model, rank_rated(model, losses.build_loss("softmax_loss", global_batch_size=2)))
        step = steps.TrainStep(model, optimizer, objective, keep_scores=True, jit_compile=False)
        metrics = build_metrics(["ndcg"], relevance_threshold=4.0)

        def run() -> tf.Tensor:
            accumulators = step(batch, tf.constant(0), tf.constant(0, tf.int64), step.empty_accumulators(batch))
            return steps.sum_metrics(
                metrics, batch, accumulators.sums, accumulators.scores, tf.constant(0), tf.constant(1)
            )

        sums = tf.function(run, jit_compile=True)() if compiled else run()
        return [sums.numpy(), *model.get_weights()]

    for actual, expected in zip(take(compiled=True), take(compiled=False), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_an_address_is_connected_to_as_given(tpu):
    strategy_lib.build_strategy("tpu", tpu="grpc://10.1.2.3:8470")
    assert tpu == [(what, "grpc://10.1.2.3:8470") for what in ("connect", "start", "strategy")]


def test_a_healthy_node_is_connected_to_by_its_name(tpu, client):
    strategy = strategy_lib.build_strategy("tpu", tpu="mine")
    assert tpu == [(what, "grpc://10.0.0.7:8470") for what in ("connect", "start", "strategy")]
    assert {name for name, *_ in client.asked} == {"mine"}
    assert strategy_lib.is_chief(strategy) and strategy_lib.num_workers(strategy) == 1


@pytest.mark.parametrize(
    ("differs", "says"),
    [
        ({"state": "PREEMPTED"}, "its state is PREEMPTED"),
        ({"health": "TIMEOUT"}, "its health TIMEOUT"),
        ({"tensorflowVersion": "2.8.0"}, "the node runs 2.8.0"),
        ({"tensorflowVersion": f"{TF_VERSION}1.0"}, f"the node runs {TF_VERSION}1.0"),
        ({"tensorflowVersion": "nightly"}, "the node runs nightly"),
        ({"tensorflowVersion": None}, "the node runs None"),
    ],
)
def test_a_node_that_cannot_work_is_refused_before_it_is_connected_to(tpu, client, differs, says):
    client.nodes["mine"] |= differs
    assert says in refusal("mine") and tpu == []


def test_a_node_that_nobody_knows_is_refused(tpu, client):
    assert "no node yours" in refusal("yours") and tpu == []


def test_a_tpu_that_does_not_answer_is_said(tpu, monkeypatch):
    def unreachable(resolver):
        raise tf.errors.UnavailableError(None, None, "failed to connect to all addresses. More of this\nand that")

    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", unreachable)
    said = refusal("grpc://10.1.2.3:8470")
    assert "no TPU answers at --tpu=grpc://10.1.2.3:8470 (failed to connect to all addresses)" in said
    assert tpu == []


def test_the_node_of_vertex_is_found_although_cloud_tpu_client_is_installed(tpu, client, monkeypatch):
    """That client, which TensorFlow then prefers to its own, does not know TPU_CONFIG."""
    client.nodes["pod"] = {"state": "READY"}  # Vertex AI sees to its health.
    monkeypatch.setenv("TPU_CONFIG", json.dumps(NODE_OF_VERTEX))
    strategy_lib.build_strategy("tpu", tpu="")
    assert tpu == [(what, "grpc://10.0.0.7:8470") for what in ("connect", "start", "strategy")]
    assert set(client.asked) == {("pod", "europe-west4-a", "mine")}


@pytest.mark.parametrize("text", [None, "", "{", '{"tpu_node_name": "pod"}', "[]"])
def test_an_empty_name_needs_the_node_of_vertex(tpu, client, monkeypatch, text):
    if text is not None:
        monkeypatch.setenv("TPU_CONFIG", text)
    assert f"TPU_CONFIG is {text or ''!r}" in refusal("") and tpu == []
