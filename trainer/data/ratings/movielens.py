"""Reads MovieLens in the three layouts that its authors have used. https://grouplens.org/datasets"""

import csv
import dataclasses
import functools
import io
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from settings.errors import DataError
from trainer import schema
from trainer.data.ratings import delimited, feature_columns, files, items
from trainer.data.ratings.cleaning import Part

RATINGS_COLUMNS = (schema.USER_ID, schema.ITEM_ID, schema.RATING, schema.TIMESTAMP)
SAME_NAMES = {name: name for name in RATINGS_COLUMNS}
CSV_NAMES = dict(zip(RATINGS_COLUMNS, ("userId", "movieId", "rating", "timestamp"), strict=True))

# ratings.dat separates values by "::". It is read with the delimiter ":" and an empty column between two values.
DOUBLE_COLON_NAMES = (
    schema.USER_ID, "empty_1", schema.ITEM_ID, "empty_2", schema.RATING, "empty_3", schema.TIMESTAMP,
)  # fmt: skip

WAY_OUT = (
    "Download it again. If it is another dataset's, set config.data.source to its file of ratings and "
    "config.data.columns to the names of its columns."
)

AGE, GENDER, OCCUPATION = "age", "gender", "occupation"
USER_FEATURES = (AGE, GENDER, OCCUPATION)

Item = tuple[str, str, list[str]]
"""Id, title and genres."""


def _lines(text: str) -> list[str]:
    # Not str.splitlines, which also splits at some control characters of Latin-1.
    return [line for line in text.replace("\r\n", "\n").split("\n") if line]


def _hundred_thousand_items(text: str, genres: list[str]) -> Iterator[Item]:
    """Parses u.item: id, title, two dates, a URL and one flag per genre, separated by "|"."""
    for line in _lines(text):
        item_id, title, _, _, _, *flags = line.split("|")
        yield item_id, title, [genre for genre, flag in zip(genres, flags, strict=False) if flag == "1"]


def _million_items(text: str, genres: list[str]) -> Iterator[Item]:
    """Parses movies.dat: id::title::genres. A title may contain colons."""
    for line in _lines(text):
        item_id, rest = line.split("::", 1)
        title, joined = rest.rsplit("::", 1)
        yield item_id, title, joined.split("|")


def _csv_items(text: str, genres: list[str]) -> Iterator[Item]:
    """Parses movies.csv: movieId,title,genres."""
    for row in csv.DictReader(io.StringIO(text, newline=""), strict=True):
        yield row["movieId"], row["title"], row["genres"].split("|")


# The files of users: the separator, and the columns. The zip code is not read.
HUNDRED_THOUSAND_USERS = ("u.user", "|", (schema.USER_ID, AGE, GENDER, OCCUPATION))
MILLION_USERS = ("users.dat", "::", (schema.USER_ID, GENDER, AGE, OCCUPATION))


@dataclasses.dataclass(frozen=True)
class Layout:
    """The files of a version of MovieLens.

    Attributes:
      folder: the folder of the files in the container; "" for its top.
      ratings, items, genres: the names of the files; "" for none.
      users: the name of the file of users, its separator and its columns; ("", "", ()) for none.
      encoding: the encoding of the file of items.
      parse_items: turns the text of that file and the names of the genres into items.
      columns: our column names → those of the file of ratings.
      format: how the values of the file of ratings are separated.
    """

    ratings: str
    items: str
    encoding: str
    parse_items: Callable[[str, list[str]], Iterator[Item]]
    format: delimited.Format
    columns: Mapping[str, str] = dataclasses.field(default_factory=lambda: SAME_NAMES)
    genres: str = ""
    users: tuple[str, str, tuple[str, ...]] = ("", "", ())
    folder: str = ""

    def read(
        self, container: files.Container, features: Mapping[str, Sequence[str]]
    ) -> tuple[list[Callable[[], Part]], pa.Table]:
        """Returns what reads the ratings without any change, with the features of their users, and the items.

        Raises:
          ConfigError: there is no such feature.
        """
        has_users = posixpath.join(self.folder, self.users[0]) in container.names
        available = {"query": USER_FEATURES if has_users else (), "item": feature_columns.ITEM_FEATURES}
        feature_columns.require(features, available, source=container.path)
        read_ratings = functools.partial(self._read_ratings, container, features.get("query", ()))
        return [read_ratings], self._read_items(container)

    def _read_ratings(self, container: files.Container, user_features: Sequence[str]) -> Part:
        ratings = posixpath.join(self.folder, self.ratings)
        path = f"{container.path}/{ratings}"
        with files.reading(path):
            file = container.open(ratings)
        part = delimited.read(path, file, self.format, columns=self.columns, way_out=WAY_OUT)
        # They are those of the layout, so there is nothing to say about them.
        part = dataclasses.replace(part, columns=None)
        if user_features:
            users = self._read_users(container)
            # Ids are compared as text. Neither file writes them with leading zeros or a point.
            row = pc.index_in(part.rows[schema.USER_ID].cast(pa.string()), value_set=users[schema.USER_ID])
            for name in user_features:
                values = users[name].dictionary_encode().take(row)
                part = dataclasses.replace(
                    part, rows=part.rows.append_column(feature_columns.column_name(name), values)
                )
        return part

    def _read_users(self, container: files.Container) -> pa.Table:
        """The columns of the file of users, as text."""
        name, separator, columns = self.users
        rows = [line.split(separator)[: len(columns)] for line in _lines(self._read(container, name))]
        if not rows or any(len(row) < len(columns) for row in rows):
            raise DataError(
                f"{container.path}/{posixpath.join(self.folder, name)} does not have the rows of the file {name} of "
                f"MovieLens. {WAY_OUT}"
            )
        return pa.table([pa.array(column) for column in zip(*rows, strict=True)], names=columns)

    def _read_items(self, container: files.Container) -> pa.Table:
        genres = [line.split("|")[0] for line in _lines(self._read(container, self.genres))]
        text = self._read(container, self.items)
        try:
            rows = list(self.parse_items(text, genres))
        except (ValueError, KeyError, AttributeError, csv.Error) as error:
            raise DataError(
                f"{container.path}/{posixpath.join(self.folder, self.items)} does not have the rows of the file "
                f"{self.items} of MovieLens ({error}). {WAY_OUT}"
            ) from error
        return items.build(*zip(*rows, strict=True)) if rows else schema.ITEMS_SCHEMA.empty_table()

    def _read(self, container: files.Container, name: str) -> str:
        """Returns the text of a file; "" if it is missing, as the file of genres may be."""
        path = posixpath.join(self.folder, name)
        if path not in container.names:
            return ""
        with files.reading(f"{container.path}/{path}"), container.open(path) as file:
            return file.read().decode(self.encoding)


LAYOUTS = (
    Layout(
        "u.data",
        "u.item",
        "latin-1",
        _hundred_thousand_items,
        delimited.Format("\t", quote="", names=RATINGS_COLUMNS),
        genres="u.genre",
        users=HUNDRED_THOUSAND_USERS,
    ),
    Layout(
        "ratings.dat",
        "movies.dat",
        "latin-1",
        _million_items,
        delimited.Format(":", quote="", names=DOUBLE_COLON_NAMES),
        users=MILLION_USERS,
    ),
    Layout("ratings.csv", "movies.csv", "utf-8-sig", _csv_items, delimited.Format(","), columns=CSV_NAMES),
)


def find_layout(container: files.Container) -> Layout | None:
    """Returns the layout whose ratings and items are in one folder, at the top or below. Returns None if none is."""
    folders = sorted({posixpath.dirname(name) for name in container.names})
    for folder in folders:
        for layout in LAYOUTS:
            if all(posixpath.join(folder, name) in container.names for name in (layout.ratings, layout.items)):
                return dataclasses.replace(layout, folder=folder)
    return None
