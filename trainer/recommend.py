"""Recommend items from the exported model of a run, to one user or to all users.

python -m trainer.recommend --workdir=runs/mine --user_id=42 --k=5
python -m trainer.recommend --workdir=runs/mine --all_users --k=10 --exclude_seen --output=recommendations.parquet
"""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from absl import flags
from rich.table import Table

from settings import cli
from settings.errors import ConfigError, UserError
from trainer import schema

if TYPE_CHECKING:
    from trainer.serving.recommender import Recommender

_USER_ID = flags.DEFINE_string("user_id", None, "Recommend to this user.")
_ALL_USERS = flags.DEFINE_bool("all_users", False, "Recommend to every user of the training ratings.")
_K = flags.DEFINE_integer("k", 10, "The number of items per user.", lower_bound=1)
_EXCLUDE_SEEN = flags.DEFINE_bool(
    "exclude_seen",
    False,
    "Leave out the items that the user has rated. Every rating that the run was given counts: train, validation "
    "and test.",
)
_OUTPUT = flags.DEFINE_string("output", None, "With --all_users: the Parquet file to write, local or gs://.")
_FORMAT = flags.DEFINE_enum(
    "format", "table", ["table", "json"], "With --user_id: print a table for people or JSON for programs."
)
_UNKNOWN = flags.DEFINE_enum(
    "unknown",
    "error",
    ["error", "popular"],
    "With --user_id: what to do if the user has no training ratings: exit with an error, or recommend the most "
    "popular items.",
)


def main() -> int:
    """Checks the flags, then recommends, and returns the exit code."""
    user_id, output = _USER_ID.value, _OUTPUT.value
    if _ALL_USERS.value == (user_id is not None):
        raise ConfigError("Choose the users: set either --user_id=ID or --all_users.")
    if _ALL_USERS.value != (output is not None):
        raise ConfigError(
            "--all_users and --output=FILE.parquet must be set together. For one user, --format=json prints the result "
            "for programs."
        )
    if _ALL_USERS.value and _FORMAT.value == "json":
        raise ConfigError("--format=json works only with --user_id. With --all_users the output is a Parquet file.")

    # Imported here, because TensorFlow takes seconds to import and wrong flags should not wait for it.
    from trainer.serving.recommender import Recommender

    recommender = Recommender(flags.FLAGS.workdir)
    if output is not None:
        num_rows = recommender.write_all(output, _K.value, exclude_seen=_EXCLUDE_SEEN.value)
        num_users = recommender.vocabulary.num_users - 1
        cli.build_console().print(
            f"Wrote {num_rows:,} recommendations for {num_users:,} users to {output}", soft_wrap=True
        )
    elif user_id is not None:
        _print_one(recommender, user_id)
    return 0


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
        source = "model" if is_known else "popular"
        print(json.dumps({"user_id": user_id, "source": source, "recommendations": rows}, ensure_ascii=False))
    else:
        _print_table(user_id, rows, is_known=is_known)


def _print_table(user_id: str, rows: list[dict[str, Any]], *, is_known: bool) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("item_id")
    table.add_column("title")
    table.add_column("score" if is_known else "ratings", justify="right")
    for row in rows:
        score = f"{row['score']:.3f}" if is_known else f"{row['score']:.0f}"
        table.add_row(str(row["rank"]), row[schema.ITEM_ID], row[schema.TITLE], score)
    console = cli.build_console()
    heading = f"Top {len(rows)} for user {user_id}"
    if not is_known:
        heading = f"User {user_id} is unknown. The {len(rows)} most popular items"
    console.print(heading, soft_wrap=True)
    console.print(table)


if __name__ == "__main__":
    # Defined only here, because other entry points define a flag of this name and a test may import them all.
    flags.DEFINE_string("workdir", None, "The folder of a finished run, local or gs://.", required=True)
    cli.run(main)
