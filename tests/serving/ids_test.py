"""Ids inside of the exported model: any string, in any number, loaded by TensorFlow and as TensorFlow Serving does."""

import gc

import numpy as np
import pyarrow as pa
import pytest
from tensorflow.core.protobuf import saved_model_pb2

from trainer.compat import tf
from trainer.serving import ids as ids_module
from trainer.serving.ids import IdTable, string_variable

UNKNOWN = ["stranger", "", "a\n", "a\r", "c:", "back", "\\n", "UNK"]
IDS = [
    "",
    "a",
    "a\nb",
    "a\\nb",
    "back\\",
    "c:\\new\\table",
    "tab\t",
    "\r\n",
    " ",
    "  ",
    "-1",
    "0",
    "Zoë 🎬",
    "\x00",
    "é" * 99,
]


class Model(tf.Module):
    """Looks up ids in a table, and in another one."""

    def __init__(self, ids):
        super().__init__()
        self.table = IdTable(ids, name="ids")
        self.other = IdTable(["", "other", "a"], name="other")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def find(self, ids):
        indices = self.table.lookup(ids)
        return {"indices": indices, "ids": self.table.take(indices), "other": self.other.lookup(ids)}


def save(folder, ids=IDS):
    model = Model(ids)
    tf.saved_model.save(model, str(folder), signatures={"find": model.find})
    return str(folder)


def find_as_serving_does(folder, ids, num_requests=2):
    """Loads the graph into a session, restores the variables, runs the initializer, then answers each request."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def["find"]
        feeds = {signature.inputs["ids"].name: ids}
        fetches = {name: output.name for name, output in signature.outputs.items()}
        return [session.run(fetches, feeds) for _ in range(num_requests)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("ids") / "model")


@pytest.mark.parametrize("kind", [list, pa.array, lambda ids: pa.chunked_array([ids[:4], [], ids[4:]])])
def test_every_id_has_its_position_as_index(kind, monkeypatch):
    monkeypatch.setattr(ids_module, "_IDS_PER_CHUNK", 4)
    table = IdTable(kind(IDS), name="ids")
    table.fill()
    assert table.lookup(tf.constant([*reversed(IDS), *UNKNOWN])).numpy().tolist() == [
        *reversed(range(len(IDS))),
        *[0] * len(UNKNOWN),
    ]
    assert [text.decode() for text in table.take(tf.constant([[3, 0], [2, 12]])).numpy().ravel()] == [
        "a\\nb",
        "",
        "a\nb",
        "Zoë 🎬",
    ]


def test_a_loaded_model_knows_the_same_ids(folder):
    loaded = tf.saved_model.load(folder)
    found = loaded.find(tf.constant([*IDS, *UNKNOWN]))
    assert found["indices"].numpy().tolist() == [*range(len(IDS)), *[0] * len(UNKNOWN)]
    assert found["other"].numpy().tolist() == [0, 2, *[0] * (len(IDS) + len(UNKNOWN) - 2)]
    assert [text.decode() for text in found["ids"].numpy()] == [*IDS, *[""] * len(UNKNOWN)]


def test_a_session_knows_the_same_ids_in_every_request(folder):
    for found in find_as_serving_does(folder, [*IDS, *UNKNOWN]):
        assert found["indices"].tolist() == [*range(len(IDS)), *[0] * len(UNKNOWN)]
        assert [text.decode() for text in found["ids"]] == [*IDS, *[""] * len(UNKNOWN)]


def test_models_in_one_process_do_not_share_or_free_their_tables(folder, tmp_path):
    other = tf.saved_model.load(save(tmp_path / "other", ["", "b", "a"]))
    first, again = tf.saved_model.load(folder), tf.saved_model.load(folder)
    del first
    gc.collect()
    assert other.find(tf.constant(["a"]))["indices"].numpy().tolist() == [2]
    assert again.find(tf.constant(["a"]))["indices"].numpy().tolist() == [1]


def test_ids_are_stored_once_and_not_in_the_graph(tmp_path):
    """A graph cannot be larger than 2 GB."""
    sizes, num_bytes = [], []
    for number in (10, 20_000):
        ids = ["", *(f"identifier-{i:07}" for i in range(number))]
        folder = save(tmp_path / str(number), ids)
        graph = (tmp_path / str(number) / "saved_model.pb").read_bytes()
        assert b"identifier" not in graph
        sizes.append(len(graph))
        (data,) = (tmp_path / str(number) / "variables").glob("*.data*")
        assert data.read_bytes().count(b"identifier-0000007") == 1
        num_bytes.append(len(data.read_bytes()))
    assert abs(sizes[1] - sizes[0]) < 100
    assert num_bytes[1] - num_bytes[0] < 1.2 * 19_990 * len("identifier-0000007")
    loaded = tf.saved_model.load(folder)
    assert loaded.find(tf.constant(["identifier-0019999"]))["indices"].numpy().tolist() == [20_000]


def test_no_operation_names_the_device_of_the_worker_that_exported(folder):
    """A worker's name, such as /job:worker, does not exist where the model is loaded."""
    saved = saved_model_pb2.SavedModel()
    with open(f"{folder}/saved_model.pb", "rb") as file:
        saved.ParseFromString(file.read())
    graph = saved.meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert nodes and not any("job" in node.device for node in nodes)


def test_strings_are_made_some_at_a_time(monkeypatch):
    monkeypatch.setattr(ids_module, "_IDS_PER_CHUNK", 2)
    made = []
    constant = tf.constant
    monkeypatch.setattr(
        ids_module.tf, "constant", lambda values, dtype: made.append(len(values)) or constant(values, dtype)
    )
    values = string_variable(pa.array(["a", "b", "c", "d", "e"]), name="letters")
    assert made == [2, 2, 1]
    np.testing.assert_array_equal(values.numpy(), [b"a", b"b", b"c", b"d", b"e"])
