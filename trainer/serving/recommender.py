"""Recommend items from the exported model of a run."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from settings.progress import Advance
from trainer import schema
from trainer.compat import tf
from trainer.data.saved import load_saved_vocabulary, load_seen
from trainer.evaluation.catalogue_scorer import QUERIES_PER_CHUNK
from trainer.evaluation.item_lists import ItemLists, chunks
from trainer.serving.export import load_export
from trainer.serving.given_ratings import GivenRatings
from trainer.serving.pairs import Pairs, PairScores, rank_within_groups
from trainer.workdir import Workdir

RECOMMENDATIONS_SCHEMA = pa.schema(
    [
        (schema.USER_ID, pa.string()),
        (schema.ITEM_ID, pa.string()),
        (schema.TITLE, pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float32()),
    ]
)
"""One row per recommendation, sorted by user and then by rank, which starts at 1."""

SIMILAR_ITEMS_SCHEMA = pa.schema(
    [
        (schema.ITEM_ID, pa.string()),
        (schema.TITLE, pa.string()),
        ("rank", pa.int32()),
        ("similar_item_id", pa.string()),
        ("similar_title", pa.string()),
        ("score", pa.float32()),
    ]
)
"""One row per similar item, sorted by item in the order of the request, and then by rank, which starts at 1."""


class Recommender:
    """The exported model of a run, its vocabulary and the items that each user has seen.

    Seen means rated in any rating that the run was given, also in validation and test ratings.

    Attributes:
      vocabulary: the users and items of the training ratings.
      model: the loaded SavedModel, with the functions of `serving_model.ServingModel`.
    """

    def __init__(self, workdir: str):
        """Loads the finished run in `workdir`, local or gs://.

        Raises:
          ConfigError: `workdir` holds no run, or the run has not finished.
          StorageError: a file of the run is missing or damaged, or the model was exported with another vocabulary.
        """
        paths = Workdir(workdir)
        paths.load_config()  # Refuses a folder that holds no run, or one whose format cannot be read.
        self.vocabulary = load_saved_vocabulary(paths)
        self.model = load_export(paths.model, self.vocabulary)
        self._seen = ItemLists(*load_seen(paths))

    def recommend(self, users: np.ndarray, k: int, *, exclude_seen: bool = True) -> pa.Table:
        """Recommends the best k items to each user.

        All users are scored in one call. For many users use `recommend_all`, which limits the memory.

        Args:
          users: int32 [num_users], user indices. UNKNOWN_INDEX gets the most popular items, whose score is their
            number of training ratings.
          k: the number of items per user, at least 1.
          exclude_seen: leave out the items that the user has seen, as is the default.

        Returns:
          A table of RECOMMENDATIONS_SCHEMA. A user with fewer than k candidates gets fewer rows.
        """
        excluded = self._seen.take(users).padded() if exclude_seen else np.zeros([len(users), 0], np.int32)
        user_ids = self.vocabulary.users[schema.USER_ID].take(users)
        return self._recommend(user_ids, self.model.user_features(users), k, excluded)

    def recommend_all(
        self, k: int, *, exclude_seen: bool = True, advance: Advance = lambda number: None
    ) -> Iterator[pa.Table]:
        """Recommends to every known user, in the order of their indices, in chunks that limit the memory.

        A chunk has at most QUERIES_PER_CHUNK users.

        Args:
          k: the number of items per user, at least 1.
          exclude_seen: leave out the items that the user has seen, as is the default.
          advance: is called with the number of users of each chunk.

        Yields:
          Tables as from `recommend`, one per chunk.
        """
        num_seen = np.diff(self._seen.offsets)[schema.UNKNOWN_INDEX + 1 :]
        for rows in self._chunks(num_seen if exclude_seen else np.zeros_like(num_seen), k):
            yield self.recommend(schema.UNKNOWN_INDEX + 1 + rows, k, exclude_seen=exclude_seen)
            advance(len(rows))

    def recommend_from_ratings(
        self, given: GivenRatings, k: int, *, advance: Advance = lambda number: None
    ) -> Iterator[pa.Table]:
        """Recommends to users who are described by given ratings alone, also if the model knows their ids.

        The items that they have rated are left out. Users without a known item get the most popular items.

        Args:
          given: the ratings. They must be made for a model with a history.
          k: the number of items per user, at least 1.
          advance: is called with the number of users of each chunk.

        Yields:
          Tables as from `recommend`, one per chunk, in the order of the users.
        """
        rated = ItemLists(given.queries.offsets, np.asarray(given.queries.items))
        names = [name.decode() for name in self.model.query_features.numpy()]
        for rows in self._chunks(given.num_known, k):
            features = given.queries.gather(rows)
            features[schema.QUERY] = np.full(len(rows), schema.UNKNOWN_INDEX, np.int32)
            # The time of a transformer grows with the square of the padded length.
            longest = max(1, given.num_known[rows].max())
            for name in (schema.HISTORY, schema.HISTORY_RATINGS):
                features[name] = features[name][:, :longest]
            tensors = {name: tf.constant(features[name]) for name in names}
            yield self._recommend(given.user_ids.take(pa.array(rows)), tensors, k, rated.take(rows).padded())
            advance(len(rows))

    def score_pairs(self, pairs: Pairs, *, advance: Advance = lambda number: None) -> PairScores:
        """Scores the pairs of a file and ranks them. It holds some 40 bytes of each pair, and no ids.

        Args:
          pairs: the file. It is read once.
          advance: is called with the number of rows of each chunk of the file.
        """
        strangers: dict[str | None, int] = {}
        parts: list[tuple[np.ndarray, ...]] = []
        num_rows = 0
        for chunk in pairs.chunks():
            users = self.vocabulary.user_indices(chunk.user_ids)
            items = self.vocabulary.item_indices(chunk.item_ids)
            groups = chunk.list_numbers
            if groups is None:
                groups = users.astype(np.int64)
                is_stranger = users == schema.UNKNOWN_INDEX
                for row in np.flatnonzero(is_stranger):
                    number = strangers.setdefault(chunk.user_ids[row].as_py(), len(strangers))
                    groups[row] = self.vocabulary.num_users + number
            parts.append((self._score(users, items), users, items, groups))
            num_rows += chunk.num_rows
            advance(chunk.num_rows)
        columns = zip(*parts, strict=True) if parts else [[np.zeros(0)]] * 4
        scores, users, items, groups = (np.concatenate(column) for column in columns)
        return PairScores(
            scores=scores,
            ranks=rank_within_groups(groups, scores, items),
            known=(users != schema.UNKNOWN_INDEX) & (items != schema.UNKNOWN_INDEX),
            num_rows=num_rows,
            num_groups=len(np.unique(groups)),
        )

    def _score(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """The scores of pairs of user and item indices, float32 [n]. NaN for unknown items."""
        distinct, rows = np.unique(users, return_inverse=True)
        order = np.argsort(rows, kind="stable")
        lists = ItemLists(np.append(0, np.cumsum(np.bincount(rows, minlength=len(distinct)))), items[order])
        in_order = [np.zeros(0, np.float32)]
        for part in chunks(np.diff(lists.offsets), max_rows=QUERIES_PER_CHUNK):
            of_part = lists.take(part)
            scores = self.model.score_indices(self.model.user_features(distinct[part]), of_part.padded()).numpy()
            sizes = np.diff(of_part.offsets)
            in_order.append(scores[np.arange(scores.shape[1]) < sizes[:, None]])
        scores_of_pairs: np.ndarray = np.zeros(len(users), np.float32)
        scores_of_pairs[order] = np.concatenate(in_order)
        return np.where(items == schema.UNKNOWN_INDEX, np.float32(np.nan), scores_of_pairs)

    def similar_items(self, items: np.ndarray, k: int) -> pa.Table:
        """Finds the most similar items of each item, by the cosine of the vectors that the model has learnt of them.

        The bias of an item does not count, so an item is not similar because it is popular.

        Args:
          items: int32 [num_items], item indices, without UNKNOWN_INDEX.
          k: the number of similar items per item, at least 1.

        Returns:
          A table of SIMILAR_ITEMS_SCHEMA. The score is the cosine, from -1 to 1. An item is not similar to itself.
        """
        tables = [SIMILAR_ITEMS_SCHEMA.empty_table()]
        k = min(k, self.vocabulary.num_items)
        of_items = self.vocabulary.items.select([schema.ITEM_ID, schema.TITLE])
        for chunk in self._chunks(np.zeros(len(items), np.int64), k):
            found, scores = (tensor.numpy() for tensor in self.model.similar_indices(items[chunk], k))
            is_real = found != schema.UNKNOWN_INDEX
            rows, columns = np.nonzero(is_real)
            tables.append(
                pa.table(
                    [
                        *of_items.take(items[chunk][rows]).columns,
                        pa.array((columns + 1).astype(np.int32)),
                        *of_items.take(found[is_real]).columns,
                        pa.array(scores[is_real].astype(np.float32)),
                    ],
                    schema=SIMILAR_ITEMS_SCHEMA,
                )
            )
        return pa.concat_tables(tables)

    def rated_items(self, users: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """Returns what known users have rated.

        Args:
          users: int32 [num_users], user indices.

        Returns:
          The items of each user, int32 [num_rated], and their ratings, float32 [num_rated]. A model with a history has
          stored the latest items, oldest first. Otherwise these are all items that the user has seen, in no order of
          time, and there are no ratings: None.
        """
        features = self.model.user_features(users)
        if schema.HISTORY not in features:
            seen = self._seen.take(users)
            return np.split(seen.items, seen.offsets[1:-1]), None
        items, ratings = (features[name].numpy() for name in (schema.HISTORY, schema.HISTORY_RATINGS))
        is_real = items != schema.UNKNOWN_INDEX
        return [row[real] for row, real in zip(items, is_real, strict=True)], [
            row[real] for row, real in zip(ratings, is_real, strict=True)
        ]

    def num_seen(self) -> np.ndarray:
        """Returns the number of items that each user has seen, int64 [num_users], by index."""
        return np.diff(self._seen.offsets)

    def _recommend(
        self, user_ids: pa.Array | pa.ChunkedArray, features: Mapping[str, tf.Tensor], k: int, excluded: np.ndarray
    ) -> pa.Table:
        k = min(k, self.vocabulary.num_items)
        items, scores = (tensor.numpy() for tensor in self.model.recommend_indices(features, k, excluded))
        is_real = items != schema.UNKNOWN_INDEX
        rows, columns = np.nonzero(is_real)
        found = items[is_real]
        return pa.table(
            [
                user_ids.take(pa.array(rows)),
                self.vocabulary.items[schema.ITEM_ID].take(found),
                self.vocabulary.items[schema.TITLE].take(found),
                pa.array((columns + 1).astype(np.int32)),
                pa.array(scores[is_real].astype(np.float32)),
            ],
            schema=RECOMMENDATIONS_SCHEMA,
        )

    def _chunks(self, widths: np.ndarray, k: int) -> Iterator[np.ndarray]:
        """Splits users, whose rows have these widths and at least k entries, into chunks of positions, int32 [n]."""
        return chunks(np.maximum(widths, min(k, self.vocabulary.num_items)), max_rows=QUERIES_PER_CHUNK)
