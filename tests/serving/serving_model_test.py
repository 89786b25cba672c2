"""The functions of the exported model, which plain TensorFlow loads and calls with ids."""

import numpy as np

from tests.serving.planted import NO_HISTORY, VOCABULARY, build_model
from trainer.compat import tf
from trainer.evaluation import catalogue
from trainer.schema import ITEMS, QUERY
from trainer.serving import serving_model
from trainer.serving.serving_model import ServingModel, list_scores


def score(loaded, user_ids, item_ids):
    signature = loaded.signatures["serving_default"]
    return signature(user_ids=tf.constant(user_ids), item_ids=tf.constant(item_ids))["scores"].numpy()


def recommend(loaded, user_ids, k, excluded=None):
    excluded = tf.constant(excluded) if excluded else tf.zeros([len(user_ids), 0], tf.string)
    found = loaded.signatures["recommend"](user_ids=tf.constant(user_ids), k=tf.constant(k), excluded_item_ids=excluded)
    return {name: values.numpy() for name, values in found.items()}


def ids(found):
    return [[item.decode() for item in row] for row in found["item_ids"]]


def test_scores_equal_those_of_the_model(loaded):
    scores = score(loaded, ["v", "u"], [["b", "e", "a"]] * 2)
    np.testing.assert_array_equal(scores, [[-4, -1, -5], [1, -1, 3]])
    features = {QUERY: tf.constant([2, 1]), ITEMS: tf.constant([[2, 5, 1]] * 2)}
    np.testing.assert_array_equal(scores, build_model()(features))
    np.testing.assert_array_equal(loaded.score_indices({QUERY: features[QUERY]}, features[ITEMS]), scores)


def test_vectors_give_the_scores_of_known_users_and_items(loaded):
    scores = tf.matmul(loaded.query_vectors({QUERY: tf.constant([2, 1])}), loaded.candidates[1:], transpose_b=True)
    np.testing.assert_array_equal(scores, [[-5, -4, -3, -2, -1], [3, 1, 5, 3, -1]])


def test_unknown_items_and_padding_have_the_score_minus_infinity(loaded):
    """The untrained row 0 of the weights would give both of them 9, the best score of u."""
    scores = score(loaded, ["u", "stranger"], [["a", "no such item", ""]] * 2)
    np.testing.assert_array_equal(scores, [[3, -np.inf, -np.inf], [5, -np.inf, -np.inf]])
    scores = loaded.score_indices({QUERY: tf.constant([1])}, tf.constant([[0, 1]]))
    np.testing.assert_array_equal(scores, [[-np.inf, 3]])


def test_the_signatures_tell_what_the_model_knows(loaded):
    """A score is the model's if it knows both the user and the item."""
    answer = loaded.signatures["score"](
        user_ids=tf.constant(["u", "stranger"]), item_ids=tf.constant([["a", "no such item", ""]] * 2)
    )
    assert answer["known"].numpy().tolist() == [[True, False, False], [False] * 3]
    assert recommend(loaded, ["stranger", "v", ""], 2)["known"].tolist() == [False, True, False]
    similar = loaded.signatures["similar_items"](item_ids=tf.constant(["no such item", "a"]), k=tf.constant(2))
    assert similar["known"].numpy().tolist() == [False, True]
    assert ids({"item_ids": similar["item_ids"].numpy()}) == [["", ""], ["b", "d"]]


def test_scores_of_an_unknown_user_are_the_numbers_of_ratings(loaded):
    """The untrained row 0 would rank c with 8 above b with 5."""
    scores = score(loaded, ["U", "", "u"], [["e", "c", "b"]] * 3)
    np.testing.assert_array_equal(scores, [[1, 3, 4], [1, 3, 4], [-1, 5, 1]])


def test_an_unknown_user_gets_the_most_popular_items(loaded):
    """The untrained row 0 would recommend a, c, b."""
    found = recommend(loaded, ["stranger", "u", ""], 3)
    assert ids(found) == [["a", "b", "c"], ["c", "a", "d"], ["a", "b", "c"]]
    np.testing.assert_array_equal(found["scores"], [[5, 4, 3], [5, 3, 3], [5, 4, 3]])
    assert ids(recommend(loaded, ["stranger"], 3, [["b", "a"]])) == [["c", "d", "e"]]


def test_the_best_come_first_and_equal_scores_are_ordered_by_popularity(loaded):
    found = recommend(loaded, ["u", "v"], 4)
    assert ids(found) == [["c", "a", "d", "b"], ["e", "d", "c", "b"]]
    np.testing.assert_array_equal(found["scores"], [[5, 3, 3, 1], [-1, -2, -3, -4]])
    assert found["titles"][0, 0].decode() == "Film «c»"
    assert [title.decode()[-2] for title in found["titles"][1]] == ids(found)[1]


def test_excluded_items_are_not_recommended(loaded):
    found = recommend(loaded, ["u", "v"], 3, [["c", "d", ""], ["e", "", "no such item"]])
    assert ids(found) == [["a", "b", "e"], ["d", "c", "b"]]


def test_rows_with_too_few_candidates_are_padded(loaded):
    found = recommend(loaded, ["u", "v"], 4, [["c", "c", "d", "b"], ["a", "b", "c", "d"]])
    assert ids(found) == [["a", "e", "", ""], ["e", "", "", ""]]
    np.testing.assert_array_equal(found["scores"], [[3, -1, -np.inf, -np.inf], [-1, *[-np.inf] * 3]])
    assert found["titles"][1].tolist()[1:] == [b"", b"", b""]


def test_a_k_above_the_number_of_items_returns_all_known_items(loaded):
    found = recommend(loaded, ["u", "v"], 1000)
    assert ids(found) == [["c", "a", "d", "b", "e", ""], ["e", "d", "c", "b", "a", ""]]
    assert (found["scores"][:, -1] == -np.inf).all()
    items, scores = loaded.recommend_indices({QUERY: tf.constant([1])}, 1000, tf.zeros([1, 0], tf.int32))
    assert items.numpy().tolist() == [[3, 1, 4, 2, 5, 0]]
    assert scores.numpy()[0, 0] == 5


def test_the_catalogue_is_scored_in_chunks_with_the_same_result(loaded, monkeypatch):
    """Chunks of two items for three users. The size is a constant of the graph, so the model is built again."""
    widths = []
    dot_products = catalogue.dot_products

    def noting(vectors, candidates):
        def score_chunk(begin, end):
            tf.py_function(lambda width: widths.append(int(width)), [end - begin], [])
            return dot_products(vectors, candidates)(begin, end)

        return score_chunk

    monkeypatch.setattr(catalogue, "CHUNK_BYTES", 4 * 3 * 2)
    monkeypatch.setattr(catalogue, "dot_products", noting)
    serving = ServingModel(build_model(), VOCABULARY, NO_HISTORY)
    arguments = {QUERY: tf.constant([1, 0, 2])}, tf.constant(4), tf.constant([[1, 3], [0, 2], [5, 5]])
    for chunked, whole in zip(serving.recommend_indices(*arguments), loaded.recommend_indices(*arguments), strict=True):
        np.testing.assert_array_equal(chunked, whole)
    assert widths == [2, 2, 1]


def test_scores_of_lists_are_computed_some_queries_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    vectors, candidates = rng.normal(size=[5, 3]).astype(np.float32), rng.normal(size=[8, 3]).astype(np.float32)
    items = rng.integers(0, 8, [5, 4]).astype(np.int32)
    expected = np.take_along_axis(vectors @ candidates.T, items, axis=1)
    monkeypatch.setattr(serving_model, "CHUNK_BYTES", 2 * 4 * 4 * 3)
    scores = tf.function(
        lambda vectors, items: list_scores(vectors, tf.constant(candidates), items),
        input_signature=[tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None, None], tf.int32)],
    )
    np.testing.assert_allclose(scores(vectors, items), expected, rtol=1e-5)
    assert scores(vectors[:0], items[:0]).shape == (0, 4) and scores(vectors, items[:, :0]).shape == (5, 0)
