import dataclasses
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settings.errors import DataError, StorageError
from trainer.data.features import build_encoder
from trainer.data.vocabulary import Vocabulary, build_vocabulary, load_vocabulary
from trainer.schema import ITEMS_SCHEMA, RATINGS_SCHEMA, UNKNOWN_INDEX

IDS = st.text(min_size=1, max_size=3)
PAIRS = st.lists(st.tuples(IDS, st.sampled_from(["9", "10", "é", "z", "\U0001f600", "￿"])), max_size=40)

ITEMS = pa.Table.from_pylist(
    [
        {"item_id": "never rated", "title": "Nobody saw it", "genres": ["Drama"]},
        {"item_id": "10", "title": "Ten", "genres": ["Comedy", "Crime"]},
        {"item_id": "9", "title": "Nine", "genres": []},
        {"item_id": "10", "title": "Ten again", "genres": ["War"]},
    ],
    schema=ITEMS_SCHEMA,
)


def ratings_table(pairs):
    """A table of RATINGS_SCHEMA, in two chunks, from (user_id, item_id) pairs."""
    table = pa.table(
        {
            "user_id": [user for user, _ in pairs],
            "item_id": [item for _, item in pairs],
            "rating": [1.0] * len(pairs),
            "timestamp": list(range(len(pairs))),
        },
        schema=RATINGS_SCHEMA,
    )
    half = len(pairs) // 2
    return pa.concat_tables([table.slice(0, half), table.slice(half)])


@pytest.fixture
def vocabulary():
    pairs = [("u2", "9"), ("u10", "10"), ("u1", "10"), ("u2", "z"), ("u3", "10"), ("u3", "9"), ("u1", "8")]
    return build_vocabulary(ratings_table(pairs), pa.concat_tables([ITEMS, ITEMS]))


def test_the_vocabulary_of_a_known_table(vocabulary):
    assert vocabulary.users.to_pylist() == [
        {"index": 0, "user_id": ""},
        {"index": 1, "user_id": "u1"},
        {"index": 2, "user_id": "u10"},
        {"index": 3, "user_id": "u2"},
        {"index": 4, "user_id": "u3"},
    ]
    assert [list(row.values()) for row in vocabulary.items.to_pylist()] == [
        [0, "", "", [], 0],
        [1, "10", "Ten", ["Comedy", "Crime"], 3],
        [2, "9", "Nine", [], 2],
        [3, "8", "", [], 1],
        [4, "z", "", [], 1],
    ]
    assert vocabulary.items.schema.names == ["index", "item_id", "title", "genres", "num_ratings"]
    assert (vocabulary.num_users, vocabulary.num_items) == (5, 5)


def test_ids_that_are_not_in_the_training_split_are_unknown(vocabulary):
    user_ids = pa.chunked_array([["u3", "nobody"], ["", "u1", None]])
    item_ids = pa.array(["z", "never rated", "10", ""])
    assert vocabulary.user_indices(user_ids).tolist() == [4, UNKNOWN_INDEX, UNKNOWN_INDEX, 1, UNKNOWN_INDEX]
    assert vocabulary.item_indices(item_ids).tolist() == [4, UNKNOWN_INDEX, 1, UNKNOWN_INDEX]
    assert vocabulary.user_indices(user_ids).dtype == vocabulary.item_indices(item_ids).dtype == np.int32


@settings(deadline=None)
@given(PAIRS)
def test_every_id_of_training_and_no_other_has_an_index(pairs):
    vocabulary = build_vocabulary(ratings_table(pairs), ITEMS)
    counts = Counter(item for _, item in pairs)
    by_popularity = sorted(counts, key=lambda item: (-counts[item], item.encode()))
    assert vocabulary.items["item_id"].to_pylist() == ["", *by_popularity]
    assert vocabulary.items["num_ratings"].to_pylist() == [0, *(counts[item] for item in by_popularity)]
    by_id = sorted({user for user, _ in pairs}, key=str.encode)
    assert vocabulary.users["user_id"].to_pylist() == ["", *by_id]

    for table in (vocabulary.users, vocabulary.items):
        assert table["index"].to_pylist() == list(range(table.num_rows))
    assert np.array_equal(vocabulary.user_indices(vocabulary.users["user_id"]), vocabulary.users["index"])
    assert np.array_equal(vocabulary.item_indices(vocabulary.items["item_id"]), vocabulary.items["index"])


@settings(deadline=None)
@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_the_ratings_changes_nothing(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    vocabulary = build_vocabulary(ratings_table(pairs), ITEMS)
    assert build_vocabulary(ratings_table(shuffled), ITEMS) == vocabulary


@pytest.mark.parametrize(("pair", "column"), [(("", "9"), "user_id"), (("u1", ""), "item_id")])
def test_the_empty_string_is_not_a_valid_id(pair, column):
    with pytest.raises(DataError, match=f"'{column}' .* has an empty string"):
        build_vocabulary(ratings_table([("u2", "10"), pair]), ITEMS)


def of_ids(user_ids, item_ids):
    """A vocabulary with these ids in this order."""
    rows = [
        {"index": 0, "item_id": "", "title": "", "genres": [], "num_ratings": 0},
        *({"index": 1, "item_id": item, "title": "", "genres": [], "num_ratings": 1} for item in item_ids),
    ]
    users = pa.table({"index": range(len(user_ids) + 1), "user_id": ["", *user_ids]})
    return Vocabulary(users, pa.Table.from_pylist(rows))


def test_fingerprints_differ_if_ids_have_other_indices():
    fingerprints = [
        of_ids(["a", "b"], ["x", "y"]).fingerprint(),
        of_ids(["b", "a"], ["x", "y"]).fingerprint(),
        of_ids(["a", "b"], ["y", "x"]).fingerprint(),
        of_ids(["ab"], ["x", "y"]).fingerprint(),
        of_ids(["a"], ["b", "x", "y"]).fingerprint(),
        of_ids(["a", "bx"], ["", "y"]).fingerprint(),
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    assert of_ids(["a", "b"], ["x", "y"]).fingerprint() == fingerprints[0]


def test_a_fingerprint_does_not_change_between_processes_and_versions():
    assert of_ids(["a", "é"], ["x"]).fingerprint() == "be131c229e463a6bdd45f2e61d31a71fa20781d04c199c28e499c39b4e9a2ed6"


def test_a_saved_vocabulary_is_loaded_without_a_change(vocabulary, tmp_path):
    folder = tmp_path / "run" / "vocabulary"
    vocabulary.save(str(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["features.parquet", "items.parquet", "users.parquet"]
    loaded = load_vocabulary(str(folder))
    assert loaded == vocabulary
    assert loaded.fingerprint() == vocabulary.fingerprint()


def test_the_encoders_of_features_are_saved_and_change_the_fingerprint(vocabulary, tmp_path):
    def with_categories(*categories):
        values = pa.chunked_array([pa.array(categories).dictionary_encode()])
        return dataclasses.replace(vocabulary, features=(build_encoder("colour", "item", values),))

    red, blue = with_categories("red", "white"), with_categories("blue", "white")
    red.save(str(tmp_path))
    loaded = load_vocabulary(str(tmp_path))
    assert loaded == red != blue
    assert loaded.features[0].categories == ("red", "white")
    assert len({vocabulary.fingerprint(), red.fingerprint(), blue.fingerprint()}) == 3
    assert loaded.fingerprint() == red.fingerprint()


def test_a_vocabulary_from_before_there_were_features_has_none(vocabulary, tmp_path):
    vocabulary.save(str(tmp_path))
    (tmp_path / "features.parquet").unlink()
    assert load_vocabulary(str(tmp_path)) == vocabulary


def test_saving_replaces_each_file_in_one_step(vocabulary, tmp_path, monkeypatch):
    other = build_vocabulary(ratings_table([("u7", "77")]), ITEMS)
    other.save(str(tmp_path))
    vocabulary.save(str(tmp_path))
    assert load_vocabulary(str(tmp_path)) == vocabulary

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=r"users\.parquet cannot be written"):
        other.save(str(tmp_path))
    assert load_vocabulary(str(tmp_path)) == vocabulary


def flip_a_bit_of_an_id(path):
    contents = bytearray(path.read_bytes())
    contents[contents.index(b"u1")] ^= 1
    path.write_bytes(contents)


def write_users(path, indices, column="user_id"):
    pq.write_table(pa.table({"index": pa.array(indices, pa.int32()), column: [""] * len(indices)}), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "No such file"),
        (lambda path: path.write_bytes(b""), "size is 0 bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "magic bytes"),
        (flip_a_bit_of_an_id, "could not verify page integrity"),
        (lambda path: path.write_bytes((path.parent / "items.parquet").read_bytes()), "item_id, title"),
        (lambda path: write_users(path, [0, 2, 1]), "index column does not count its rows"),
        (lambda path: write_users(path, [0], column="user"), "its columns are index, user"),
    ],
)
def test_a_damaged_file_is_reported(vocabulary, tmp_path, damage, message):
    vocabulary.save(str(tmp_path))
    damage(tmp_path / "users.parquet")
    with pytest.raises(
        StorageError, match=rf"users\.parquet (cannot be read|was changed after it was written): .*{message}"
    ):
        load_vocabulary(str(tmp_path))
