"""Recommends items from the exported model of a run: to one user, to all users, or to the users of a file of ratings.

python -m trainer.recommend --workdir=runs/mine --user_id=42 --k=5
python -m trainer.recommend --workdir=runs/mine --all_users --k=10 --output=recommendations.parquet
python -m trainer.recommend --workdir=runs/mine --ratings=mine.csv --k=10

It also scores and ranks pairs of users and items that another system has chosen, and finds similar items:

python -m trainer.recommend --workdir=runs/mine --pairs=candidates.parquet --output=scored.parquet
python -m trainer.recommend --workdir=runs/mine --item_id=50 --k=5
"""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from absl import flags

from settings import cli
from settings.errors import ConfigError, UserError
from settings.progress import showing_progress, silent
from trainer import schema
from trainer.recommend import printing
from trainer.serving import output_files

if TYPE_CHECKING:
    from trainer.serving.given_ratings import GivenRatings
    from trainer.serving.recommender import Recommender

flags.DEFINE_string("user_id", None, "Recommend to this user.")
flags.DEFINE_bool("all_users", False, "Recommend to every user of the training ratings.")
_RATINGS = flags.DEFINE_string(
    "ratings",
    None,
    "Recommend to the users of this file, local or gs://, from its rows alone. They can be new users. The file has the "
    "columns of the training data. Without a column of users, all rows are of one user; without a column of times, the "
    "rows are in the order of time. Items in the file are not recommended. The model needs a history: "
    "config.history.encoder.",
)
flags.DEFINE_string(
    "pairs",
    None,
    "Score and rank the items that this file has for each user: a Parquet, CSV or TSV file, local or gs://, with a "
    "column of users and a column of items, or, in Parquet, of lists of items. Its columns have the names in "
    "config.data.columns, or user_id and item_id. No item is left out.",
)
flags.DEFINE_string("item_id", None, "Find the items that are most similar to this one.")
_K = flags.DEFINE_integer("k", 10, "The number of items per user, or of similar items.", lower_bound=1)
_INCLUDE_SEEN = flags.DEFINE_bool(
    "include_seen",
    None,
    "Recommend also what the user has seen. By default it is left out: every item that the user has rated in any "
    "rating that the run was given, for training, validation or the test.",
)
_EXCLUDE_SEEN = flags.DEFINE_bool("exclude_seen", None, "Leave out what the user has seen. This is the default.")
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "The file to write, local or gs://, as Parquet, CSV or JSON Lines by its suffix: .parquet, .csv or .jsonl. "
    "Required for --all_users, for --pairs, and for a --ratings with more than one user.",
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

# What each way to use the command takes besides --workdir and --output.
_OPTIONS = {
    "user_id": {"k", "include_seen", "exclude_seen", "format", "unknown"},
    "all_users": {"k", "include_seen", "exclude_seen"},
    "ratings": {"k", "exclude_seen", "format", "unknown"},
    "pairs": set[str](),
    "item_id": {"k", "format"},
}


def main() -> int:
    """Checks the flags, then recommends, and returns the exit code."""
    chosen = _check_flags()
    {
        "user_id": _recommend_to_one,
        "all_users": _recommend_to_all,
        "ratings": _recommend_from_ratings,
        "pairs": _score_pairs,
        "item_id": _find_similar,
    }[chosen]()
    return 0


def _check_flags() -> str:
    """Returns the name of the flag that says what to do."""
    chosen = [name for name in _OPTIONS if flags.FLAGS[name].value not in (None, False)]
    if len(chosen) != 1:
        raise ConfigError(
            "Choose what to do: set one of --user_id=ID, --all_users, --ratings=FILE, --pairs=FILE and --item_id=ID."
        )
    for name in sorted(set.union(*_OPTIONS.values()) - _OPTIONS[chosen[0]]):
        if flags.FLAGS[name].present:
            raise ConfigError(f"--{name} cannot be used with --{chosen[0]}. Take it out.")
    for name in ("user_id", "item_id"):
        if not _is_text(flags.FLAGS[name].value or ""):
            raise ConfigError(f"--{name}={flags.FLAGS[name].value!r} cannot be used: it is not UTF-8. Ids are text.")
    if _OUTPUT.value is not None:
        output_files.check_suffix(_OUTPUT.value)
        if flags.FLAGS["format"].present:
            raise ConfigError(
                "--format cannot be used with --output, whose suffix decides the format: .parquet, .csv or .jsonl. "
                "Take one of them out."
            )
    elif chosen[0] in ("all_users", "pairs"):
        raise ConfigError(
            f"--{chosen[0]} needs --output=FILE. The suffix of the file decides its format: .parquet, .csv or .jsonl."
        )
    if _INCLUDE_SEEN.value is not None and _INCLUDE_SEEN.value == _EXCLUDE_SEEN.value:
        raise ConfigError("--include_seen and --exclude_seen contradict each other. Take one of them out.")
    return chosen[0]


def _is_text(argument: str) -> bool:
    """Whether an argument was UTF-8. Python keeps other bytes as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def _excludes_seen() -> bool:
    if _INCLUDE_SEEN.value is not None:
        return not _INCLUDE_SEEN.value
    return _EXCLUDE_SEEN.value is not False


def _load_recommender() -> "Recommender":
    # Imported here, because TensorFlow takes seconds to import and wrong flags and files should not wait for it.
    from trainer.serving.recommender import Recommender

    return Recommender(flags.FLAGS.workdir)


def _recommend_to_one() -> None:
    recommender, user_id = _load_recommender(), flags.FLAGS.user_id
    (user,) = recommender.vocabulary.user_indices(pa.array([user_id]))
    is_known = user != schema.UNKNOWN_INDEX
    if not is_known and _UNKNOWN.value == "error":
        raise UserError(
            f"--user_id={user_id!r} is unknown: the training ratings have no user with this id. Use an id from the "
            "ratings, or set --unknown=popular to get the most popular items."
        )
    # The model recommends the most popular items to the unknown user.
    found = recommender.recommend(np.array([user], np.int32), _K.value, exclude_seen=_excludes_seen())
    # The vocabulary has no id for an unknown user.
    found = found.set_column(0, schema.USER_ID, pa.array([user_id] * found.num_rows, pa.string()))
    if not found.num_rows:
        raise UserError(
            f"There is nothing to recommend to the user {user_id!r}, who has seen every item. Set --include_seen to "
            "rank seen items too."
        )
    if _OUTPUT.value is not None:
        output_files.write_tables([found], _OUTPUT.value, found.schema)
        printing.print_written(f"{found.num_rows:,} recommendations for 1 user", _OUTPUT.value)
    elif _FORMAT.value == "json":
        printing.print_json(found, user_id=user_id, source="model" if is_known else "popular")
    else:
        heading = f"Top {found.num_rows} for user {user_id}"
        if not is_known:
            heading = f"User {user_id} is unknown. The {found.num_rows} most popular items"
        printing.print_table(heading, found, is_known=is_known)


def _recommend_to_all() -> None:
    from trainer.serving.recommender import RECOMMENDATIONS_SCHEMA

    recommender, output = _load_recommender(), flags.FLAGS.output
    num_users = recommender.vocabulary.num_users - 1
    with showing_progress(cli.build_console()) as progress:
        tables = recommender.recommend_all(
            _K.value, exclude_seen=_excludes_seen(), advance=progress("users", num_users)
        )
        num_rows = output_files.write_tables(tables, output, RECOMMENDATIONS_SCHEMA)
    printing.print_written(f"{num_rows:,} recommendations for {num_users:,} users", output)


def _recommend_from_ratings() -> None:
    given = _read_ratings(flags.FLAGS.ratings)
    recommender = _load_recommender()
    num_users = len(given.user_ids)
    if _OUTPUT.value is not None:
        from trainer.serving.recommender import RECOMMENDATIONS_SCHEMA

        with showing_progress(cli.build_console()) as progress:
            tables = recommender.recommend_from_ratings(given, _K.value, advance=progress("users", num_users))
            num_rows = output_files.write_tables(tables, _OUTPUT.value, RECOMMENDATIONS_SCHEMA)
        users = "1 user" if num_users == 1 else f"{num_users:,} users"
        printing.print_written(f"{num_rows:,} recommendations for {users}", _OUTPUT.value)
        printing.print_account(given)
        return
    (found,) = recommender.recommend_from_ratings(given, _K.value)
    user_id = given.user_ids[0].as_py()
    is_known = bool(given.num_known[0])
    if not found.num_rows:
        raise UserError(
            f"There is nothing to recommend to the user {user_id!r}: --ratings={_RATINGS.value} has every item."
        )
    if _FORMAT.value == "json":
        counts = {
            "num_ratings": int(given.num_ratings[0]),
            "num_unknown_items": int(given.num_ratings[0] - given.num_known[0]),
            "missing_columns": given.missing_columns,
        }
        printing.print_json(found, user_id=user_id, source="history" if is_known else "popular", **counts)
        return
    heading = f"Top {found.num_rows} for user {user_id}, from {given.num_known[0]:,} ratings"
    if not is_known:
        heading = f"The {found.num_rows} most popular items"
    printing.print_table(heading, found, is_known=is_known)
    printing.print_account(given)


def _read_ratings(source: str) -> "GivenRatings":
    """Reads and checks --ratings, without TensorFlow."""
    from trainer.data.saved import load_saved_vocabulary
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
        load_saved_vocabulary(workdir),
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


def _score_pairs() -> None:
    from trainer.serving.pairs import open_pairs
    from trainer.workdir import Workdir

    source, output = flags.FLAGS.pairs, flags.FLAGS.output
    config = Workdir(flags.FLAGS.workdir).load_config()
    pairs = open_pairs(source, columns=config.data.columns.model_dump())
    output_files.check_columns(output, pairs.schema)
    recommender = _load_recommender()
    with showing_progress(cli.build_console()) as progress:
        # How many rows a text file has is only known at its end.
        begin = silent if pairs.num_rows is None else progress
        found = recommender.score_pairs(pairs, advance=begin("rows", pairs.num_rows or 0))
        num_pairs = output_files.write_tables(pairs.with_scores(found), output, pairs.schema)
    groups = "lists" if pairs.has_lists else "users"
    printing.print_written(f"{num_pairs:,} pairs of {found.num_groups:,} {groups}", output)
    printing.print_unknown_pairs(pairs, found)


def _find_similar() -> None:
    recommender, item_id = _load_recommender(), flags.FLAGS.item_id
    (item,) = recommender.vocabulary.item_indices(pa.array([item_id]))
    if item == schema.UNKNOWN_INDEX:
        raise UserError(
            f"--item_id={item_id!r} is unknown: the training ratings have no item with this id. Use an id from the "
            f"ratings; {recommender.vocabulary.num_items - 1:,} items are known."
        )
    found = recommender.similar_items(np.array([item], np.int32), _K.value)
    if not found.num_rows:
        raise UserError(f"Nothing is similar to the item {item_id!r}, because there is no other item.")
    if _OUTPUT.value is not None:
        output_files.write_tables([found], _OUTPUT.value, found.schema)
        printing.print_written(f"{found.num_rows:,} items that are similar to {item_id}", _OUTPUT.value)
    elif _FORMAT.value == "json":
        printing.print_similar_json(found)
    else:
        printing.print_similar_table(found)


if __name__ == "__main__":
    # Defined only here, because other entry points define a flag of this name and a test may import them all.
    flags.DEFINE_string("workdir", None, "The folder of a finished run, local or gs://.", required=True)
    cli.run(main)
