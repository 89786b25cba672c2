"""What TensorBoard shows beside the metrics: histograms, the projector, and metrics of training items."""

import csv

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from trainer import storage
from trainer.compat import tf
from trainer.data.vocabulary import build_vocabulary
from trainer.modeling.embedding import EmbeddingTable
from trainer.schema import ITEMS_SCHEMA
from trainer.training.distributions import histogram
from trainer.training.projector import write_projector


def test_a_histogram_counts_each_finite_value_once():
    values = np.array([[0.0, 0.0, 1.0], [0.5, np.inf, np.nan]], np.float32)
    buckets = histogram(values)
    assert buckets[:, 2].sum() == 4
    assert (buckets[0, 0], buckets[0, 2], buckets[-1, 1], buckets[-1, 2]) == (0.0, 2, 1.0, 1)
    np.testing.assert_array_equal(buckets[1:, 0], buckets[:-1, 1])
    (middle,) = buckets[(buckets[:, 0] <= 0.5) & (buckets[:, 1] > 0.5)]
    assert middle[2] == 1


def test_a_histogram_of_equal_values_or_none():
    np.testing.assert_array_equal(histogram(np.full(3, 0.5)), [[0.5, 0.5, 3]])
    assert histogram(np.array([np.nan])).shape == (0, 3)


@pytest.mark.parametrize("chunk_bytes", [1, 20, 1000])
def test_the_norms_of_a_table_leave_out_the_unknown_row_and_stop_at_the_limit(monkeypatch, chunk_bytes):
    monkeypatch.setattr("trainer.modeling.chunks.CHUNK_BYTES", chunk_bytes)
    table = EmbeddingTable(5, 2, seed=0, initial_values=np.float32([[9, 9], [3, 4], [0, 0], [6, 8], [5, 12]]))
    np.testing.assert_allclose(table.norms(10), [5, 0, 10, 13])
    np.testing.assert_allclose(table.norms(2), [5, 0])
    bias = EmbeddingTable(3, 1, seed=0, initial_values=np.float32([[9], [-2], [3]]))
    np.testing.assert_allclose(bias.norms(10), [-2, 3])


@pytest.fixture(params=["local", "ram"])
def logs(request, tmp_path):
    return str(tmp_path / "logs") if request.param == "local" else f"ram://{tmp_path.name}/logs"


@pytest.fixture
def vocabulary():
    """Items by popularity: c, a, b."""
    ratings = pa.table({"user_id": ["u", "u", "u", "v", "v", "w"], "item_id": ["a", "b", "c", "c", "a", "c"]})
    items = {
        "item_id": ["a", "b", "c"],
        "title": ["Tab\r\n\there", "", '"Quoted", Été'],
        "genres": [["Drama", "War\tfilm"], [], ["Comedy"]],
    }
    return build_vocabulary(ratings, pa.table(items, ITEMS_SCHEMA))


def vectors_fn(items):
    return tf.stack([tf.cast(items, tf.float32), -tf.cast(items, tf.float32) / 3], axis=1)


def tsv(logs, name):
    text = storage.read_bytes(f"{logs}/projector/{name}").decode()
    return list(csv.reader(text.split("\n")[:-1], delimiter="\t", quoting=csv.QUOTE_NONE))


def test_the_projector_has_a_vector_and_a_description_of_each_item(logs, vocabulary):
    write_projector(logs, vectors_fn, vocabulary)
    assert tsv(logs, "metadata.tsv") == [
        ["item_id", "title", "genres", "num_ratings"],
        ["c", '"Quoted", Été', "Comedy", "3"],
        ["a", "Tab here", "Drama, War film", "2"],
        ["b", "b", "", "1"],
    ]
    vectors = np.float32(tsv(logs, "items.tsv"))
    np.testing.assert_allclose(vectors, [[1, -1 / 3], [2, -2 / 3], [3, -1]], atol=5e-5)
    config = text_format.Parse(storage.read_bytes(f"{logs}/projector_config.pbtxt"), ProjectorConfig())
    (embedding,) = config.embeddings
    assert list(embedding.tensor_shape) == [3, 2]
    assert (embedding.tensor_path, embedding.metadata_path) == ("projector/items.tsv", "projector/metadata.tsv")


def test_the_projector_has_the_most_popular_items_of_a_large_catalogue(logs, vocabulary):
    write_projector(logs, vectors_fn, vocabulary)
    write_projector(logs, vectors_fn, vocabulary, max_items=2)
    assert [row[0] for row in tsv(logs, "metadata.tsv")] == ["item_id", "c", "a"]
    assert len(tsv(logs, "items.tsv")) == 2


def test_tensorboards_projector_reads_the_files(tmp_path, vocabulary):
    from tensorboard.plugins.projector.projector_plugin import _read_tensor_tsv_file, _rel_to_abs_asset_path

    write_projector(str(tmp_path), vectors_fn, vocabulary)
    path = _rel_to_abs_asset_path("projector/items.tsv", str(tmp_path / "projector_config.pbtxt"))
    np.testing.assert_allclose(_read_tensor_tsv_file(path), [[1, -1 / 3], [2, -2 / 3], [3, -1]], atol=5e-5)
