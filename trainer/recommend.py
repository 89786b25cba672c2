"""Recommend items from the exported model of a run: to one user, to all users, or to the users of a file of ratings.

python -m trainer.recommend --workdir=runs/mine --user_id=42 --k=5
python -m trainer.recommend --workdir=runs/mine --all_users --k=10 --exclude_seen --output=recommendations.parquet
python -m trainer.recommend --workdir=runs/mine --ratings=mine.csv --k=10
"""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from absl import flags
from rich.table import Table

from settings import cli
from settings.errors import ConfigError, UserError
from settings.progress import showing_progress
from trainer import schema

if TYPE_CHECKING:
    from trainer.serving.given_ratings import GivenRatings
    from trainer.serving.recommender import Recommender

_USER_ID = flags.DEFINE_string("user_id", None, "Recommend to this user.")
_ALL_USERS = flags.DEFINE_bool("all_users", False, "Recommend to every user of the training ratings.")
_RATINGS = flags.DEFINE_string(
    "ratings",
    None,
    "Recommend to the users of this file, local or gs://, from its rows alone. They can be new users. The file has the "
    "columns of the training data. Without a column of users, all rows are of one user; without a column of times, the "
    "rows are in the order of time. Items in the file are not recommended. The model needs a history: "
    "config.history.encoder.",
)
_K = flags.DEFINE_integer("k", 10, "The number of items per user.", lower_bound=1)
_EXCLUDE_SEEN = flags.DEFINE_bool(
    "exclude_seen",
    False,
    "Leave out the items that the user has rated. Every rating that the run was given counts: train, validation and "
    "test. With --ratings it changes nothing: the items in the file are always left out.",
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "The Parquet file to write, local or gs://. Required for more than one user."
)
_FORMAT = flags.DEFINE_enum(
    "format", "table", ["table", "json"], "Without --output: print a table for people or JSON for programs."
)
_UNKNOWN = flags.DEFINE_enum(
    "unknown",
    "error",
    ["error", "popular"],
    "What to do if the user of --user_id has no training ratings, or if training has seen no item of a user of "
    "--ratings: exit with an error, or recommend the most popular items.",
)


def main() -> int:
    """Checks the flags, then recommends, and returns the exit code."""
    user_id, source, output = _USER_ID.value, _RATINGS.value, _OUTPUT.value
    if [_ALL_USERS.value, user_id is not None, source is not None].count(True) != 1:
        raise ConfigError("Choose the users: set one of --user_id=ID, --all_users and --ratings=FILE.")
    if source is None and _ALL_USERS.value != (output is not None):
        raise ConfigError(
            "--all_users and --output=FILE.parquet must be set together. For one user, --format=json prints the result "
            "for programs."
        )
    if output is not None and _FORMAT.value == "json":
        raise ConfigError("--format=json works only without --output, which is a Parquet file.")
    given = _read_ratings(source) if source is not None else None

    # Imported here, because TensorFlow takes seconds to import and wrong flags should not wait for it.
    from trainer.serving.recommender import Recommender, write_recommendations

    recommender = Recommender(flags.FLAGS.workdir)
    if output is not None:
        with showing_progress(cli.build_console()) as progress:
            if given is not None:
                num_users = len(given.user_ids)
                tables = recommender.recommend_from_ratings(given, _K.value, advance=progress("users", num_users))
            else:
                num_users = recommender.vocabulary.num_users - 1
                tables = recommender.recommend_all(
                    _K.value, exclude_seen=_EXCLUDE_SEEN.value, advance=progress("users", num_users)
                )
            num_rows = write_recommendations(tables, output)
        _print_written(num_rows, num_users, output)
        if given is not None:
            _print_account(given)
    elif given is not None:
        _print_given(recommender, given)
    elif user_id is not None:
        _print_one(recommender, user_id)
    return 0


def _read_ratings(source: str) -> "GivenRatings":
    """Reads and checks --ratings, without TensorFlow."""
    from trainer.data.vocabulary import load_vocabulary
    from trainer.serving.given_ratings import read_given_ratings
    from trainer.workdir import Workdir

    workdir = Workdir(flags.FLAGS.workdir)
    config = workdir.load_config()
    if config.history.encoder == "none":
        raise ConfigError(
            f"--ratings={source} cannot be used: the model in --workdir={workdir.path} knows users only by their ids "
            "(config.history.encoder='none'). Train a run with config.history.encoder set to pooled or transformer."
        )
    given = read_given_ratings(
        source,
        load_vocabulary(workdir.vocabulary),
        columns=config.data.columns.model_dump(),
        has_ratings=workdir.was_trained_on_ratings(),
        item_identity=config.data.item_identity,
        history_size=config.history.size,
        data_dir=config.data.data_dir,
        rating_range=config.data.rating_range,
        max_bad_fraction=config.data.max_bad_fraction,
        duplicates=config.data.duplicates,
    )
    if len(given.user_ids) > 1 and _OUTPUT.value is None:
        raise ConfigError(
            f"--ratings={source} has {len(given.user_ids):,} users. Set --output=FILE.parquet to write their "
            "recommendations to a file. Only those for one user are printed."
        )
    unknown = given.user_ids.filter(pa.array(given.num_known == 0))
    if len(unknown) and _UNKNOWN.value == "error":
        raise UserError(
            f"--ratings={source} cannot be used for {len(unknown):,} of {len(given.user_ids):,} users, for instance "
            f"{unknown[0].as_py()!r}: the training ratings have none of their items. Check that the item ids are those "
            "of the training data, or set --unknown=popular to get the most popular items for these users."
        )
    return given


def _print_written(num_rows: int, num_users: int, output: str) -> None:
    cli.build_console().print(f"Wrote {num_rows:,} recommendations for {num_users:,} users to {output}", soft_wrap=True)


def _print_account(given: "GivenRatings") -> None:
    """Prints which rows of --ratings were not used, and why."""
    console = cli.build_console()
    num_rows, num_known = int(given.num_ratings.sum()), int(given.num_known.sum())
    if num_known < num_rows:
        console.print(
            f"{num_rows - num_known:,} of {num_rows:,} ratings were left out: training has not seen their items.",
            soft_wrap=True,
        )
    if num_popular := int((given.num_known == 0).sum()):
        console.print(
            f"{num_popular:,} of {len(given.user_ids):,} users have no other ratings, and get the most popular items.",
            soft_wrap=True,
        )
    if given.missing_columns:
        console.print(f"The file has no column {', '.join(map(repr, given.missing_columns))}.", soft_wrap=True)


def _print_given(recommender: "Recommender", given: "GivenRatings") -> None:
    (found,) = recommender.recommend_from_ratings(given, _K.value)
    user_id = given.user_ids[0].as_py()
    is_known = bool(given.num_known[0])
    rows = found.drop_columns([schema.USER_ID]).to_pylist()
    if not rows:
        raise UserError(
            f"There is nothing to recommend to the user {user_id!r}: --ratings={_RATINGS.value} has every item."
        )
    if _FORMAT.value == "json":
        counts = {
            "num_ratings": int(given.num_ratings[0]),
            "num_unknown_items": int(given.num_ratings[0] - given.num_known[0]),
            "missing_columns": given.missing_columns,
        }
        _print_json(user_id, "history" if is_known else "popular", rows, **counts)
        return
    heading = f"Top {len(rows)} for user {user_id}, from {given.num_known[0]:,} ratings"
    _print_table(heading if is_known else f"The {len(rows)} most popular items", rows, is_known=is_known)
    _print_account(given)


def _print_one(recommender: "Recommender", user_id: str) -> None:
    (user,) = recommender.vocabulary.user_indices(pa.array([user_id]))
    is_known = user != schema.UNKNOWN_INDEX
    if not is_known and _UNKNOWN.value == "error":
        raise UserError(
            f"--user_id={user_id!r} is unknown: the training ratings have no user with this id. Use an id from the "
            "ratings, or set --unknown=popular to get the most popular items."
        )
    # The model recommends the most popular items to the unknown user.
    found = recommender.recommend(np.array([user], np.int32), _K.value, exclude_seen=_EXCLUDE_SEEN.value)
    rows = found.drop_columns([schema.USER_ID]).to_pylist()
    if not rows:
        raise UserError(
            f"There is nothing to recommend to the user {user_id!r}, who has seen every item. Leave out "
            "--exclude_seen to rank seen items too."
        )
    if _FORMAT.value == "json":
        _print_json(user_id, "model" if is_known else "popular", rows)
        return
    heading = f"Top {len(rows)} for user {user_id}"
    if not is_known:
        heading = f"User {user_id} is unknown. The {len(rows)} most popular items"
    _print_table(heading, rows, is_known=is_known)


def _print_json(user_id: str, source: str, rows: list[dict[str, Any]], **counts: Any) -> None:
    print(json.dumps({"user_id": user_id, "source": source, **counts, "recommendations": rows}, ensure_ascii=False))


def _print_table(heading: str, rows: list[dict[str, Any]], *, is_known: bool) -> None:
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
    # Defined only here, because other entry points define a flag of this name and a test may import them all.
    flags.DEFINE_string("workdir", None, "The folder of a finished run, local or gs://.", required=True)
    cli.run(main)
