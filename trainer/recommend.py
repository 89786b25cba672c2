"""Recommends from the exported model of a run: the best k items for one user, or for all.

python -m trainer.recommend --workdir=runs/mine --user_id=42 --k=5
python -m trainer.recommend --workdir=runs/mine --all_users --k=10 --exclude_seen --output=recommendations.parquet
"""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import flags
from rich.table import Table

from settings import cli
from settings.errors import ConfigError, UserError
from trainer import schema

_USER_ID = flags.DEFINE_string("user_id", None, "Recommend for this user.")
_ALL_USERS = flags.DEFINE_bool("all_users", False, "Recommend for every user of the training ratings.")
_K = flags.DEFINE_integer("k", 10, "How many items a user.", lower_bound=1)
_EXCLUDE_SEEN = flags.DEFINE_bool("exclude_seen", False, "Leave out what the user rated in training.")
_OUTPUT = flags.DEFINE_string("output", None, "With --all_users: the Parquet file, local or gs://.")
_FORMAT = flags.DEFINE_enum("format", "table", ["table", "json"], "For one user: for people or for programs.")
_UNKNOWN = flags.DEFINE_enum("unknown", "error", ["error", "popular"], "What a user gets whom training has not seen.")

_USERS_A_CALL = 1024

RECOMMENDATIONS_SCHEMA = pa.schema(
    [
        (schema.USER_ID, pa.string()),
        (schema.ITEM_ID, pa.string()),
        (schema.TITLE, pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float32()),
    ]
)
"""One row a recommendation, by user and rank, which starts at 1."""


class Recommender:
    """The exported model of a run, with its vocabulary and what each user has seen."""

    def __init__(self, workdir: str):
        """
        Raises:
          ConfigError: there is no finished run in `workdir`.
        """
        from trainer.compat import tf
        from trainer.data.lists import load_item_lists
        from trainer.data.vocabulary import load_vocabulary
        from trainer.workdir import Workdir

        paths = Workdir(workdir)
        if not tf.io.gfile.exists(f"{paths.model}/saved_model.pb"):
            raise ConfigError(
                f"--workdir={workdir} holds no finished run: there is no model in {paths.model}. Train one first: "
                f"python -m trainer.main --workdir={workdir}"
            )
        self.vocabulary = load_vocabulary(paths.vocabulary)
        self._offsets, self._seen = load_item_lists(paths.seen)
        self._model = tf.saved_model.load(paths.model)

    def recommend(self, users: np.ndarray, k: int, *, exclude_seen: bool) -> pa.Table:
        """The best k items for each of the user indices int32 [num_users]: a table of RECOMMENDATIONS_SCHEMA.

        A user for whom fewer candidates are left gets fewer rows.
        """
        excluded = self._padded_seen(users) if exclude_seen else np.zeros([len(users), 0], np.int32)
        k = min(k, self.vocabulary.num_items)
        items, scores = (tensor.numpy() for tensor in self._model.recommend_indices(users, k, excluded))
        is_real = items != schema.UNKNOWN_INDEX
        rows, columns = np.nonzero(is_real)
        return self._table(users[rows], items[is_real], columns + 1, scores[is_real])

    def recommend_all(self, k: int, *, exclude_seen: bool) -> Iterator[pa.Table]:
        """Tables for every known user, some at a time, in the order of their indices."""
        for first in range(1, self.vocabulary.num_users, _USERS_A_CALL):
            last = min(first + _USERS_A_CALL, self.vocabulary.num_users)
            yield self.recommend(np.arange(first, last, dtype=np.int32), k, exclude_seen=exclude_seen)

    def popular(self, k: int) -> pa.Table:
        """The k items with the most training ratings, that number as their score; for the user "" ."""
        items: np.ndarray = np.arange(1, min(k, self.vocabulary.num_items - 1) + 1, dtype=np.int32)
        counts = self.vocabulary.items["num_ratings"].take(items).to_numpy()
        return self._table(np.zeros_like(items), items, items, counts)

    def _padded_seen(self, users: np.ndarray) -> np.ndarray:
        """What each user rated in training: item indices int32 [num_users, most], 0 where fewer."""
        starts, sizes = self._offsets[users], self._offsets[users + 1] - self._offsets[users]
        columns = np.arange(sizes.max(initial=0))
        is_real = columns < sizes[:, None]
        entries = np.where(is_real, starts[:, None] + columns, 0)
        return np.where(is_real, self._seen[entries] if len(self._seen) else 0, schema.UNKNOWN_INDEX).astype(np.int32)

    def _table(self, users: np.ndarray, items: np.ndarray, ranks: np.ndarray, scores: np.ndarray) -> pa.Table:
        columns = [
            self.vocabulary.users[schema.USER_ID].take(users),
            self.vocabulary.items[schema.ITEM_ID].take(items),
            self.vocabulary.items[schema.TITLE].take(items),
            pa.array(ranks.astype(np.int32)),
            pa.array(scores.astype(np.float32)),
        ]
        return pa.table(columns, schema=RECOMMENDATIONS_SCHEMA)


def main() -> int:
    """Checks what was asked for, then answers it."""
    user_id, output = _USER_ID.value, _OUTPUT.value
    if _ALL_USERS.value == (user_id is not None):
        raise ConfigError("Say for whom: either --user_id=ID or --all_users.")
    if _ALL_USERS.value != (output is not None):
        raise ConfigError("--all_users and --output=FILE.parquet go together; for one user there is --format=json.")
    if _ALL_USERS.value and _FORMAT.value == "json":
        raise ConfigError("--format=json is for one user; --all_users writes Parquet.")
    recommender = Recommender(flags.FLAGS.workdir)
    if output is not None:
        _write_all(recommender, output)
    elif user_id is not None:
        _print_one(recommender, user_id)
    return 0


def _write_all(recommender: Recommender, path: str) -> None:
    from trainer import storage

    num_rows = 0
    with storage.open_for_writing(path) as file, pq.ParquetWriter(file, RECOMMENDATIONS_SCHEMA) as writer:
        for table in recommender.recommend_all(_K.value, exclude_seen=_EXCLUDE_SEEN.value):
            writer.write_table(table)
            num_rows += table.num_rows
    num_users = recommender.vocabulary.num_users - 1
    cli.build_console().print(f"{num_rows:,} recommendations for {num_users:,} users in {path}", soft_wrap=True)


def _print_one(recommender: Recommender, user_id: str) -> None:
    (user,) = recommender.vocabulary.user_indices(pa.array([user_id]))
    is_known = user != schema.UNKNOWN_INDEX
    if is_known:
        found = recommender.recommend(np.array([user], np.int32), _K.value, exclude_seen=_EXCLUDE_SEEN.value)
    elif _UNKNOWN.value == "popular":
        found = recommender.popular(_K.value)
    else:
        raise UserError(
            f"User {user_id!r} is unknown: training has not seen this id. Use an id of the ratings, or "
            "--unknown=popular for the most popular items."
        )
    rows = found.drop_columns([schema.USER_ID]).to_pylist()
    if not rows:
        raise UserError(f"Nothing is left to recommend to user {user_id!r}, who has seen every item.")
    if _FORMAT.value == "json":
        source = "model" if is_known else "popular"
        print(json.dumps({"user_id": user_id, "source": source, "recommendations": rows}, ensure_ascii=False))
        return
    heading = f"Top {len(rows)} for user {user_id}" if is_known else f"User {user_id} is unknown: the most popular"
    table = Table(box=None, pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("item_id")
    table.add_column("title")
    table.add_column("score" if is_known else "ratings", justify="right")
    for row in rows:
        score = f"{row['score']:.3f}" if is_known else f"{row['score']:.0f}"
        table.add_row(str(row["rank"]), row[schema.ITEM_ID], row[schema.TITLE], score)
    console = cli.build_console()
    console.print(heading, soft_wrap=True)
    console.print(table)


if __name__ == "__main__":
    # Here alone, since the other entry points have a flag of this name and a test may import them all.
    flags.DEFINE_string("workdir", None, "Folder, local or gs://, of a finished run.", required=True)
    cli.run(main)
