"""What is exported is checked as its users meet it: loaded by plain TensorFlow, asked with ids."""

import ast
import json
import pathlib
import subprocess
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from settings.errors import StorageError
from trainer.compat import tf
from trainer.data.vocabulary import build_vocabulary
from trainer.modeling.two_tower import TwoTowerModel
from trainer.schema import ITEMS, ITEMS_SCHEMA, QUERY, RATINGS_SCHEMA
from trainer.serving import export
from trainer.serving.export import ServingModel, export_model

# Items by index: a, b, c, d, e, the more ratings the lower. Users by index: u, v.
VOCABULARY = build_vocabulary(
    pa.Table.from_pylist(
        [
            {"user_id": user, "item_id": item, "rating": 1.0, "timestamp": 0}
            for user, items in (("u", "aabbcde"), ("v", "aaabbccd"))
            for item in items
        ],
        RATINGS_SCHEMA,
    ),
    pa.Table.from_pylist(
        [{"item_id": item, "title": f"Film «{item}»", "genres": []} for item in "abcde"], ITEMS_SCHEMA
    ),
)
SIZES = {"num_queries": 3, "num_items": 6, "embedding_size": 2, "hidden_sizes": ()}
QUERIES = np.array([[1, 1], [1, 0], [0, -1]], np.float32)
# Of all items the unknown one would be recommended first. For u the items a and d are equally good.
CANDIDATES = np.array([[9, -9], [3, 5], [1, 4], [5, 3], [3, 2], [-1, 1]], np.float32)
ALL_IDS = ["", "a", "b", "c", "d", "e"]


def build_model(queries=QUERIES, candidates=CANDIDATES):
    model = TwoTowerModel(**SIZES)
    model.set_weights([queries, candidates])
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export that a fresh process has verified."""
    folder = tmp_path_factory.mktemp("run") / "model"
    export_model(build_model(), VOCABULARY, str(folder), sizes=SIZES)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    return tf.saved_model.load(str(folder))


def recommend(loaded, user_ids, k, excluded=None):
    excluded = tf.constant(excluded) if excluded else tf.zeros([len(user_ids), 0], tf.string)
    found = loaded.signatures["recommend"](user_ids=tf.constant(user_ids), k=tf.constant(k), excluded_item_ids=excluded)
    return {name: values.numpy() for name, values in found.items()}


def ids(found):
    return [[item.decode() for item in row] for row in found["item_ids"]]


def test_scores_of_ids_are_those_of_the_model(loaded):
    scores = loaded.signatures["serving_default"](
        user_ids=tf.constant(["v", "u"]), item_ids=tf.constant([["b", "e", "a"]] * 2)
    )
    np.testing.assert_array_equal(scores["scores"], [[-4, -1, -5], [1, -1, 3]])
    features = {QUERY: tf.constant([2, 1]), ITEMS: tf.constant([[2, 5, 1]] * 2)}
    np.testing.assert_array_equal(scores["scores"], build_model()(features))
    np.testing.assert_array_equal(loaded.score_indices(features[QUERY], features[ITEMS]), scores["scores"])


def test_unknown_ids_score_as_index_0(loaded):
    scores = loaded.signatures["serving_default"](
        user_ids=tf.constant(["u", "U", ""]), item_ids=tf.constant([["a", "nobody's", ""]] * 3)
    )
    np.testing.assert_array_equal(scores["scores"], [[3, 9, 9], [8, 0, 0], [8, 0, 0]])


def test_the_best_come_first_and_of_equals_the_more_popular(loaded):
    found = recommend(loaded, ["u", "v"], 4)
    assert ids(found) == [["c", "a", "d", "b"], ["e", "d", "c", "b"]]
    np.testing.assert_array_equal(found["scores"], [[5, 3, 3, 1], [-1, -2, -3, -4]])
    assert found["titles"][0, 0].decode() == "Film «c»"
    assert [title.decode()[-2] for title in found["titles"][1]] == ids(found)[1]


def test_a_stranger_gets_what_the_unknown_user_would(loaded):
    assert ids(recommend(loaded, ["stranger"], 3)) == [["a", "c", "b"]]


def test_what_is_excluded_is_absent(loaded):
    found = recommend(loaded, ["u", "v"], 3, [["c", "d", ""], ["e", "", "nobody's"]])
    assert ids(found) == [["a", "b", "e"], ["d", "c", "b"]]


def test_where_too_few_are_left_the_rest_is_empty(loaded):
    found = recommend(loaded, ["u", "v"], 4, [["c", "c", "d", "b"], ["a", "b", "c", "d"]])
    assert ids(found) == [["a", "e", "", ""], ["e", "", "", ""]]
    np.testing.assert_array_equal(found["scores"], [[3, -1, -np.inf, -np.inf], [-1, *[-np.inf] * 3]])
    assert found["titles"][1].tolist()[1:] == [b"", b"", b""]


def test_a_k_beyond_the_catalogue_gives_all_of_it_and_never_the_unknown(loaded):
    found = recommend(loaded, ["u", "v"], 1000)
    assert ids(found) == [["c", "a", "d", "b", "e", ""], ["e", "d", "c", "b", "a", ""]]
    assert (found["scores"][:, -1] == -np.inf).all()
    items, scores = loaded.recommend_indices(tf.constant([1]), 1000, tf.zeros([1, 0], tf.int32))
    assert items.numpy().tolist() == [[3, 1, 4, 2, 5, 0]]
    assert scores.numpy()[0, 0] == 5


def test_the_verifier_needs_nothing_of_this_project():
    tree = ast.parse(pathlib.Path(export.__file__).with_name("verify_export.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(isinstance(node, ast.Import) for node in imports)
    assert {name.name for node in imports for name in node.names} == {"json", "sys", "numpy", "tensorflow"}


def test_the_fresh_process_is_given_the_trainers_scores_of_any_strategy(monkeypatch, tmp_path):
    """And nothing of ours in its environment; on a GPU, whose memory this process holds, it would not start."""
    given = {}

    def run(command, *, input, env, **_):
        given.update(json.loads(input), env=env)
        assert not any(str(export._VERIFIER.parent) in part for part in command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    with tf.distribute.MirroredStrategy(tf.config.list_logical_devices("CPU")[:2]).scope():
        model = build_model()
    export_model(model, VOCABULARY, str(tmp_path / "model"), sizes=SIZES)
    assert (given["user_ids"], given["item_ids"]) == (["", "u", "v"], ALL_IDS)
    np.testing.assert_array_equal(given["scores"], QUERIES @ CANDIDATES.T)
    assert "TF_USE_LEGACY_KERAS" not in given["env"]
    assert given["env"]["CUDA_VISIBLE_DEVICES"] == "-1"


def test_a_model_with_other_scores_is_refused_and_the_earlier_one_kept(folder, monkeypatch):
    earlier = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    save = tf.saved_model.save

    def save_another(serving, path, signatures):
        candidates = CANDIDATES.copy()
        candidates[3, 0] += 0.01
        other = ServingModel(build_model(candidates=candidates), VOCABULARY)
        save(other, path, signatures={"serving_default": other.score, "recommend": other.recommend})

    monkeypatch.setattr(tf.saved_model, "save", save_another)
    with pytest.raises(StorageError, match=r"fresh process.*not kept.*differ from the trainer's by up to 0\.01"):
        export_model(build_model(), VOCABULARY, str(folder), sizes=SIZES)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == earlier
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("recommends", "scores", "refused"),
    [
        (["c", "e"], QUERIES[1:] @ CANDIDATES.T, None),
        (["c", "d"], QUERIES[1:] @ CANDIDATES.T, "an item scores higher"),
        (["c", "e"], QUERIES[1:] @ CANDIDATES.T * 1.001, "differ from the trainer's"),
        (["c", "e"], QUERIES[1:] @ CANDIDATES.T * np.nan, "differ from the trainer's by up to nan"),
        (["c", "e"], QUERIES[1:] @ CANDIDATES.T + 1e-6, None),
    ],
)
def test_the_verifier_judges(monkeypatch, recommends, scores, refused):
    """A stand-in for the model that gives these answers; the verifier is told the planted scores."""
    from trainer.serving import verify_export

    def serving_default(user_ids, item_ids):
        items = [[ALL_IDS.index(item.decode()) for item in row] for row in item_ids.numpy()]
        return {"scores": tf.constant(np.take_along_axis(scores, np.array(items), axis=1))}

    def recommend(**_):
        return {"item_ids": tf.constant([[item] for item in recommends]), "scores": tf.constant([[99.0], [99.0]])}

    signatures = {"serving_default": serving_default, "recommend": recommend}
    monkeypatch.setattr(tf.saved_model, "load", lambda _: SimpleNamespace(signatures=signatures))
    sample = {"folder": "", "user_ids": ["u", "v"], "item_ids": ALL_IDS}
    sample["scores"] = (QUERIES[1:] @ CANDIDATES.T).tolist()
    monkeypatch.setattr(verify_export.json, "load", lambda _: sample)
    if refused:
        with pytest.raises(SystemExit, match=refused):
            verify_export.main()
    else:
        verify_export.main()


def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "_verify", lambda *_: None)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file/model"):
        export_model(build_model(), VOCABULARY, str(tmp_path / "file" / "model"), sizes=SIZES)
