"""What trainer.recommend prints."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from settings import cli
from settings.visible_text import visible, visible_json
from trainer import schema

if TYPE_CHECKING:
    from trainer.serving.given_ratings import GivenRatings
    from trainer.serving.pairs import Pairs, PairScores


def print_written(what: str, output: str) -> None:
    """Prints what was written to --output."""
    _print(f"Wrote {what} to {output}")


def print_json(found: pa.Table, *, user_id: str, source: str, **counts: Any) -> None:
    """Prints the recommendations for one user as one line of JSON.

    Args:
      found: a table of RECOMMENDATIONS_SCHEMA.
      user_id: whose they are.
      source: what they come from: `model`, `history` or `popular`.
      counts: more fields, before the recommendations.
    """
    rows = found.drop_columns([schema.USER_ID]).to_pylist()
    _print_json({"user_id": user_id, "source": source, **counts, "recommendations": rows})


def print_table(heading: str, found: pa.Table, *, is_known: bool) -> None:
    """Prints the recommendations for one user as a table.

    Args:
      heading: the line above the table.
      found: a table of RECOMMENDATIONS_SCHEMA.
      is_known: whether the scores are those of the model. If not, they are numbers of ratings.
    """
    rows = [
        (row["rank"], row[schema.ITEM_ID], row[schema.TITLE], f"{row['score']:{'.3f' if is_known else '.0f'}}")
        for row in found.to_pylist()
    ]
    _print_rows(heading, rows, last="score" if is_known else "ratings")


def print_similar_json(found: pa.Table) -> None:
    """Prints the items that are similar to one item as one line of JSON. `found` is of SIMILAR_ITEMS_SCHEMA."""
    first = found.slice(0, 1).to_pylist()[0]
    rows = [
        {
            "item_id": row["similar_item_id"],
            "title": row["similar_title"],
            "rank": row["rank"],
            "score": row["score"],
        }
        for row in found.to_pylist()
    ]
    _print_json({"item_id": first[schema.ITEM_ID], "title": first[schema.TITLE], "similar_items": rows})


def print_similar_table(found: pa.Table) -> None:
    """Prints the items that are similar to one item as a table. `found` is of SIMILAR_ITEMS_SCHEMA."""
    rows = [
        (row["rank"], row["similar_item_id"], row["similar_title"], f"{row['score']:.3f}") for row in found.to_pylist()
    ]
    item_id, title = (found[name][0].as_py() for name in (schema.ITEM_ID, schema.TITLE))
    name = item_id if title in ("", item_id) else f"{item_id}, {title}"
    _print_rows(f"The {len(rows)} items most similar to {name}", rows, last="cosine")


def print_account(given: "GivenRatings") -> None:
    """Prints which rows of --ratings were not used, and why."""
    num_rows, num_known = int(given.num_ratings.sum()), int(given.num_known.sum())
    if num_known < num_rows:
        _print(f"{num_rows - num_known:,} of {num_rows:,} ratings were left out: training has not seen their items.")
    if num_popular := int((given.num_known == 0).sum()):
        _print(
            f"{num_popular:,} of {len(given.user_ids):,} users have no other ratings, and get the most popular items."
        )
    if given.missing_columns:
        _print(f"The file has no column {', '.join(map(repr, given.missing_columns))}.")


def print_unknown_pairs(pairs: "Pairs", found: "PairScores") -> None:
    """Prints how many pairs have an unknown item or user, and how many lists were empty."""
    num_pairs = len(found.scores)
    has_item = ~np.isnan(found.scores)
    if num_unscored := int((~has_item).sum()):
        _print(
            f"{num_unscored:,} of {num_pairs:,} pairs have an item that training has not seen. They have no score, and "
            "the last ranks."
        )
    if num_popular := int((has_item & ~found.known).sum()):
        _print(
            f"{num_popular:,} of {num_pairs:,} pairs have a user who has no training ratings. Their score is the "
            "number of ratings of the item."
        )
    if pairs.has_lists and (num_empty := found.num_rows - found.num_groups):
        _print(f"{num_empty:,} of {found.num_rows:,} lists have no item.")


def _print(line: str) -> None:
    cli.build_console().print(visible(line), soft_wrap=True)


def _print_json(answer: dict[str, Any]) -> None:
    print(visible_json(json.dumps(answer, ensure_ascii=False)))


def _print_rows(heading: str, rows: list[tuple[Any, ...]], *, last: str) -> None:
    """Prints ranks, item ids, titles and a last column, under a heading."""
    table = Table(box=None, pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("item_id")
    table.add_column("title")
    table.add_column(last, justify="right")
    for rank, *values in rows:
        table.add_row(str(rank), *map(visible, values))
    _print(heading)
    cli.build_console().print(table)
