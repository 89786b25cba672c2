"""What TensorBoard shows beside the metrics: histograms, the projector, and metrics of training items."""

import csv
import json

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from tests.conftest import NUM_ITEMS, train
from tests.evaluation.helpers import dataset_of
from trainer import schema, storage
from trainer.compat import tf
from trainer.data.vocabulary import build_vocabulary
from trainer.modeling.embedding import EmbeddingTable
from trainer.modeling.two_tower import TwoTowerModel
from trainer.schema import ITEMS_SCHEMA
from trainer.training.distributions import build_distribution_fn, histogram
from trainer.training.divergence import NO_STEP
from trainer.training.loop import RunState, Trainer
from trainer.training.metric_writer import MetricWriter
from trainer.training.projector import write_projector
from trainer.training.steps import Taken


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


def test_distributions_are_those_of_the_current_weights():
    """Item i has the vector (i, 0) and the bias −i. User u has the vector (u, 1)."""
    dataset = dataset_of(3, 4, train=[(1, 1, 5), (1, 2, 5), (2, 3, 5)])
    model = TwoTowerModel(num_queries=3, num_items=4, embedding_size=2, item_bias=True)
    measure = build_distribution_fn(model, model, dataset)
    numbers = np.arange(4, dtype=np.float32)
    model.query_tower.tables[schema.QUERY].embeddings.assign(np.stack([numbers[:3], np.ones(3)], axis=1))
    for scale in (1, 2):
        model.candidate_tower.tables[schema.ITEMS].embeddings.assign(scale * np.stack([numbers, 0 * numbers], axis=1))
        model.item_bias.embeddings.assign(-numbers[:, np.newaxis])
        found = measure(model.catalogue_vectors())
        assert found.keys() == {"scores", *(f"embedding_norms/{name}" for name in ("query", "items", "item_bias"))}
        scores = scale * np.outer([1, 2], [1, 2, 3]) - [1, 2, 3]
        np.testing.assert_array_equal(found["scores"], histogram(scores.astype(np.float32)))
        np.testing.assert_array_equal(found["embedding_norms/items"], histogram(scale * numbers[1:]))
        np.testing.assert_array_equal(found["embedding_norms/item_bias"], histogram(-numbers[1:]))
        np.testing.assert_allclose(found["embedding_norms/query"], histogram(np.sqrt(np.float32([2, 5]))), rtol=1e-6)


def test_a_run_shows_training_and_validation_on_one_chart(tiny_config, tmp_path):
    tiny_config.candidates.method = "catalogue"
    tiny_config.eval.best_metric = "catalogue/ndcg@5"
    tiny_config.train.num_epochs = 2
    train(tiny_config, tmp_path)
    steps = {}
    for split in ("train", "validation", "."):
        reader = EventAccumulator(str(tmp_path / "logs" / split))
        reader.Reload()
        steps[split] = {tag: [event.step for event in reader.Tensors(tag)] for tag in reader.Tags()["tensors"]}
    for split in ("train", "validation"):
        for name in ("relative_loss", "catalogue/ndcg@5"):
            assert steps[split][f"1_learning/{name}"] == [10, 20]
        assert steps[split]["2_metrics/catalogue/mrr"] == steps[split]["3_training/loss"] == [10, 20]
    assert steps["validation"]["scores"] == steps["validation"]["2_recommendations"] == [10, 20]
    assert steps["."]["1_final_metrics"] == steps["."]["10_final/catalogue/ndcg@5/popularity"] == [20]
    assert not (tmp_path / "logs" / "test").exists()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    of_training = {name for line in lines if line["split"] == "train" for name in line["metrics"]}
    assert of_training - {"lists_per_second"} == {"loss", "relative_loss", "learning_rate"}
    assert len((tmp_path / "logs" / "projector" / "items.tsv").read_text().splitlines()) == NUM_ITEMS


def test_sums_of_an_earlier_version_are_continued():
    """It saved none of the relative loss."""
    state = RunState(step=4, accumulators=[[1.0, 2.0]])
    trainer = Trainer(
        state=state,
        train_call=lambda *arguments: Taken(
            tf.constant([[3.0, 2.0], [1.0, 4.0]]), tf.constant(NO_STEP, tf.int64), tf.zeros([2])
        ),
        batches=iter([{}]),
        learning_rate_fn=lambda step: 0.0,
        metric_names=["loss", "relative_loss"],
        epoch_steps=10,
        global_batch_size=2,
        validate_fn=None,
        best_metric="loss",
        best_direction="min",
        writer=MetricWriter([]),
    )
    trainer.train(4, 5)
    trainer.log()
    assert state.train_metrics == {"loss": 1.0, "relative_loss": 0.25}
