"""Serving users from their history: the stored one of a known user, and one that a caller gives."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from tests.serving.planted import (
    CANDIDATES,
    HISTORIES,
    POOLED,
    TRANSFORMER,
    VOCABULARY,
    build_pooled_model,
    build_random_model,
    pooled_scores,
)
from trainer.compat import tf
from trainer.data.features import build_encoder
from trainer.data.queries import Queries
from trainer.evaluation.exported import ExportedModel
from trainer.evaluation.item_lists import ItemLists
from trainer.modeling.ease import EaseBlend
from trainer.modeling.two_tower import TwoTowerModel
from trainer.schema import HISTORY, HISTORY_RATINGS, ITEMS, QUERY
from trainer.serving.export import export_model, load_export, verify_in_this_process
from trainer.serving.served_model import ServedModel
from trainer.serving.serving_layout import inputs_of
from trainer.serving.warm_up import build_requests

ITEM_IDS = [["a", "b", "c", "d", "e"]]
# The best first. The items a and c are in the history of u, and e would be if it were not too long.
SCORES_OF_U = [16 / 3, 10 / 3, 16 / 3, 10 / 3, 0]


@pytest.fixture(scope="module")
def pooled(pooled_folder):
    return load_export(str(pooled_folder))


@pytest.fixture(scope="module")
def transformer(transformer_folder):
    return load_export(str(transformer_folder))


def recommend(loaded, item_ids, ratings, k=5, excluded=None, **values):
    excluded = tf.constant(excluded) if excluded else tf.zeros([len(item_ids), 0], tf.string)
    found = loaded.signatures["recommend_from_history"](
        item_ids=tf.constant(item_ids, tf.string),
        ratings=tf.constant(ratings, tf.float32),
        k=tf.constant(k),
        excluded_item_ids=excluded,
        **{name: tf.constant(value) for name, value in values.items()},
    )
    return [[item.decode() for item in row] for row in found["item_ids"].numpy()], found["scores"].numpy()


def scores_by_id(items, scores):
    return {item: score for item, score in zip(items, scores, strict=True) if item}


def scores_of(loaded, user_id):
    return loaded.signatures["serving_default"](user_ids=tf.constant([user_id]), item_ids=tf.constant(ITEM_IDS))[
        "scores"
    ].numpy()[0]


def test_a_known_user_is_scored_from_the_stored_history(pooled):
    """The latest two items of u are a with 5 and c with 2.5: their mean is (2/3, 2/3)."""
    np.testing.assert_allclose(scores_of(pooled, "u"), SCORES_OF_U, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores_of(pooled, "v"), CANDIDATES[1:] @ [0, 4], rtol=1e-5)
    np.testing.assert_array_equal(scores_of(pooled, "stranger"), [5, 4, 3, 2, 1])


def test_a_new_user_gets_the_same_scores_from_the_same_history(pooled):
    items, scores = recommend(pooled, [["a", "c"]], [[5, 2.5]])
    assert items == [["b", "d", "e", "", ""]]
    np.testing.assert_allclose(scores, [[10 / 3, 10 / 3, 0, -np.inf, -np.inf]], rtol=1e-5, atol=1e-6)


def test_only_the_latest_items_count_and_none_of_the_history_is_recommended(pooled):
    items, scores = recommend(pooled, [["e", "a", "c"], ["a", "e", "c"]], [[1, 5, 2.5], [5, 1, 2.5]], k=2)
    assert items == [["b", "d"], ["b", "d"]]
    latest = pooled_scores(np.array([5, 3]), np.array([1, 2.5]))
    np.testing.assert_allclose(scores, [[10 / 3, 10 / 3], latest[[2, 4]]], rtol=1e-5)


def test_padding_and_unknown_items_of_a_history_are_left_out(pooled):
    """They are no items of it, so that the latest two known items count, whatever their ratings are."""
    gaps = [["a", "", "no such item", "c", ""]]
    items, scores = recommend(pooled, gaps, [[5, np.nan, 99, 2.5, np.nan]])
    assert items == [["b", "d", "e", "", ""]]
    np.testing.assert_allclose(scores[0, :3], [10 / 3, 10 / 3, 0], rtol=1e-5, atol=1e-6)


def test_excluded_items_are_left_out_besides_the_history(pooled):
    items, _ = recommend(pooled, [["a", "c"], ["b", ""]], [[5, 2.5], [4, 0]], k=3, excluded=[["b", ""], ["a", "?"]])
    assert items == [["d", "e", ""], ["c", "d", "e"]]


@pytest.mark.parametrize("model", ["pooled", "transformer"])
def test_without_a_known_item_the_most_popular_items_are_recommended(request, model):
    loaded = request.getfixturevalue(model)
    items, scores = recommend(loaded, [["?", ""], ["b", "?"], ["", ""]], [[5, 0], [4, 3], [0, 0]], k=3)
    assert items[0] == items[2] == ["a", "b", "c"]
    np.testing.assert_array_equal(scores[[0, 2]], [[5, 4, 3]] * 2)
    assert items[1] != items[0]
    items, _ = recommend(loaded, [["?"]], [[5]], k=3, excluded=[["a"]])
    assert items == [["b", "c", "d"]]
    items, _ = recommend(loaded, [[]], np.zeros([1, 0]), k=1)
    assert items == [["a"]]


@pytest.mark.parametrize(("user", "items", "ratings"), [(1, ["e", "a", "c"], [1, 5, 2.5]), (2, ["b"], [4])])
def test_a_transformer_scores_a_history_as_in_training(transformer, transformer_model, user, items, ratings):
    features = {name: tf.constant(value) for name, value in HISTORIES.gather(np.array([user], np.int32)).items()}
    expected = transformer_model({**features, ITEMS: tf.constant([[1, 2, 3, 4, 5]])}).numpy()[0]
    np.testing.assert_allclose(scores_of(transformer, "-uv"[user]), expected, rtol=1e-5)
    found, scores = recommend(transformer, [items], [ratings])
    new = scores_by_id(found[0], scores[0])
    assert new == pytest.approx(
        {item: expected["abcde".index(item)] for item in "abcde" if item not in items}, rel=1e-5
    )


def test_the_order_of_a_history_matters_to_a_transformer(transformer):
    _, scores = recommend(transformer, [["a", "c"], ["c", "a"]], [[5, 5], [5, 5]], k=3)
    assert abs(scores[0] - scores[1]).max() > 0.01


def test_evaluation_gives_its_own_history_and_not_the_stored_one(pooled):
    """A metric of the test split must not be computed from a history with the test split."""
    model = ExportedModel(pooled)
    features = {
        QUERY: tf.constant([1, 2]),
        HISTORY: tf.constant([[4, 0, 0], [5, 0, 0]]),
        HISTORY_RATINGS: tf.constant([[3.0, 0, 0], [1.0, 0, 0]]),
        ITEMS: tf.constant([[1, 2, 0], [3, 4, 5]]),
        "labels": tf.zeros([2, 3]),
    }
    # d alone is (1, 1), and e alone is (7, 7).
    np.testing.assert_allclose(model(features), [[8, 5, -np.inf], [56, 35, 0]], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.query_vectors(features), [[1, 1], [7, 7]], rtol=1e-6)
    np.testing.assert_array_equal(model.candidate_vectors(tf.constant([2, 4])), CANDIDATES[[2, 4]])


def export(model, sizes, folder, query_source=HISTORIES, vocabulary=VOCABULARY, **options):
    samples = []

    def verify(sample):
        samples.append(sample)
        return verify_in_this_process(sample)

    export_model(model, vocabulary, str(folder), sizes=sizes, query_source=query_source, verify=verify, **options)
    return load_export(str(folder)), samples[0]


def test_a_model_without_a_history_has_no_such_signature(loaded):
    assert set(loaded.signatures) == {"serving_default", "score", "recommend", "similar_items"}


def test_a_model_with_a_query_embedding_too_uses_the_row_of_unknown_users(tmp_path):
    sizes = POOLED | {"query_embedding": True}
    model = build_pooled_model(query_embedding=True)
    model.tables[QUERY].embeddings.assign([[0.5, 0], [100, 100], [0, 0]])
    loaded, sample = export(model, sizes, tmp_path)
    np.testing.assert_allclose(scores_of(loaded, "u"), SCORES_OF_U + CANDIDATES[1:] @ [100, 100], rtol=1e-5)
    _, scores = recommend(loaded, [["a", "c"]], [[5, 2.5]], k=3)
    # The candidates b, d and e.
    np.testing.assert_allclose(scores, [sorted([10 / 3 + 0.5, 10 / 3 + 1.5, -0.5], reverse=True)], rtol=1e-5)
    # The scores of such a user are not those of training, so they are not compared.
    assert sample["from_history"] is None


def test_a_blend_is_exported_in_place_of_the_model(tmp_path):
    weights = np.random.default_rng(0).normal(size=[6, 6]).astype(np.float32)
    weights[0], weights[:, 0] = 0, 0
    loaded, _ = export(
        build_pooled_model(), POOLED, tmp_path, ranker_fn=lambda model: EaseBlend(model, weights, weight=2.0)
    )
    linear = 2 * (5 * weights[1] + 2.5 * weights[3])
    np.testing.assert_allclose(scores_of(loaded, "u"), SCORES_OF_U + linear[1:], rtol=1e-4, atol=1e-5)
    found, scores = recommend(loaded, [["a", "c"]], [[5, 2.5]], k=3)
    expected = {"b": 10 / 3 + linear[2], "d": 10 / 3 + linear[4], "e": linear[5]}
    assert scores_by_id(found[0], scores[0]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


GENDER = build_encoder("gender", "query", pa.chunked_array([["F", "M"]]))
AGE = build_encoder("age", "query", pa.chunked_array([[20.5, 50.25]]))
TAGS = build_encoder("tags", "query", pa.chunked_array([["x|y", "z"]]))
GENRE = build_encoder("genre", "item", pa.chunked_array([["drama", "comedy"]]))


@pytest.fixture(scope="module", params=["pooled", "transformer"])
def with_features(request, tmp_path_factory):
    """A trained model with three query features and one item feature, and its export."""
    vocabulary = dataclasses.replace(VOCABULARY, features=(GENDER, AGE, TAGS, GENRE))
    queries = dataclasses.replace(
        HISTORIES,
        features={
            "gender": GENDER.encode(pa.array([None, "F", "M"])),
            "age": AGE.encode(pa.array([None, 20.5, 50.25])),
            "tags": TAGS.encode(pa.array([None, "x|y", "z"])),
        },
    )
    sizes = (POOLED if request.param == "pooled" else TRANSFORMER) | {
        "features": [encoder.spec for encoder in vocabulary.features],
        "item_features": {"genre": np.array([0, 1, 2, 1, 0, 2], np.int32)},
        "similarity": "cosine",
        "scale": 3.0,
        "item_bias": True,
    }
    model = build_random_model(**sizes)
    folder = tmp_path_factory.mktemp("features") / "model"
    loaded, sample = export(model, sizes, folder, queries, vocabulary)
    return model, queries, loaded, sample


def scores_in_training(model, features):
    return model({**{name: tf.constant(value) for name, value in features.items()}, ITEMS: [[1, 2, 3, 4, 5]]}).numpy()[
        0
    ]


def test_a_known_user_is_scored_with_the_stored_features(with_features):
    model, queries, loaded, _ = with_features
    for user, user_id in ((1, "u"), (2, "v")):
        expected = scores_in_training(model, queries.gather(np.array([user], np.int32)))
        np.testing.assert_allclose(scores_of(loaded, user_id), expected, rtol=1e-5, atol=1e-6)


def test_a_new_user_gives_the_features_by_their_names(with_features):
    model, queries, loaded, _ = with_features
    expected = scores_in_training(model, queries.gather(np.array([1], np.int32)))
    new = {"gender": ["F"], "age": [20.5], "tags": [["y", "x", ""]]}
    found, scores = recommend(loaded, [["a", "c"]], [[5, 2.5]], k=3, **new)
    assert scores_by_id(found[0], scores[0]) == pytest.approx(
        {item: expected["abcde".index(item)] for item in "bde"}, rel=1e-5, abs=1e-6
    )
    for name, value in {"gender": ["M"], "age": [50.25], "tags": [["z", "", ""]]}.items():
        _, others = recommend(loaded, [["a", "c"]], [[5, 2.5]], k=3, **new | {name: value})
        assert abs(others - scores).max() > 1e-3, name


def test_the_model_for_servers_takes_the_features_too(with_features):
    _, _, loaded, _ = with_features
    signature = ServedModel(loaded, ItemLists.empty(3), k=3).build_signatures()["recommend_from_history"]
    inputs = {name: spec.dtype for name, spec in inputs_of(signature).items()}
    strings = {"item_ids": tf.string, "gender": tf.string, "tags": tf.string}
    assert inputs == {**strings, "ratings": tf.float32, "age": tf.float32}
    new = {"gender": tf.constant(["F"]), "age": tf.constant([20.5]), "tags": tf.constant([["y", "x", ""]])}
    found = signature(item_ids=tf.constant([["a", "c"]]), ratings=tf.constant([[5, 2.5]]), **new)
    items, scores = recommend(loaded, [["a", "c"]], [[5, 2.5]], k=3, **new)
    assert [item.decode() for item in found["item_ids"].numpy()[0]] == items[0]
    np.testing.assert_array_equal(found["scores"], scores)
    requests = build_requests(VOCABULARY, {"recommend_from_history": inputs_of(signature)})
    for _, values in requests:
        assert signature(**{name: tf.constant(value) for name, value in values.items()})["known"].numpy().all()


def test_a_missing_feature_has_the_encoding_of_a_missing_value(with_features):
    model, queries, loaded, _ = with_features
    features = queries.gather(np.array([1], np.int32))
    unknown = {"gender": np.zeros(1, np.int32), "age": np.zeros(1, np.float32), "tags": np.zeros([1, 2], np.int32)}
    expected = scores_in_training(model, features | unknown)
    new = {"gender": ["no such value"], "age": [np.float32("nan")], "tags": [[""]]}
    found, scores = recommend(loaded, [["a", "c"]], [[5, 2.5]], k=3, **new)
    assert scores_by_id(found[0], scores[0]) == pytest.approx(
        {item: expected["abcde".index(item)] for item in "bde"}, rel=1e-5, abs=1e-6
    )


def test_the_check_of_an_export_gets_the_features_as_a_caller_gives_them(with_features):
    _, _, _, sample = with_features
    values = sample["from_history"]["values"]
    assert (values["gender"], values["age"]) == (["F", "M"], [20.5, 50.25])
    assert values["tags"] == [["x", "y"], ["z", ""]]
    assert sample["from_history"]["item_ids"] == [["a", "c"], ["b", ""]]
    assert sample["from_history"]["ratings"] == [[5, 2.5], [4, 0]]


def test_a_model_with_features_and_no_history_knows_its_users(tmp_path):
    vocabulary = dataclasses.replace(VOCABULARY, features=(GENDER,))
    queries = Queries(
        HISTORIES.offsets, HISTORIES.items, HISTORIES.ratings, 0, {"gender": np.array([0, 1, 2], np.int32)}
    )
    sizes = {**{name: value for name, value in POOLED.items() if name != "history"}, "features": [GENDER.spec]}
    model = TwoTowerModel(**sizes)
    model.tables["gender"].embeddings.assign([[9, 9], [1, 1], [-1, 0]])
    model.tables[ITEMS].embeddings.assign(CANDIDATES)
    loaded, _ = export(model, sizes, tmp_path, queries, vocabulary)
    assert "recommend_from_history" not in loaded.signatures
    np.testing.assert_allclose(scores_of(loaded, "u"), CANDIDATES[1:].sum(axis=1))
    np.testing.assert_array_equal(scores_of(loaded, "stranger"), [5, 4, 3, 2, 1])
