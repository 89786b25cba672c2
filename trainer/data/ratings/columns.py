"""Which columns of a table are the users, the items, their ratings, times, titles and genres."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from settings.errors import ConfigError, DataError
from trainer import schema
from trainer.data.ratings import feature_columns

AUTO = "auto"
"""Stands in the config for the column that `recognize` finds by its name."""

USUAL_NAMES = {
    schema.USER_ID: (
        *("user_id", "user", "uid", "user_name", "customer_id", "customer", "client_id", "client", "visitor_id"),
        *("visitor", "reviewer_id", "reviewer", "member_id", "member", "account_id", "account", "buyer_id", "buyer"),
        *("profile_id", "reader_id", "listener_id"),
    ),
    schema.ITEM_ID: (
        *("item_id", "item", "iid", "movie_id", "movie", "film_id", "film", "product_id", "product", "product_code"),
        *("asin", "parent_asin", "sku", "stock_code", "article_id", "article", "news_id", "book_id", "book", "isbn"),
        *("track_id", "track", "song_id", "song", "artist_id", "artist", "album_id", "album", "video_id", "video"),
        *("game_id", "game", "anime_id", "recipe_id", "business_id", "place_id", "location_id", "course_id"),
        *("content_id", "listing_id"),
    ),
    schema.RATING: (
        *("rating", "ratings", "user_rating", "star_rating", "book_rating", "movie_rating", "stars", "star", "score"),
        *("review_score", "overall", "grade"),
    ),
    schema.TIMESTAMP: (
        *("timestamp", "ts", "time", "date", "datetime", "unix_time", "unix_timestamp"),
        *("unix_review_time", "event_time", "event_timestamp", "rating_time", "rating_timestamp", "rated_at"),
        *("review_date", "reviewed_at", "created_at"),
    ),
    schema.TITLE: (
        *("title", "name", "item_title", "item_name", "movie_title", "movie_name", "film_title", "product_title"),
        *("product_name", "book_title", "track_name", "song_title", "artist_name", "video_title", "game_title"),
    ),
    schema.GENRES: ("genres", "genre", "category", "categories", "item_category", "product_category"),
}
"""Our column names → names by which a column is recognized, apart from case, "_", "-" and spaces."""

NAMES = tuple(USUAL_NAMES)
"""The names that columns get when they are read."""

OPTIONAL = (schema.TIMESTAMP, schema.TITLE, schema.GENRES)
"""The columns that a table may lack if the config does not name them."""

_WHAT = {
    schema.USER_ID: "the ids of the users",
    schema.ITEM_ID: "the ids of the items",
    schema.RATING: "the ratings",
    schema.TIMESTAMP: "the times",
}
_MAX_SHOWN, _MAX_NAME = 30, 60
"""How many columns a message lists, and how many characters of the name of each."""

_IGNORED = str.maketrans("", "", "_- ")


def _simplified(name: str) -> str:
    return name.casefold().translate(_IGNORED)


_RECOGNIZED = {ours: {_simplified(name) for name in names} for ours, names in USUAL_NAMES.items()}


@dataclass(frozen=True)
class ColumnsOfTable:
    """What became of the columns of a table.

    Attributes:
      path: the file.
      used: our column names → the file's, without those of features.
      unused: the columns that are not read.
    """

    path: str
    used: dict[str, str]
    unused: tuple[str, ...]


def recognize(
    path: str,
    columns: Mapping[str, str],
    *,
    found: Sequence[str],
    optional: Collection[str] = OPTIONAL,
    way_out: str = "",
) -> dict[str, str]:
    """Finds the columns of a file.

    A column of AUTO is the one whose name is among USUAL_NAMES. Of several such columns, the one with our name counts.

    Args:
      path: the file, for messages.
      columns: our column names → the file's, or AUTO.
      found: the columns of the file.
      optional: the columns of AUTO that the file may lack.
      way_out: the advice if a column is missing or not clear; by default, to name it in the config.

    Returns:
      Our column names → the file's, in the order of `columns`.

    Raises:
      ConfigError: the file lacks the column of a feature.
      DataError: the file lacks another column, has it twice, or has several that could be it.
    """
    # A column that the config names has one meaning.
    named = {name for ours, name in columns.items() if ours in NAMES}
    chosen: dict[str, str] = {}
    lacking: list[str] = []
    for ours, name in columns.items():
        if ours not in NAMES or name != AUTO:
            chosen[ours] = name
            continue
        candidates = [name for name in dict.fromkeys(found) if _simplified(name) in _RECOGNIZED[ours]]
        candidates = [name for name in candidates if name not in named]
        if ours in candidates:
            candidates = [ours]
        if len(candidates) > 1:
            advice = f"Set config.data.columns.{ours} to the right one" + (
                ", or to an empty string to use none." if ours in (*OPTIONAL, schema.RATING) else "."
            )
            raise DataError(
                f"{path} has several columns that could be {ours}: {_listed(candidates)}. {way_out or advice}"
            )
        if candidates:
            chosen[ours] = candidates[0]
        elif ours not in optional:
            lacking.append(ours)
    if lacking:
        raise _unrecognized(path, lacking, found, way_out=way_out)
    _require(path, chosen, found=found, way_out=way_out)
    return chosen


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}...") for name in names[:_MAX_SHOWN])
    return shown if len(names) <= _MAX_SHOWN else f"{shown} and {len(names) - _MAX_SHOWN:,} more"


def _unrecognized(path: str, lacking: Sequence[str], found: Sequence[str], *, way_out: str) -> DataError:
    fields = " and ".join(f"config.data.columns.{ours}" for ours in lacking)
    what = " and ".join(_WHAT[ours] for ours in lacking)
    one = len(lacking) == 1
    sentences = [
        f"{path} has no column with a usual name for {what}; its columns are {_listed(found)}.",
        way_out or f"Set {fields} to the name{'' if one else 's'} of {'that column' if one else 'these columns'}.",
    ]
    if len(found) == 1 and any(delimiter in found[0] for delimiter in ";|\t"):
        sentences.append("The values of a .csv file must be separated by commas, and those of a .tsv file by tabs.")
    if schema.RATING in lacking and not way_out:
        sentences.append(
            "If the rows are events without ratings, such as clicks or purchases, set it to an empty string: "
            "--config.data.columns.rating="
        )
    if schema.TIMESTAMP in lacking:
        sentences.append(
            "Times are needed, because config.split.method is last or time, or config.history.encoder is transformer. "
            "If the rows are in the order of time, set it to an empty string: --config.data.columns.timestamp="
        )
    return DataError(" ".join(sentences))


def _require(path: str, columns: Mapping[str, str], *, found: Sequence[str], way_out: str) -> None:
    """Checks that a file has each of `columns` exactly once among the columns `found`."""
    for ours, name in columns.items():
        is_feature = ours.startswith(feature_columns.PREFIX)
        if found.count(name) > 1:
            field = "config.data.features" if is_feature else f"config.data.columns.{ours}"
            raise DataError(
                f"{path} has {found.count(name)} columns with the name {name!r}, and {field} needs one. Give them "
                "different names."
            )
        if name not in found and is_feature:
            raise ConfigError(
                f"config.data.features contains {name!r}, and {path} has no such column; its columns are "
                f"{_listed(found)}. Change the name, or take it out."
            )
        if name not in found:
            advice = f"Set config.data.columns.{ours} to the name of the column with the {ours}."
            if ours == schema.RATING:
                advice += " If the rows are events without ratings, set it to an empty string."
            raise DataError(
                f"{path} has no column {name!r} for {ours}; its columns are {_listed(found)}. {way_out or advice}"
            )


def columns_of_table(path: str, chosen: Mapping[str, str], *, found: Sequence[str]) -> ColumnsOfTable:
    """Returns what became of the columns `found` of a file, after `recognize` has returned `chosen`."""
    used = {ours: name for ours, name in chosen.items() if ours in NAMES}
    read = set(chosen.values())
    return ColumnsOfTable(path, used, tuple(name for name in dict.fromkeys(found) if name not in read))


def join_columns(tables: Sequence[ColumnsOfTable]) -> ColumnsOfTable:
    """Joins the columns of the files of a source, which must have the same ones for the same purpose.

    Raises:
      DataError: they do not.
    """
    first = tables[0]
    for table in tables[1:]:
        for ours in NAMES:
            one, other = first.used.get(ours), table.used.get(ours)
            if one != other:
                raise DataError(
                    f"The files of a folder must have the same columns. The {ours} is "
                    f"{f'in the column {one!r}' if one else 'in no column'} of {first.path}, and "
                    f"{f'in the column {other!r}' if other else 'in no column'} of {table.path}. Give the columns the "
                    f"same names in all files, or set config.data.columns.{ours}."
                )
    return ColumnsOfTable(
        first.path, first.used, tuple(dict.fromkeys(name for table in tables for name in table.unused))
    )


def unique(columns: Mapping[str, str]) -> list[str]:
    """The names of the file's columns, each once."""
    return list(dict.fromkeys(columns.values()))
