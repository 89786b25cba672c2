"""Recommending from a finished run, compared with an independent ranking of the planted scores."""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from settings.errors import ConfigError, StorageError
from tests.serving.planted import odd_title
from trainer import schema
from trainer.data.lists import load_item_lists, save_item_lists
from trainer.data.saved import fingerprints_of
from trainer.data.vocabulary import Vocabulary, load_vocabulary
from trainer.evaluation import item_lists
from trainer.serving import recommender as recommender_module
from trainer.serving.recommender import RECOMMENDATIONS_SCHEMA, Recommender
from trainer.workdir import Workdir


@pytest.fixture(scope="module")
def recommender(planted_run):
    return Recommender(planted_run.workdir)


@pytest.fixture
def copied(planted_run, tmp_path):
    """The paths of a run that the test may change."""
    return Workdir(str(shutil.copytree(planted_run.workdir, tmp_path / "run")))


def expected_table(planted_run, users, k, *, exclude_seen):
    rows = []
    for user in users:
        best = planted_run.best_items(user, excluded=planted_run.seen[user] if exclude_seen else set())[:k]
        (user_id,) = planted_run.vocabulary.users[schema.USER_ID].take(pa.array([user])).to_pylist()
        rows += [
            {"user_id": user_id, "item_id": item_id, "title": odd_title(item_id), "rank": rank, "score": score}
            for rank, (item_id, score) in enumerate(
                zip(planted_run.item_ids(best), planted_run.scores[user, best].tolist(), strict=True), start=1
            )
        ]
    return pa.Table.from_pylist(rows, RECOMMENDATIONS_SCHEMA)


def assert_same(found, expected):
    assert found.schema.equals(RECOMMENDATIONS_SCHEMA)
    assert found.drop_columns(["score"]).to_pylist() == expected.drop_columns(["score"]).to_pylist()
    # The matrix product of another batch size may round differently.
    np.testing.assert_allclose(found["score"].to_numpy(), expected["score"].to_numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("k", [1, 4, 10**12])
def test_each_user_gets_the_best_items(recommender, planted_run, k, exclude_seen):
    users = np.array([7, 1, 39], np.int32)
    found = recommender.recommend(users, k, exclude_seen=exclude_seen)
    assert_same(found, expected_table(planted_run, users.tolist(), k, exclude_seen=exclude_seen))
    if exclude_seen:
        assert recommender.recommend(users, k).equals(found)


def test_seen_items_are_those_of_all_splits(recommender, planted_run):
    """A user's best items include some that only the held-out ratings contain."""
    users: np.ndarray = np.arange(1, planted_run.vocabulary.num_users, dtype=np.int32)
    held_out = [planted_run.seen[user] - planted_run.seen_in_training[user] for user in users]
    assert sum(len(items) for items in held_out) > 100
    found = recommender.recommend(users, 1000, exclude_seen=True)
    pairs = set(
        zip(
            planted_run.vocabulary.user_indices(found["user_id"]).tolist(),
            planted_run.vocabulary.item_indices(found["item_id"]).tolist(),
            strict=True,
        )
    )
    assert pairs
    assert not pairs & {(user, item) for user, items in zip(users.tolist(), held_out, strict=True) for item in items}


def test_the_unknown_user_gets_the_items_with_the_most_training_ratings(recommender, planted_run):
    found = recommender.recommend(np.array([schema.UNKNOWN_INDEX], np.int32), 5, exclude_seen=True)
    items = planted_run.vocabulary.items
    most = sorted(zip((-items["num_ratings"].to_numpy()).tolist(), items["item_id"].to_pylist(), strict=True))[:5]
    assert list(zip((-found["score"].to_numpy()).tolist(), found["item_id"].to_pylist(), strict=True)) == most


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_all_users_get_what_each_gets_alone(recommender, planted_run, exclude_seen):
    (found,) = recommender.recommend_all(7, exclude_seen=exclude_seen)
    users = range(1, planted_run.vocabulary.num_users)
    assert len(users) == 40
    assert_same(found, expected_table(planted_run, users, 7, exclude_seen=exclude_seen))


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_all_users_are_scored_in_chunks_of_bounded_size(recommender, monkeypatch, exclude_seen):
    (whole,) = recommender.recommend_all(3, exclude_seen=exclude_seen)

    monkeypatch.setattr(recommender_module, "QUERIES_PER_CHUNK", 13)
    parts = list(recommender.recommend_all(3, exclude_seen=exclude_seen))
    assert [len(part["user_id"].unique()) for part in parts] == [13, 13, 13, 1]
    assert_same(pa.concat_tables(parts), whole)

    # Without seen items a user has 3 entries. No user has seen more than 30 items, and some have seen more than 15.
    monkeypatch.setattr(item_lists, "_MAX_CHUNK_ENTRIES", 30)
    parts = list(recommender.recommend_all(3, exclude_seen=exclude_seen))
    sizes = [len(part["user_id"].unique()) for part in parts]
    assert max(sizes) <= (2 if exclude_seen else 10)
    assert_same(pa.concat_tables(parts), whole)

    monkeypatch.setattr(item_lists, "_MAX_CHUNK_ENTRIES", 1)
    assert_same(pa.concat_tables(recommender.recommend_all(3, exclude_seen=exclude_seen)), whole)


def test_a_user_who_has_seen_everything_gets_no_rows(copied):
    vocabulary = load_vocabulary(copied.vocabulary)
    num_items = vocabulary.num_items - 1
    seen_by_the_last: np.ndarray = np.arange(1, num_items + 1, dtype=np.int32)
    seen = (np.array([0] * vocabulary.num_users + [num_items]), seen_by_the_last)
    save_item_lists(copied.seen, *seen)
    record = copied.load_json(copied.data)
    copied.save_json(copied.data, {**record, "fingerprints": fingerprints_of(vocabulary, seen)})
    last = vocabulary.num_users - 1
    users = np.array([last, 1], np.int32)
    found = Recommender(copied.path).recommend(users, 2, exclude_seen=True)
    assert vocabulary.user_indices(found["user_id"]).tolist() == [1, 1]


def test_a_run_that_has_not_finished_is_refused(copied):
    shutil.rmtree(copied.model)
    with pytest.raises(ConfigError, match=f"no exported model in {copied.model}: the run has not finished"):
        Recommender(copied.path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path} does not contain a run"):
        Recommender(str(tmp_path))


def test_a_permuted_vocabulary_is_refused(copied):
    """Without the check, each item would get the title of another one."""
    vocabulary = load_vocabulary(copied.vocabulary)
    order = [0, 2, 1, *range(3, vocabulary.num_items)]
    moved = vocabulary.items.take(order).set_column(0, vocabulary.items.schema.field(0), vocabulary.items["index"])
    Vocabulary(users=vocabulary.users, items=moved).save(copied.vocabulary)
    with pytest.raises(StorageError, match="vocabulary cannot be used: it is not as this run wrote it"):
        Recommender(copied.path)


def test_a_vocabulary_that_the_model_was_not_exported_with_is_refused(copied):
    """Also if data.json agrees with it, as after a file of another run was copied."""
    vocabulary = load_vocabulary(copied.vocabulary)
    users = vocabulary.users.slice(0, vocabulary.num_users - 1)
    other = Vocabulary(users=users, items=vocabulary.items)
    other.save(copied.vocabulary)
    record = copied.load_json(copied.data)
    fingerprints = fingerprints_of(other, load_item_lists(copied.seen))
    copied.save_json(copied.data, {**record, "fingerprints": fingerprints})
    with pytest.raises(StorageError, match="it was exported with another vocabulary"):
        Recommender(copied.path)


@pytest.mark.parametrize("column", ["title", "genres", "num_ratings"])
def test_items_that_are_described_in_another_way_are_refused(copied, column):
    vocabulary = load_vocabulary(copied.vocabulary)
    values = vocabulary.items[column].to_pylist()
    values[3] = {"title": "Another film", "genres": ["Drama"], "num_ratings": 1}[column]
    position = vocabulary.items.schema.get_field_index(column)
    field = vocabulary.items.schema.field(position)
    items = vocabulary.items.set_column(position, field, pa.array(values, field.type))
    Vocabulary(users=vocabulary.users, items=items).save(copied.vocabulary)
    with pytest.raises(
        StorageError, match=r"items\.parquet cannot be used: .* the fingerprint of the titles and genres"
    ):
        Recommender(copied.path)


def test_other_seen_items_are_refused(copied):
    offsets, items = load_item_lists(copied.seen)
    save_item_lists(copied.seen, offsets, np.append(items[:-1], items[-1] % 30 + 1).astype(np.int32))
    with pytest.raises(StorageError, match=r"seen\.parquet cannot be used: .* the fingerprint of the seen items was"):
        Recommender(copied.path)


def test_a_run_that_recorded_no_fingerprints_is_refused_with_the_way_out(copied):
    record = copied.load_json(copied.data)
    del record["fingerprints"]["seen items"]
    copied.save_json(copied.data, record)
    with pytest.raises(StorageError, match=r"data\.json has no fingerprint of the seen items.* Run python -m trainer"):
        Recommender(copied.path)


def test_a_damaged_model_is_refused(copied, planted_run):
    with open(f"{copied.model}/saved_model.pb", "ab") as file:
        file.write(b"\0")
    with pytest.raises(StorageError, match=r"its file saved_model.pb has changed"):
        Recommender(copied.path)
