"""queries.parquet: what is written can be read, also by pandas, and test sets are told apart."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from settings.errors import StorageError
from tests.evaluation.helpers import ids_of
from trainer import storage
from trainer.data.vocabulary import Vocabulary
from trainer.evaluation.query_metrics import QueryMetrics, fingerprint_test_set, read_queries, write_queries
from trainer.evaluation.statistics import ListMetrics

VOCABULARY = Vocabulary(users=pa.table({"user_id": ids_of("u", 6)}), items=pa.table({"item_id": ids_of("i", 9)}))
NAMES = ["mrr", "arp"]


def metrics_of(values, weights, num_left_out=0):
    return ListMetrics(NAMES, np.array(values, np.float32), np.array(weights, np.float32), num_left_out)


RATED = QueryMetrics(
    np.array([1, 1, 4], np.int32),
    {
        "model": metrics_of([[0.5, 2], [1, 3], [0, 0]], [[1, 7], [1, 2.5], [0, 0]]),
        "random": metrics_of([[0.25, 4], [0.5, 5], [0, 0]], [[1, 7], [1, 2.5], [0, 0]]),
    },
    {"users": "a", "held-out items": "b"},
)
CATALOGUE = QueryMetrics(
    np.array([2, 5], np.int32),
    {
        "model": metrics_of([[0.125, 9], [0.75, 1]], [[1, 1], [1, 2]], 3),
        "random": metrics_of([[0.5, 4], [0.5, 4]], [[1, 1], [1, 2]], 3),
    },
    {"users": "c", "held-out items": "d", "candidates": "e"},
)
PROTOCOLS = {"rated": RATED, "catalogue": CATALOGUE}


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "queries.parquet")
    write_queries(path, "test", PROTOCOLS, VOCABULARY)
    return path


def test_what_is_written_can_be_read(path):
    split, protocols = read_queries(path)
    assert split == "test" and list(protocols) == ["rated", "catalogue"]
    for protocol, stored in protocols.items():
        written = PROTOCOLS[protocol]
        assert stored.test_set == written.test_set
        assert stored.user_ids.to_pylist() == [f"u{user}" for user in written.queries]
        assert list(stored.by_scorer) == ["model", "random"]
        for scorer, lists in stored.by_scorer.items():
            expected = written.by_scorer[scorer]
            assert list(lists.names) == NAMES and lists.num_left_out == expected.num_left_out
            np.testing.assert_array_equal(lists.weights, expected.weights)
            np.testing.assert_array_equal(lists.values, expected.values)


def test_a_data_frame_has_a_row_per_list_and_a_column_per_scorer_and_metric(path):
    table = pq.read_table(path)
    assert table.column_names == [
        *("protocol", "user_id", "list", "model/mrr", "model/arp", "random/mrr", "random/arp", "weight/arp"),
    ]
    assert table["protocol"].to_pylist() == ["rated"] * 3 + ["catalogue"] * 2
    assert table["user_id"].to_pylist() == ["u1", "u1", "u4", "u2", "u5"]
    assert table["list"].to_pylist() == [0, 1, 0, 0, 0]
    # An undefined metric is null, so that a plain mean over the column is the reported mean.
    assert table["model/mrr"].to_pylist() == [0.5, 1, None, 0.125, 0.75]


def digests(queries, rows, num_candidates=None):
    offsets = np.cumsum([0, *(len(row) for row in rows)])
    items, relevance = (np.array([entry[i] for row in rows for entry in row]) for i in range(2))
    return fingerprint_test_set(VOCABULARY, np.array(queries), offsets, items, relevance, num_candidates)


def test_a_test_set_is_told_by_its_users_items_and_candidates():
    rows = [[(1, 1.0), (2, 2.0)], [(3, 1.0)]]
    base = digests([1, 2], rows, np.array([8, 8]))
    # The order of a user's items depends on the training ratings. It does not matter.
    assert digests([1, 2], [rows[0][::-1], rows[1]], np.array([8, 8])) == base
    changed = {
        "users": digests([1, 3], rows, np.array([8, 8])),
        "held-out items": digests([1, 2], [rows[0], [(3, 2.0)]], np.array([8, 8])),
        "candidates": digests([1, 2], rows, np.array([8, 7])),
    }
    for part, other in changed.items():
        assert {name for name in base if base[name] != other[name]} == {part}
    moved = digests([1, 2], [[(1, 1.0)], [(2, 2.0), (3, 1.0)]], np.array([8, 8]))
    assert moved["held-out items"] != base["held-out items"]
    assert list(digests([1, 2], rows)) == ["users", "held-out items"]


def test_a_file_that_cannot_be_used_is_refused(path, tmp_path):
    with pytest.raises(StorageError, match=r"missing\.parquet cannot be read"):
        read_queries(str(tmp_path / "missing.parquet"))
    table = pq.read_table(path)
    storage.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(StorageError, match=r"queries\.parquet cannot be read: it has no"):
        read_queries(path)
    metadata = table.schema.metadata[b"listwise_queries"].replace(b'"format_version": 1', b'"format_version": 99')
    storage.write_table(table.replace_schema_metadata({"listwise_queries": metadata}), path)
    with pytest.raises(StorageError, match="its format is 99"):
        read_queries(path)
    storage.write_table(table.drop_columns(["model/mrr"]), path)
    with pytest.raises(StorageError, match="model/mrr"):
        read_queries(path)
    storage.write_bytes(path, b"PAR1 is not enough")
    with pytest.raises(StorageError, match="cannot be read"):
        read_queries(path)
