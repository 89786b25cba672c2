"""How the exported model stores queries and takes new ones, against independent references."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.compat import tf
from trainer.data.features import build_encoder
from trainer.data.queries import Queries
from trainer.schema import HISTORY, HISTORY_RATINGS, QUERY
from trainer.serving import stored_queries
from trainer.serving.ids import IdTable
from trainer.serving.new_queries import FeatureInput, decode, latest_known
from trainer.serving.stored_queries import StoredQueries

HISTORY_LISTS = st.lists(st.lists(st.integers(1, 9), max_size=7), min_size=1, max_size=6)


def as_queries(histories, history_size):
    """The histories of the users 1, 2, ...; user 0 has none."""
    sizes = [0, *map(len, histories)]
    items = np.array([item for history in histories for item in history], np.int32)
    return Queries(
        np.append(0, np.cumsum(sizes)),
        items,
        (items + np.arange(len(items)) / 100).astype(np.float32),
        history_size,
        {"age": np.arange(len(sizes), dtype=np.float32)},
    )


@settings(deadline=None, max_examples=30)
@given(HISTORY_LISTS, st.integers(1, 5), st.data())
def test_stored_queries_are_those_of_the_source(histories, history_size, data):
    source = as_queries(histories, history_size)
    users = np.array(data.draw(st.lists(st.integers(0, len(histories)), max_size=8)), np.int32)
    entries_per_chunk = data.draw(st.integers(1, 20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_queries, "_ENTRIES_PER_CHUNK", entries_per_chunk)
        stored = StoredQueries(source, len(histories) + 1, [QUERY, HISTORY, HISTORY_RATINGS, "age"])
    found, expected = stored.gather(tf.constant(users)), source.gather(users)
    assert found.keys() == expected.keys()
    width = found[HISTORY].shape[1]
    assert width == max([1, *(min(history_size, len(([[], *histories])[user])) for user in users)])
    assert not expected[HISTORY][:, width:].any()
    for name in (HISTORY, HISTORY_RATINGS):
        np.testing.assert_array_equal(found[name], expected[name][:, :width])
    for name in (QUERY, "age"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_only_what_the_model_needs_is_stored():
    stored = StoredQueries(as_queries([[3, 4]], 2), 2, [QUERY])
    assert not stored.variables
    assert stored.gather(tf.constant([1])).keys() == {QUERY}


@settings(deadline=None, max_examples=30)
@given(HISTORY_LISTS, st.integers(1, 5))
def test_a_given_history_keeps_the_latest_known_items_in_their_order(histories, size):
    """Multiples of three are unknown."""
    width = max(map(len, histories))
    items = np.array([[item if item % 3 else 0 for item in row] + [0] * (width - len(row)) for row in histories])
    ratings = np.arange(items.size, dtype=np.float32).reshape(items.shape) + 1
    found, found_ratings = latest_known(tf.constant(items, tf.int32), tf.constant(ratings), size)
    rows = zip(items.tolist(), ratings.tolist(), strict=True)
    kept = [[(item, rating) for item, rating in zip(*row, strict=True) if item][-size:] for row in rows]
    longest = max([1, *map(len, kept)])
    expected = [row + [(0, 0)] * (longest - len(row)) for row in kept]
    np.testing.assert_array_equal(found, [[item for item, _ in row] for row in expected])
    np.testing.assert_array_equal(found_ratings, [[rating for _, rating in row] for row in expected])


def feature_input(encoder):
    """As in a model that was loaded."""
    feature = FeatureInput(encoder)
    for module in feature.submodules:
        if isinstance(module, IdTable):
            module.fill()
    return feature


TEXTS = st.lists(st.sampled_from(["a", "b", "ü", " a ", "?", ""]), min_size=1, max_size=5)


@settings(deadline=None, max_examples=30)
@given(TEXTS)
def test_a_category_of_a_caller_is_encoded_as_in_training(values):
    encoder = build_encoder("x", "query", pa.chunked_array([["a", "b", "ü"]]))
    encoded = feature_input(encoder).encode(tf.constant(values))
    np.testing.assert_array_equal(encoded, encoder.encode(pa.array(values)))


@settings(deadline=None, max_examples=30)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_several_categories_are_encoded_as_in_training(lists):
    encoder = build_encoder("x", "query", pa.chunked_array([["a|b|ü", "b"]]))
    width = max(map(len, lists))
    padded = [sorted(row, key=lambda word: not word) + [""] * (width - len(row)) for row in lists]
    feature = feature_input(encoder)
    assert feature.tensor_spec == tf.TensorSpec([None, None], tf.string, name="x")
    encoded = feature.encode(tf.constant(padded))
    np.testing.assert_array_equal(encoded, encoder.encode(pa.array([[word for word in row if word] for row in padded])))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1e6, 1e6, width=32) | st.just(float("nan")), min_size=1, max_size=5))
def test_a_number_is_encoded_as_in_training(values):
    encoder = build_encoder("x", "query", pa.chunked_array([[1.5, 40.25, 1000.0]]))
    encoded = feature_input(encoder).encode(tf.constant(values, tf.float32))
    np.testing.assert_array_equal(encoded, encoder.encode(pa.array(values)))


@pytest.mark.parametrize(
    ("training", "values", "decoded"),
    [
        (["a", "b"], ["b", None, "a"], ["b", "", "a"]),
        (["a|b", "c"], ["c", "b|a"], [["c", ""], ["b", "a"]]),
        ([1.5, 40.25], [40.25, 1.5], [40.25, 1.5]),
    ],
)
def test_decoding_gives_what_a_caller_would_give(training, values, decoded):
    encoder = build_encoder("x", "query", pa.chunked_array([training]))
    found = decode(encoder, encoder.encode(pa.array(values)))
    assert found == decoded
    again = feature_input(encoder).encode(tf.constant(found))
    np.testing.assert_allclose(again, encoder.encode(pa.array(values)), rtol=1e-6)
