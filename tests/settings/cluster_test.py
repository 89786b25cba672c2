import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settings.cluster import (
    Cluster,
    Task,
    format_cluster_spec,
    format_tf_config,
    parse_cluster_spec,
    parse_tf_config,
)
from settings.errors import ConfigError

ADDRESSES = st.from_regex(r"[a-z]{1,9}(-[0-9]{1,2})?:[1-9][0-9]{1,4}", fullmatch=True)


@st.composite
def clusters(draw) -> Cluster:
    chief, workers = draw(st.lists(ADDRESSES, max_size=1)), draw(st.lists(ADDRESSES, max_size=5))
    return Cluster({"worker": workers or ([] if chief else ["alone:2222"]), "chief": chief})


def vertex(task_type, index, **more_pools):
    """CLUSTER_SPEC of a job with a chief and two workers, in the format that Vertex AI documents."""
    cluster = {
        "workerpool0": ["cmle-training-workerpool0-ab-0:2222"],
        "workerpool1": ["cmle-training-workerpool1-ab-0:2222", "cmle-training-workerpool1-ab-1:2222"],
        **more_pools,
    }
    task = {"type": task_type, "index": index, "trial": "TRIAL_ID"}
    return json.dumps({"cluster": cluster, "environment": "cloud", "task": task, "job": "{}"})


VERTEX_CLUSTER = Cluster(
    {
        "chief": ["cmle-training-workerpool0-ab-0:2222"],
        "worker": ["cmle-training-workerpool1-ab-0:2222", "cmle-training-workerpool1-ab-1:2222"],
    }
)


def test_tf_config_is_what_tensorflow_reads(monkeypatch):
    from trainer.compat import tf

    cluster = Cluster({"worker": ["b:2", "c:3"], "chief": ["a:1"]})
    monkeypatch.setenv("TF_CONFIG", format_tf_config(cluster, Task("worker", 1)))
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert resolver.cluster_spec().as_dict() == {"chief": ["a:1"], "worker": ["b:2", "c:3"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)


@settings(deadline=None, max_examples=50)
@given(clusters())
def test_each_task_reads_back_the_cluster_and_its_index(cluster):
    assert len(cluster.tasks) == sum(map(len, cluster.addresses.values()))
    for task in cluster.tasks:
        assert parse_tf_config(format_tf_config(cluster, task)) == (cluster, task)
        assert parse_cluster_spec(format_cluster_spec(cluster, task)) == (cluster, task)


def test_the_chief_is_the_chief_or_worker_0():
    assert str(Cluster({"worker": ["a:1", "b:2"], "chief": ["c:3"]}).chief) == "chief 0"
    assert str(Cluster({"worker": ["a:1", "b:2"]}).chief) == "worker 0"


def test_worker_pools_are_read_as_task_types():
    assert parse_cluster_spec(vertex("workerpool0", 0)) == (VERTEX_CLUSTER, Task("chief", 0))
    assert parse_cluster_spec(vertex("workerpool1", 1)) == (VERTEX_CLUSTER, Task("worker", 1))


def test_reduction_servers_are_left_out():
    servers = ["cmle-training-workerpool2-ab-0:2222"]
    assert parse_cluster_spec(vertex("workerpool1", 0, workerpool2=servers)) == (VERTEX_CLUSTER, Task("worker", 0))
    tf_config = json.loads(format_tf_config(VERTEX_CLUSTER, Task("chief", 0)))
    tf_config["cluster"]["ps"] = servers
    assert parse_tf_config(json.dumps(tf_config)) == (VERTEX_CLUSTER, Task("chief", 0))


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        (parse_cluster_spec, vertex("workerpool2", 0, workerpool2=["s:1"]), "CLUSTER_SPEC: task type 'ps' does not"),
        (parse_cluster_spec, vertex("workerpool3", 0), "CLUSTER_SPEC: task type 'evaluator' does not train"),
        (parse_cluster_spec, vertex("workerpool1", 2), "this process as worker 2, but its cluster has no such task"),
        (parse_cluster_spec, vertex("workerpool1", -1), "this process as worker -1"),
        (parse_tf_config, vertex("workerpool0", 0), "task type 'workerpool0' does not train"),
        (parse_tf_config, '{"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}', "'evaluator'"),
        (parse_tf_config, "", "TF_CONFIG is not JSON of the form"),
        (parse_tf_config, "{'cluster'", "it is \"{'cluster'\""),
        (parse_tf_config, "[]", "it is '[]'"),
        (parse_tf_config, '{"cluster": {"worker": ["a:1"]}}', "is not JSON of the form"),
        (parse_tf_config, '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}', "of the form"),
        (parse_tf_config, '{"cluster": {"worker": ["a:1"]}, "task": {"type": ["worker"], "index": 0}}', "of the form"),
        (parse_tf_config, '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "x"}}', "of the form"),
    ],
)
def test_an_invalid_description_is_refused_in_one_line(parse, text, says):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("addresses", "says"),
    [
        ({}, "has no process"),
        ({"worker": []}, "has no process"),
        ({"chief": ["a:1", "b:2"]}, "has 2"),
        ({"worker": ["a:1"], "evaluator": ["b:2"]}, "'evaluator' does not train"),
    ],
)
def test_an_invalid_cluster_is_refused(addresses, says):
    with pytest.raises(ConfigError, match=says):
        Cluster(addresses)
