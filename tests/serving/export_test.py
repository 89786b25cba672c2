"""Exporting a model, and finding out whether an exported model can be used."""

import json
import shutil

import numpy as np
import pytest

from settings.errors import ConfigError, StorageError
from tests.conftest import mirrored_strategy
from tests.serving.planted import CANDIDATES, NO_HISTORY, QUERIES, SIZES, VOCABULARY, build_model
from trainer.compat import tf
from trainer.data.vocabulary import Vocabulary
from trainer.features import FeatureSpec
from trainer.modeling.two_tower import TwoTowerModel
from trainer.schema import ITEMS, QUERY
from trainer.serving import manifest
from trainer.serving.export import export_model, is_whole, load_export, verify_in_this_process
from trainer.serving.serving_model import ServingModel


def export(folder, *, verify=verify_in_this_process):
    export_model(build_model(), VOCABULARY, str(folder), sizes=SIZES, query_source=NO_HISTORY, verify=verify)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copied(folder, tmp_path):
    """An export that the test may damage."""
    return shutil.copytree(folder, tmp_path / "model")


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_the_check_gets_the_scores_of_the_trained_model(tmp_path, num_replicas):
    samples = []
    with mirrored_strategy(num_replicas).scope():
        model = build_model()
    export_model(
        model, VOCABULARY, str(tmp_path / "model"), sizes=SIZES, query_source=NO_HISTORY, verify=samples.append
    )
    (sample,) = samples
    assert (sample["user_ids"], sample["item_ids"]) == (["u", "v"], ["a", "b", "c", "d", "e"])
    np.testing.assert_array_equal(sample["scores"], QUERIES[1:] @ CANDIDATES[1:].T)
    assert sample["most_popular"] == "a"
    assert sample["folder"] == str(tmp_path / "model.partial")
    np.testing.assert_array_equal(load_export(str(tmp_path / "model")).candidates, CANDIDATES)


def test_a_model_with_hidden_layers_and_item_features_is_copied_completely(tmp_path):
    sizes = SIZES | {
        "hidden_sizes": (4,),
        "features": [FeatureSpec("year", "item", "float32"), FeatureSpec("genre", "item", shape=(2,), num_values=3)],
        "item_features": {
            "year": np.array([0, -1, 1, 0.5, 2, 3], np.float32),
            "genre": np.array([[0, 0], [1, 0], [2, 1], [1, 2], [0, 0], [2, 0]], np.int32),
        },
    }
    model = TwoTowerModel(**sizes, seed=7)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    export_model(model, VOCABULARY, str(tmp_path), sizes=sizes, query_source=NO_HISTORY, verify=verify_in_this_process)
    features = {QUERY: tf.constant([1, 2]), ITEMS: tf.constant([[1, 2, 3, 4, 5]] * 2)}
    loaded = load_export(str(tmp_path))
    scores = loaded.score_indices({QUERY: features[QUERY]}, features[ITEMS])
    np.testing.assert_allclose(scores, model(features), rtol=1e-5)
    assert np.std(scores) > 0.1


def test_no_table_is_stored_twice(tmp_path):
    """The vectors of the items are stored, and not the embeddings and biases that they come from."""
    sizes = SIZES | {"embedding_size": 7, "item_bias": True}
    export_model(
        TwoTowerModel(**sizes),
        VOCABULARY,
        str(tmp_path),
        sizes=sizes,
        query_source=NO_HISTORY,
        verify=verify_in_this_process,
    )
    shapes = tf.train.load_checkpoint(str(tmp_path / "variables" / "variables")).get_variable_to_shape_map()
    assert sorted(shape for shape in shapes.values() if len(shape) == 2) == [[3, 7], [6, 8]]


def test_a_model_with_other_scores_is_refused_and_the_earlier_one_kept(copied):
    earlier = contents(copied)

    def verify_another(sample):
        candidates = CANDIDATES.copy()
        candidates[3, 0] += 0.01
        other = ServingModel(build_model(candidates=candidates), VOCABULARY, NO_HISTORY)
        tf.saved_model.save(other, sample["folder"], signatures=other.build_signatures())
        return verify_in_this_process(sample)

    with pytest.raises(StorageError, match=r"failed its check and was not kept.* by up to 0\.01") as refused:
        export(copied, verify=verify_another)
    assert str(copied) in str(refused.value) and "\n" not in str(refused.value)
    assert contents(copied) == earlier
    assert [path.name for path in copied.parent.iterdir()] == ["model"]


def test_an_export_replaces_what_an_interrupted_one_left(copied):
    partial = copied.with_name("model.partial")
    partial.mkdir()
    (partial / "junk").write_text("from an interrupted export")
    (copied / "saved_model.pb").write_text("damaged")
    export(copied)
    assert is_whole(str(copied), VOCABULARY)
    assert not list(copied.rglob("junk"))
    assert [path.name for path in copied.parent.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot be exported to .*file/model"):
        export(tmp_path / "file" / "model")


def test_a_whole_export_is_accepted(copied):
    assert is_whole(str(copied), VOCABULARY)
    model = load_export(str(copied), VOCABULARY)
    items, _ = model.recommend_indices({QUERY: tf.constant([1])}, 2, tf.zeros([1, 0], tf.int32))
    assert items.numpy().tolist() == [[3, 1]]


def flip_a_bit(folder):
    path = folder / "variables" / "variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_manifest(folder, **fields):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "the content of its file variables/variables.data-00000-of-00001 has changed"),
        (lambda folder: (folder / "saved_model.pb").write_bytes(b""), "the content of its file saved_model.pb has"),
        (lambda folder: (folder / "saved_model.pb").unlink(), "its file saved_model.pb is missing"),
        (lambda folder: shutil.rmtree(folder / "variables"), r"its file variables/variables.\S+ is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "it has no manifest.json, so an older version exported"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "its manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "its manifest.json cannot be read"),
        (lambda folder: edit_manifest(folder, format_version=2), "its format_version is 2, and .* reads 3"),
    ],
)
def test_a_damaged_export_is_found_and_refused(copied, damage, message):
    damage(copied)
    assert not is_whole(str(copied), VOCABULARY)
    with pytest.raises(StorageError, match=message) as refused:
        load_export(str(copied))
    assert str(copied) in str(refused.value)
    assert "exports the model again from the checkpoint" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_export_with_another_order_of_ids_is_refused(copied):
    """Every id is known, but to another index: the titles would belong to other items."""
    order = [0, 2, 1, 3, 4, 5]
    permuted = Vocabulary(users=VOCABULARY.users, items=VOCABULARY.items.take(order))
    assert not is_whole(str(copied), permuted)
    with pytest.raises(StorageError, match="it was exported with another vocabulary"):
        load_export(str(copied), permuted)


def test_an_export_that_tensorflow_cannot_load_is_refused(copied):
    (copied / "saved_model.pb").write_bytes(b"not a SavedModel")
    manifest.write_manifest(str(copied), vocabulary_fingerprint=VOCABULARY.fingerprint())
    assert is_whole(str(copied), VOCABULARY)
    with pytest.raises(StorageError, match="TensorFlow cannot load it"):
        load_export(str(copied))


@pytest.mark.parametrize("make", [lambda _: None, lambda folder: folder.mkdir()])
def test_a_missing_model_is_found_and_refused(tmp_path, make):
    make(tmp_path / "model")
    assert not is_whole(str(tmp_path / "model"), VOCABULARY)
    with pytest.raises(ConfigError, match=r"no exported model in .*/model: the run has not finished"):
        load_export(str(tmp_path / "model"), VOCABULARY)


def test_the_manifest_lists_every_file(folder):
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {str(path) for path in contents(folder)} == {*files, "manifest.json"}
    assert {"saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"} <= set(files)
