"""The ratings or events of all splits, as query lists, histories and columns. Training and evaluation both use it.

However a data set was loaded, the ratings of a split have one order: by user, and those of a user in the order of their
lists. So everything that is computed from them is the same bit for bit.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from trainer import schema
from trainer.data.arrays import EntryArray, ShardedArray
from trainer.data.lists import ListOrder, QueryLists, RatingsByUser, cut_lists, join_by_user
from trainer.data.queries import Queries, build_queries
from trainer.data.ratings.columns import ColumnsOfTable
from trainer.data.vocabulary import Vocabulary
from trainer.features import FeatureSpec

HISTORY_OF = {"train": ("train",), "validation": ("train",), "test": ("train", "validation")}
"""The splits whose ratings are the histories of the lists of a split."""

_RATINGS_PER_CHUNK = 1 << 20
"""Limits what the building of histories needs beside the histories to some 100 MB."""

Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Dataset:
    """The ratings of all splits.

    The arrays of the ratings may be memory-mapped.

    Attributes:
      vocabulary: the users and items of the training split.
      lists: the lists of each split, by the name of the split. A split without ratings is absent.
      description: counts of used and dropped rows, and fingerprints, as plain values for data.json.
      times: the time of each rating of each split, int64 [num_ratings]; see `timestamps`.
      has_ratings: False if the rows are events. Then each rating is 1, or the number of rows of the event.
      has_timestamps: whether the source has times.
      query_features: the values of the features of users, by name: [num_users, *shape].
      item_features: the values of the features of items, by name: [num_items, *shape].
      history_size: the largest number of items in the history of a query; 0 for no history.
      histories: the result of `query_source` for some splits, which is then not computed again.
    """

    vocabulary: Vocabulary
    lists: dict[str, QueryLists]
    description: dict[str, Any] = field(default_factory=dict)
    times: dict[str, EntryArray] = field(default_factory=dict)
    has_ratings: bool = True
    has_timestamps: bool = True
    query_features: dict[str, np.ndarray] = field(default_factory=dict)
    item_features: dict[str, np.ndarray] = field(default_factory=dict)
    history_size: int = 0
    histories: dict[tuple[str, ...], Queries] = field(default_factory=dict)

    @property
    def features(self) -> list[FeatureSpec]:
        """The features that the config names: first those of queries, then of items, then of examples."""
        return [encoder.spec for encoder in self.vocabulary.features]

    @property
    def held_out_split(self) -> str | None:
        """The split for the final metrics: test if it has ratings, otherwise validation, otherwise None."""
        return next((split for split in ("test", "validation") if split in self.lists), None)

    @property
    def ratings(self) -> Mapping[str, Columns]:
        """(user indices, item indices, ratings) of each split, as int32, int32 and float32 [num_ratings].

        They are in the order of the lists. User indices are computed on each access, so do not ask for them in a loop.
        """
        return _OnAccess(self.lists, _columns)

    @property
    def timestamps(self) -> Mapping[str, np.ndarray]:
        """The time of each of these ratings, int64 [num_ratings], in seconds since 1970.

        It is a row number if has_timestamps is False.
        """
        return _OnAccess(self.times, np.asarray)

    def items_by_user(self, *splits: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the items that each user rated in the splits: offsets int64 [num_users + 1] and items int32.

        Items that are not in the training split have the index UNKNOWN_INDEX.
        """
        return join_by_user([self._items_by_user(split) for split in splits if split in self.lists])

    def seen_items(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the items that each user rated in any split: offsets int64 [num_users + 1] and items int32.

        These must not be recommended as new. Items that are not in the vocabulary are left out, since they are never
        recommended.
        """
        parts = []
        for split in self.lists:
            offsets, items = self._items_by_user(split)
            is_known = items != schema.UNKNOWN_INDEX
            parts.append((np.append(0, np.cumsum(is_known))[offsets], items[is_known]))
        return join_by_user(parts)

    def query_source(self, *splits: str) -> Queries:
        """Returns the features of the queries, with the ratings of `splits` as their histories.

        A history is in time order; ratings of the same time are in the order of `splits` and then of their rows. Items
        that are not in the vocabulary are left out.
        """
        present = tuple(split for split in splits if split in self.lists)
        if present in self.histories:
            return self.histories[present]
        num_users = self.vocabulary.num_users
        offsets = {split: self.lists[split].user_offsets(num_users) for split in present}
        # Some users at a time, because sorting needs several arrays of 64-bit numbers.
        parts = [
            build_queries(
                *self._ratings_of_users(offsets, begin, end),
                num_users=end - begin,
                history_size=self.history_size,
                features={},
            )
            for begin, end in _user_ranges(np.sum(list(offsets.values()), axis=0))
        ]
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return Queries(
            offsets=np.append(0, np.cumsum(sizes, dtype=np.int64)),
            items=np.concatenate([part.items for part in parts]),
            ratings=np.concatenate([part.ratings for part in parts]),
            history_size=self.history_size,
            features=self.query_features,
        )

    def _ratings_of_users(self, offsets: Mapping[str, np.ndarray], begin: int, end: int) -> list[np.ndarray]:
        """User numbers from 0, items, ratings and times of the users begin to end - 1, split after split.

        Args:
          offsets: the offsets of each user in each split.
        """
        parts = []
        for split, of_user in offsets.items():
            users = np.repeat(np.arange(end - begin), np.diff(of_user[begin : end + 1]))
            entries = slice(int(of_user[begin]), int(of_user[end]))
            columns = self.lists[split].items, self.lists[split].labels, self.times[split]
            parts.append((users, *(column[entries] for column in columns)))
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _items_by_user(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        lists = self.lists[split]
        return lists.user_offsets(self.vocabulary.num_users), np.asarray(lists.items)


def _user_ranges(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Splits users into ranges of at least one user, with at most _RATINGS_PER_CHUNK ratings if they are more."""
    num_users = len(offsets) - 1
    begin = 0
    while begin < num_users:
        end = int(np.searchsorted(offsets, offsets[begin] + _RATINGS_PER_CHUNK, side="right")) - 1
        end = max(end, begin + 1)
        yield begin, end
        begin = end


class _OnAccess(Mapping[str, Any]):
    """A mapping whose values are computed each time they are asked for, and not kept."""

    def __init__(self, values: Mapping[str, Any], compute: Callable[[Any], Any]):
        self._values = values
        self._compute = compute

    def __getitem__(self, name: str) -> Any:
        return self._compute(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _columns(lists: QueryLists) -> Columns:
    users: np.ndarray = np.repeat(lists.queries, np.diff(lists.offsets))
    return users, np.asarray(lists.items), np.asarray(lists.labels)


def build_dataset(
    vocabulary: Vocabulary,
    splits: Mapping[str, RatingsByUser],
    *,
    list_size: int,
    list_order: ListOrder,
    has_ratings: bool,
    has_timestamps: bool,
    query_features: dict[str, np.ndarray],
    item_features: dict[str, np.ndarray],
    history_size: int,
    histories: Mapping[tuple[str, ...], Queries] = MappingProxyType({}),
) -> Dataset:
    """Builds the lists and histories of a data set. Its description is left empty.

    Args:
      splits: the ratings of each split that has any, in the order `list_order`.
      histories: histories that are not computed again. The other arguments are attributes of `Dataset` or arguments of
        `load_dataset`.
    """
    dataset = Dataset(
        vocabulary=vocabulary,
        lists={name: cut_lists(part, list_size=list_size, list_order=list_order) for name, part in splits.items()},
        times={name: part.timestamps for name, part in splits.items()},
        has_ratings=has_ratings,
        has_timestamps=has_timestamps,
        query_features=query_features,
        item_features=item_features,
        history_size=history_size,
        histories=dict(histories),
    )
    if not (history_size or query_features):
        return dataset
    of_split = {name: tuple(split for split in HISTORY_OF[name] if split in splits) for name in splits}
    used = {present: dataset.query_source(*present) for present in set(of_split.values())}
    lists = {name: replace(part, query_source=used[of_split[name]]) for name, part in dataset.lists.items()}
    return replace(dataset, lists=lists, histories={**dataset.histories, **used})


def digests_of(dataset: Dataset) -> dict[str, str]:
    """The SHA-256 digests of the parts of a data set, in hexadecimal: what does not depend on the size of a list.

    These are "vocabulary", "items" (features of items) if there are any, "queries" (features of queries, with their
    training histories) if lists have them, and the entries of each split by the name of the split.
    """
    digests = {"vocabulary": dataset.vocabulary.fingerprint()}
    for name, lists in dataset.lists.items():
        digests[name] = digest([lists.items, lists.labels, *lists.features.values()])
    if isinstance(dataset.lists["train"].query_source, Queries):
        digests["queries"] = digest_of_queries(dataset.lists["train"].query_source)
    if dataset.item_features:
        digests["items"] = digest(dataset.item_features.values())
    return digests


def digest_of_queries(queries: Queries) -> str:
    """The SHA-256 digest of the features of queries and of their whole histories, in hexadecimal."""
    return digest([queries.offsets, queries.items, queries.ratings, *queries.features.values()])


def digest(arrays: Iterable[EntryArray]) -> str:
    """The SHA-256 digest of arrays, in hexadecimal."""
    sha = hashlib.sha256()
    for array in arrays:
        for part in array.parts if isinstance(array, ShardedArray) else [array]:
            sha.update(np.ascontiguousarray(part).data)
    return sha.hexdigest()


def count_ratings(
    vocabulary: Vocabulary,
    num_ratings: Mapping[str, int],
    *,
    sources: Mapping[str, str],
    reports: Sequence[Mapping[str, int]],
    columns: Sequence[ColumnsOfTable | None],
    has_ratings: bool,
    duplicates: str,
    num_unknown: Mapping[str, int],
    num_test_pairs_in_train: int,
) -> dict[str, Any]:
    """What data.json says of the ratings, apart from their lists.

    Args:
      vocabulary: its users and items are counted.
      num_ratings: the number of ratings of known users of each split that has any.
      sources: the source of each split that has one of its own.
      reports: the number of rows of each kind of each source; see `ratings.Ratings`.
      columns: what became of the columns of each source; None for one that is no table.
      has_ratings, duplicates: as in `Dataset` and `load_ratings`.
      num_unknown: the number of ratings of unknown users of each of these splits.
      num_test_pairs_in_train: only used with several sources.
    """
    counts: dict[str, Any] = {
        "source": sources["train"],
        "rows": {kind: sum(report[kind] for report in reports) for kind in reports[0]},
        "columns": {
            split: {"used": dict(table.used), "unused": list(table.unused)}
            for split, table in zip(sources, columns, strict=True)
            if table is not None
        },
        "has_ratings": has_ratings,
        "duplicates": duplicates,
        "num_users": vocabulary.num_users - 1,
        "num_items": vocabulary.num_items - 1,
        "num_ratings": dict(num_ratings),
        "num_ratings_of_unknown_users": dict(num_unknown),
    }
    if len(sources) > 1:
        counts["sources"] = dict(sources)
        counts["rows_by_source"] = dict(zip(sources, reports, strict=True))
        counts["num_test_pairs_in_train"] = num_test_pairs_in_train
    return counts


def num_pairs_in(pairs: np.ndarray, earlier: np.ndarray) -> int:
    """The number of `pairs` int64 [n] that are among the pairs `earlier` int64 [m]."""
    if not len(earlier):
        return 0
    # Sorted, because NumPy's `isin` is several times slower for large arrays.
    ascending = np.sort(earlier)
    return int((ascending[np.searchsorted(ascending[:-1], pairs)] == pairs).sum())


def _period(times: EntryArray) -> list[int]:
    """The first and the last of times int64 [n], in seconds since 1970."""
    parts = times.parts if isinstance(times, ShardedArray) else [times]
    return [int(min(part.min() for part in parts)), int(max(part.max() for part in parts))]


def describe(dataset: Dataset, counts: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """The content of data.json.

    Args:
      dataset: its lists are counted, and their boundaries are part of their fingerprints. If it has times, `periods`
        has the first and the last one of each split.
      counts: what does not depend on the lists.
      digests: the result of `digests_of`. Those that no list needs are left out.
    """
    fingerprints = {"vocabulary": digests["vocabulary"]}
    for name, lists in dataset.lists.items():
        entries = np.frombuffer(bytes.fromhex(digests[name]), np.uint8)
        fingerprints[f"{name} lists"] = digest([lists.queries, lists.offsets, entries])
    if dataset.lists["train"].query_source is not None:
        fingerprints["queries"] = digests["queries"]
    if dataset.item_features:
        fingerprints["items"] = digests["items"]
    # Last, because another item also has another title.
    fingerprints[schema.TITLES] = dataset.vocabulary.titles_fingerprint()
    return {
        **counts,
        "periods": {name: _period(dataset.times[name]) for name in dataset.lists if dataset.has_timestamps},
        "num_lists": {name: lists.num_lists for name, lists in dataset.lists.items()},
        "fingerprints": fingerprints,
    }
