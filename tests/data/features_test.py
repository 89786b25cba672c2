"""Values of features become indices and standardised numbers, by what is in the training split."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settings.errors import ConfigError, StorageError
from trainer.data.features import build_encoder, encode_features, load_encoders, save_encoders
from trainer.data.ratings import feature_columns
from trainer.features import FeatureSpec

# U+FFFF and U+1F600 have another order as UTF-16 than as UTF-8.
TEXTS = st.one_of(st.none(), st.sampled_from(["red", "10", "9", "é", "\U0001f600", "￿", ""]))
FLOATS = st.one_of(st.none(), st.floats(-1e6, 1e6, width=32), st.just(float("nan")))


def column(values, kind=None):
    return pa.chunked_array([feature_columns.normalized(pa.chunked_array([pa.array(values, kind)]))])


def encoder_of(values, kind=None, name="f", owner="query"):
    return build_encoder(name, owner, column(values, kind))


@settings(deadline=None)
@given(st.lists(TEXTS), st.lists(TEXTS, max_size=8))
def test_text_is_numbered_by_its_bytes_and_0_is_missing_or_unknown(training, new):
    encoder = encoder_of(training, pa.string())
    categories = sorted({text for text in training if text}, key=str.encode)
    assert encoder.categories == tuple(categories)
    assert encoder.spec == FeatureSpec("f", "query", num_values=len(categories) + 1)
    for values in (training, new):
        encoded = encoder.encode(pa.array(values, pa.string()))
        assert encoded.dtype == np.int32
        assert encoded.tolist() == [categories.index(text) + 1 if text in categories else 0 for text in values]


@settings(deadline=None)
@given(st.lists(FLOATS), st.lists(FLOATS, max_size=8))
def test_numbers_are_standardised_by_the_training_values_and_missing_ones_are_0(training, new):
    encoder = encoder_of(training, pa.float64(), owner="item")
    assert encoder.spec == FeatureSpec("f", "item", "float32")
    present = np.array([value for value in training if value is not None and np.isfinite(value)], np.float64)
    mean = present.mean() if len(present) else 0.0
    deviation = present.std() if len(np.unique(present)) > 1 else 1.0
    for values in (training, new):
        expected = [0.0 if value is None or np.isnan(value) else (value - mean) / deviation for value in values]
        encoded = encoder.encode(pa.array(values, pa.float64()))
        assert encoded.dtype == np.float32
        np.testing.assert_allclose(encoded, np.array(expected, np.float32), rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["War", "Drama", " ", "Sci-Fi"]), max_size=4), min_size=1),
    st.lists(st.lists(st.sampled_from(["War", "Drama", "Western"]), max_size=5), max_size=6),
    st.booleans(),
)
def test_lists_and_joined_text_have_several_categories(training, new, as_text):
    training = [[*words, "War", "Drama"] for words in training]  # At least two, so that the text has a separator.

    def values(lists):
        return pa.array(["|".join(words) for words in lists] if as_text else lists)

    encoder = build_encoder("f", "item", column(values(training)))
    words_of = [[word for word in words if word.strip()] for words in training]
    size = max(map(len, words_of))
    categories = sorted({word for words in words_of for word in words})
    assert encoder.spec == FeatureSpec("f", "item", shape=(size,), num_values=len(categories) + 1)

    def expected(words):
        indices = [categories.index(word) + 1 if word in categories else 0 for word in words][:size]
        return indices + [0] * (size - len(indices))

    assert encoder.encode(values(training)).tolist() == [expected(words) for words in words_of]
    assert encoder.encode(values([*new, []])).tolist() == [expected(words) for words in [*new, []]]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["24", "7", None], "categorical"),
        (["-1", "+2"], "categorical"),
        (["1.5", "2", "1e3"], "numeric"),
        (["1.5", "2", "two"], "categorical"),
        ([3, 4], "categorical"),
        ([3.0, 4.0], "numeric"),
        ([True, False], "categorical"),
        ([None, None], "categorical"),
        ([], "categorical"),
    ],
)
def test_the_values_decide_whether_a_feature_is_categorical(values, kind):
    array = pa.array(values, pa.string()) if not any(value is not None for value in values) else pa.array(values)
    spec = build_encoder("f", "query", column(array)).spec
    assert ("categorical" if spec.is_categorical else "numeric") == kind
    assert spec.shape == ()


def test_equal_numbers_become_0():
    encoder = encoder_of([0.1] * 7)
    assert encoder.standard_deviation == 1.0
    np.testing.assert_allclose(encoder.encode(pa.array([0.1, 1.1])), [0.0, 1.0], atol=1e-6)


def test_text_numbers_are_standardised():
    encoder = encoder_of(["1.0", "3.0", None, "3.0", "1.0"])
    assert encoder.encode(pa.array(["1", "5.0", "x", None])).tolist() == [-1.0, 3.0, 0.0, 0.0]


def ratings_table(**columns):
    return pa.table({feature_columns.column_name(name): column(values) for name, values in columns.items()})


def encode(features, ratings, items=None, *, train, users, item_of_row):
    return encode_features(
        features,
        ratings,
        items if items is not None else pa.table({"item_id": pa.array([], pa.string())}),
        train=np.array(train),
        user_indices=np.array(users, np.int32),
        item_indices=np.array(item_of_row, np.int32),
        item_ids=pa.chunked_array([["", "x", "y"]]),
        num_users=3,
    )


def test_a_user_and_an_item_have_the_value_of_their_last_training_row():
    ratings = ratings_table(age=["20", "21", "30", "22", "99"], price=[1.0, 3.0, 5.0, 7.0, 100.0], place=list("abcab"))
    encoded = encode(
        {"query": ("age",), "item": ("price",), "example": ("place",)},
        ratings,
        train=[0, 1, 2, 3],  # The last row is held out: its values are neither used nor in the statistics.
        users=[1, 1, 2, 1, 2],
        item_of_row=[1, 2, 2, 1, 2],
    )
    age, price, _ = encoded.encoders
    assert age.categories == ("22", "30")
    assert encoded.query["age"].tolist() == [0, 1, 2]
    assert (price.mean, price.standard_deviation) == (6.0, 1.0)  # Over the items x with 7 and y with 5.
    assert encoded.item["price"].tolist() == [0.0, 1.0, -1.0]
    assert encoded.example["place"].tolist() == [1, 2, 3, 1, 2]
    assert [encoder.spec.owner for encoder in encoded.encoders] == ["query", "item", "example"]


def test_example_features_learn_from_training_rows_only():
    encoded = encode(
        {"example": ("place",)}, ratings_table(place=list("abz")), train=[0, 1], users=[1, 1, 1], item_of_row=[1, 1, 1]
    )
    assert encoded.encoders[0].categories == ("a", "b")
    assert encoded.example["place"].tolist() == [1, 2, 0]


def test_item_features_come_from_the_table_of_items_if_there_is_one():
    items = pa.table({"item_id": ["y", "z", "x"], "feature:genres": column([["War"], ["Opera"], ["Drama", "War"]])})
    encoded = encode({"item": ("genres",)}, ratings_table(), items, train=[0], users=[1], item_of_row=[1])
    # z is not in the vocabulary, so its genre is no category.
    assert encoded.encoders[0].categories == ("Drama", "War")
    assert encoded.item["genres"].tolist() == [[0, 0], [1, 2], [2, 0]]


def test_a_name_that_a_batch_uses_otherwise_is_refused():
    with pytest.raises(ConfigError, match=r"config\.data\.features\.query contains 'history', .*another name"):
        encode({"query": ("history",)}, ratings_table(history=["a"]), train=[0], users=[1], item_of_row=[1])


def test_saved_encoders_are_loaded_without_a_change(tmp_path):
    encoders = (
        encoder_of(["b", "a"], name="text"),
        encoder_of([1.5, 2.5], name="number", owner="item"),
        encoder_of([["a"], ["b", "c"]], name="lists", owner="example"),
        encoder_of([None], pa.string(), name="nothing"),
    )
    path = str(tmp_path / "features.parquet")
    save_encoders(encoders, path)
    assert load_encoders(path) == encoders
    save_encoders((), path)
    assert load_encoders(path) == ()
    (tmp_path / "features.parquet").write_bytes(b"")
    with pytest.raises(StorageError, match=r"features\.parquet cannot be read"):
        load_encoders(path)
