"""What became of the rows of files and sources: how many are bad and why, and what to do about too many of them."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from settings.errors import DataError
from trainer import schema
from trainer.data.ratings import iso_times
from trainer.data.ratings.columns import ColumnsOfTable, join_columns

READ, USED, DUPLICATE = "read", "used", "duplicate"
COUNTED = "counted"
"""Rows that were added to the number of rows of their pair. Only with config.data.duplicates=count."""

MALFORMED = "malformed_row"
REASONS = {
    "user_id_missing": schema.USER_ID,
    "item_id_missing": schema.ITEM_ID,
    "rating_not_a_number": schema.RATING,
    "rating_out_of_range": schema.RATING,
    "timestamp_not_seconds": schema.TIMESTAMP,
}
"""Why a row is bad → the column with the bad value. If several reasons apply, the first one counts."""

BAD = (MALFORMED, *REASONS)

MAX_RATING = 100
"""The greatest upper end of config.data.rating_range."""

_RELEVANT_PART = 0.8
"""An example of what is relevant: the part of the highest rating that the default config has, 4 of 5 stars."""


@dataclasses.dataclass(frozen=True)
class Account:
    """What became of the rows of one file or source.

    Attributes:
      report: see `ratings.Ratings`.
      num_lost_lines: the lines of malformed rows, beyond one line for each of them.
      first_bad: where the first bad row is and why it is bad; "" if no row is bad.
      has_ratings: whether the rows have ratings. If not, they are events.
      has_timestamps: whether the rows have times.
      found_ratings: the least and the greatest number in the column of ratings; None if there are none.
      used_ratings: the least and the greatest of the ratings that can be used; None if there are none.
      columns: what became of the columns of tables; None for another source.
    """

    report: dict[str, int]
    num_lost_lines: int
    first_bad: str
    has_ratings: bool
    has_timestamps: bool
    found_ratings: tuple[float, float] | None
    used_ratings: tuple[float, float] | None
    columns: ColumnsOfTable | None


def join_accounts(
    accounts: Sequence[Account], *, source: str, rating_range: tuple[float, float], max_bad_fraction: float
) -> Account:
    """Adds up the accounts of the files of a source, in their order. The other arguments are those of `clean`.

    Raises:
      DataError: more rows are bad, or no row can be used, or the files do not have the same columns.
    """
    tables = [account.columns for account in accounts if account.columns is not None]
    columns = join_columns(tables) if tables else None
    found_ratings = _join_limits([account.found_ratings for account in accounts])
    report = {kind: sum(account.report[kind] for account in accounts) for kind in accounts[0].report}
    num_lost_lines = sum(account.num_lost_lines for account in accounts)
    first_bad = next((account.first_bad for account in accounts if account.first_bad), "")
    has_ratings = accounts[-1].has_ratings
    num_bad = sum(report[reason] for reason in BAD)
    reasons = ", ".join(f"{report[reason]:,} {reason}" for reason in BAD if report[reason])
    if num_bad + num_lost_lines > max_bad_fraction * (report[READ] + num_lost_lines):
        lines = f" in {num_bad + num_lost_lines:,} lines" if num_lost_lines else ""
        rules = _rules(report, rating_range=rating_range, found_ratings=found_ratings)
        raise DataError(
            f"{source}: {num_bad:,} of {report[READ]:,} rows{lines} are bad ({reasons}), more than "
            f"config.data.max_bad_fraction={max_bad_fraction:g} allows. The first is {first_bad}. {rules}"
            "Correct the file, or raise config.data.max_bad_fraction to continue without these rows."
        )
    if num_bad == report[READ]:
        raise DataError(
            f"{source} has no ratings ({reasons or 'no rows at all'}). Set config.data.source to a file with ratings."
        )
    return Account(
        report,
        num_lost_lines,
        first_bad,
        has_ratings,
        accounts[-1].has_timestamps,
        found_ratings,
        _join_limits([account.used_ratings for account in accounts]),
        columns,
    )


def _join_limits(limits: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    known = [pair for pair in limits if pair is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _rules(
    report: Mapping[str, int], *, rating_range: tuple[float, float], found_ratings: tuple[float, float] | None
) -> str:
    """What the bad values should be, with a space at the end."""
    rules = ""
    if report["rating_not_a_number"] or report["rating_out_of_range"]:
        least, greatest = rating_range
        rules += f"Ratings must be numbers from {least:g} to {greatest:g} (config.data.rating_range). "
    if report["rating_out_of_range"]:
        rules += _advice_on_range(found_ratings)
    if report["timestamp_not_seconds"]:
        rules += f"Times must be seconds since 1970, or text such as {iso_times.EXAMPLE}. "
    return rules


def _advice_on_range(found: tuple[float, float] | None) -> str:
    """How ratings outside of the range can be used, with a space at the end.

    Args:
      found: the least and the greatest rating.
    """
    if found is None or found[0] == found[1]:
        return ""
    low, high = found
    seen = f"The ratings that were found are from {low:g} to {high:g}. "
    if low >= 0 and high <= MAX_RATING:
        return (
            f'{seen}If all of them are right, set --config.data.rating_range="({low}, {high})", and set '
            "--config.eval.relevance_threshold to the lowest rating that counts as relevant, for example "
            f"{_RELEVANT_PART * high:g}. "
        )
    return (
        f"{seen}No rating can be below 0 or above {MAX_RATING}, because the gain of NDCG is 2^rating - 1: convert them "
        "to another scale, such as 0 to 5. If they are numbers of events, such as clicks, leave them out with "
        "--config.data.columns.rating= "
    )


def limits(numbers: np.ndarray) -> tuple[float, float] | None:
    return (float(numbers.min()), float(numbers.max())) if len(numbers) else None
