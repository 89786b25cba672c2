"""The metrics of each query in a Parquet file, for paired comparisons of runs. Imports no TensorFlow.

The file has one row per protocol and list, sorted by protocol and then by user index:

- `protocol`: string.
- `user_id`: string.
- `list`: int32, the number of the list among those of the user in this protocol, from 0.
- `SCORER/METRIC`, such as `model/ndcg@10`: float32, null where the metric is undefined for the list.
- `weight/METRIC`: float32, only for metrics that weight lists differently (arp, ordered_pair_accuracy).

The metadata of the file says which test set the metrics belong to.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from settings.errors import StorageError
from settings.records import Record, check_types
from trainer import schema, storage
from trainer.data.fingerprints import digest_of_lists
from trainer.data.vocabulary import Vocabulary
from trainer.evaluation.statistics import ListMetrics

FORMAT_VERSION = 1
"""The format of the file."""

PROTOCOL = "protocol"
LIST = "list"
_WEIGHT = "weight"
_METADATA_KEY = b"listwise_queries"


@dataclass(frozen=True, eq=False)
class QueryMetrics:
    """The metrics of each list of a protocol.

    Attributes:
      queries: int32 [num_lists]: the user index of each list. The lists of a user follow each other.
      by_scorer: Metrics of the model and of each baseline, over the same lists.
      test_set: What the test set consists of, such as a digest of its users, by the name of the part. The metrics of
        two runs can be compared if all parts are equal.
    """

    queries: np.ndarray
    by_scorer: dict[str, ListMetrics]
    test_set: dict[str, str]


class _Protocol(Record):
    test_set: dict[str, str]
    scorers: list[str]
    metrics: list[str]
    num_left_out: int


class _Metadata(Record):
    """The metadata of the file."""

    split: str
    protocols: dict[str, _Protocol]


@dataclass(frozen=True, eq=False)
class StoredQueries:
    """The metrics of one protocol, as read from a file.

    Attributes:
      user_ids: string [num_lists].
      by_scorer: As in `QueryMetrics`.
      test_set: As in `QueryMetrics`.
    """

    user_ids: pa.ChunkedArray
    by_scorer: dict[str, ListMetrics]
    test_set: dict[str, str]


def fingerprint_test_set(
    vocabulary: Vocabulary,
    queries: np.ndarray,
    offsets: np.ndarray,
    items: np.ndarray,
    relevance: np.ndarray,
    num_candidates: np.ndarray | None = None,
) -> dict[str, str]:
    """Computes a digest of each part of a test set. It does not depend on the order of the items.

    Args:
      vocabulary: Its ids stand for the indices.
      queries: int32 [num_lists], user indices.
      offsets: int64 [num_lists + 1]; list i has the entries offsets[i]:offsets[i + 1].
      items: int32 [num_entries], item indices.
      relevance: float32 [num_entries].
      num_candidates: int64 [num_lists], if the candidates are not the items of the list but those of the vocabulary.

    Returns:
      SHA-256 digests in hexadecimal, by the name of the part, as it stands in an error message.
    """
    entries = pa.table(
        {
            "row": np.repeat(np.arange(len(queries)), np.diff(offsets)),
            "item": vocabulary.items[schema.ITEM_ID].take(items).combine_chunks(),
            "relevance": relevance,
        }
    ).sort_by([("row", "ascending"), ("item", "ascending"), ("relevance", "ascending")])
    parts = {
        "users": digest_of_lists([vocabulary.users[schema.USER_ID].take(queries)]),
        "held-out items": digest_of_lists([pa.array(offsets), *entries.columns[1:]]),
    }
    if num_candidates is not None:
        ids = vocabulary.items[schema.ITEM_ID]
        parts["candidates"] = digest_of_lists([ids.take(pc.sort_indices(ids)), pa.array(num_candidates)])
    return parts


def write_queries(path: str, split: str, protocols: Mapping[str, QueryMetrics], vocabulary: Vocabulary) -> None:
    """Writes the metrics of each list, local or gs://. The file is replaced in one step.

    Args:
      path: The Parquet file.
      split: The split that was evaluated.
      protocols: The metrics by protocol. All protocols have the same metrics.
      vocabulary: Has the ids of the users.

    Raises:
      StorageError: The file cannot be written.
    """
    tables = [_table_of(protocol, metrics, vocabulary) for protocol, metrics in protocols.items()]
    metadata = {
        "format_version": FORMAT_VERSION,
        "split": split,
        "protocols": {
            protocol: {
                "test_set": metrics.test_set,
                "scorers": list(metrics.by_scorer),
                "metrics": list(next(iter(metrics.by_scorer.values())).names),
                "num_left_out": next(iter(metrics.by_scorer.values())).num_left_out,
            }
            for protocol, metrics in protocols.items()
        },
    }
    table = pa.concat_tables(tables, promote_options="default")
    storage.write_table(table.replace_schema_metadata({_METADATA_KEY: json.dumps(metadata)}), path)


def read_queries(path: str) -> tuple[str, dict[str, StoredQueries]]:
    """Reads a file that `write_queries` wrote, local or gs://.

    Returns:
      The split, and the metrics by protocol.

    Raises:
      StorageError: The file is missing or damaged, or has another format.
    """
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(path)), page_checksum_verification=True)
        metadata = json.loads((table.schema.metadata or {})[_METADATA_KEY])
        if metadata["format_version"] != FORMAT_VERSION:
            raise ValueError(f"its format is {metadata['format_version']}, and this version reads {FORMAT_VERSION}")
        check_types(_Metadata, metadata)
        protocols = {
            protocol: _protocol_of(table.filter(pc.equal(table[PROTOCOL], protocol)), described)
            for protocol, described in metadata["protocols"].items()
        }
    except (*storage.file_errors(), pa.ArrowException, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else storage.reason(error)
        raise StorageError(
            f"{path} cannot be read: {reason}. Restore the file from a copy, or train again in another workdir."
        ) from error
    return metadata["split"], protocols


def _table_of(protocol: str, metrics: QueryMetrics, vocabulary: Vocabulary) -> pa.Table:
    num_lists = len(metrics.queries)
    is_first = np.append(True, metrics.queries[1:] != metrics.queries[:-1])[:num_lists]
    first_of_user = np.maximum.accumulate(np.where(is_first, np.arange(num_lists), 0))
    columns: dict[str, Any] = {
        PROTOCOL: pa.array([protocol] * num_lists, pa.string()),
        schema.USER_ID: vocabulary.users[schema.USER_ID].take(metrics.queries).combine_chunks(),
        LIST: (np.arange(num_lists) - first_of_user).astype(np.int32),
    }
    for scorer, lists in metrics.by_scorer.items():
        for name, values, weights in zip(lists.names, lists.values.T, lists.weights.T, strict=True):
            columns[f"{scorer}/{name}"] = pa.array(values.astype(np.float32), mask=weights == 0)
    # The weights of a list follow from its labels, so they are the same for all scorers.
    lists = next(iter(metrics.by_scorer.values()))
    for name, weights in zip(lists.names, lists.weights.T, strict=True):
        if np.any((weights != 0) & (weights != 1)):
            columns[f"{_WEIGHT}/{name}"] = weights.astype(np.float32)
    return pa.table(columns)


def _protocol_of(table: pa.Table, described: Mapping[str, Any]) -> StoredQueries:
    names: Sequence[str] = described["metrics"]
    by_scorer = {}
    for scorer in described["scorers"]:
        columns = [table[f"{scorer}/{name}"].cast(pa.float32()) for name in names]
        values = np.stack([column.to_numpy() for column in columns], axis=1)
        weights = (~np.isnan(values)).astype(np.float32)
        for i, name in enumerate(names):
            if f"{_WEIGHT}/{name}" in table.column_names:
                weights[:, i] = np.nan_to_num(table[f"{_WEIGHT}/{name}"].to_numpy())
        by_scorer[scorer] = ListMetrics(names, np.nan_to_num(values), weights, described["num_left_out"])
    return StoredQueries(table[schema.USER_ID], by_scorer, described["test_set"])
