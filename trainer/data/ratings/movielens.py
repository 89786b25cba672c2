"""MovieLens as its authors distribute it, in the three layouts it has had. https://grouplens.org/datasets"""

import csv
import dataclasses
import io
import posixpath
from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa

from settings.errors import DataError
from trainer import schema
from trainer.data.ratings import files, items, tables
from trainer.data.ratings.cleaning import Part

RATINGS_COLUMNS = (schema.USER_ID, schema.ITEM_ID, schema.RATING, schema.TIMESTAMP)
SAME_NAMES = {name: name for name in RATINGS_COLUMNS}
CSV_NAMES = dict(zip(RATINGS_COLUMNS, ("userId", "movieId", "rating", "timestamp"), strict=True))

# "::" is between the values of ratings.dat: ":", and between each two columns an empty one.
DOUBLE_COLON_NAMES = (
    schema.USER_ID, "empty_1", schema.ITEM_ID, "empty_2", schema.RATING, "empty_3", schema.TIMESTAMP,
)  # fmt: skip

WAY_OUT = (
    "Download it anew, or where it is another dataset's, give its file of ratings as config.data.source and "
    "name its columns in config.data.columns."
)

Item = tuple[str, str, list[str]]
"""Id, title and genres."""


def _lines(text: str) -> list[str]:
    # Not str.splitlines, which also splits at what Latin-1 has for control characters.
    return [line for line in text.replace("\r\n", "\n").split("\n") if line]


def _hundred_thousand_items(text: str, genres: list[str]) -> Iterator[Item]:
    """u.item: id, title, two dates and a URL, and a flag a genre, with "|" between."""
    for line in _lines(text):
        item_id, title, _, _, _, *flags = line.split("|")
        yield item_id, title, [genre for genre, flag in zip(genres, flags, strict=False) if flag == "1"]


def _million_items(text: str, genres: list[str]) -> Iterator[Item]:
    """movies.dat: id::title::genres, where a title may have colons too."""
    for line in _lines(text):
        item_id, rest = line.split("::", 1)
        title, joined = rest.rsplit("::", 1)
        yield item_id, title, joined.split("|")


def _csv_items(text: str, genres: list[str]) -> Iterator[Item]:
    """movies.csv: movieId,title,genres."""
    for row in csv.DictReader(io.StringIO(text)):
        yield row["movieId"], row["title"], row["genres"].split("|")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which files hold what, and how.

    Attributes:
      folder: of the container that they are in; "" for its top.
      ratings, items, genres: names of files; "" for none.
      encoding: of the items.
      parse_items: from the items' text and the names of the genres to items.
      columns, delimiter, names, quote: for `tables.read_text`.
    """

    ratings: str
    items: str
    encoding: str
    parse_items: Callable[[str, list[str]], Iterator[Item]]
    delimiter: str
    columns: Mapping[str, str] = dataclasses.field(default_factory=lambda: SAME_NAMES)
    names: tuple[str, ...] = ()
    quote: str = ""
    genres: str = ""
    folder: str = ""

    def read(self, container: files.Container) -> tuple[Iterator[Part], pa.Table]:
        """The ratings as they are, and the items [schema.ITEMS_SCHEMA]."""
        return self._read_ratings(container), self._read_items(container)

    def _read_ratings(self, container: files.Container) -> Iterator[Part]:
        ratings = posixpath.join(self.folder, self.ratings)
        yield tables.read_text(
            f"{container.path}/{ratings}",
            lambda: container.open(ratings),
            columns=self.columns,
            delimiter=self.delimiter,
            names=self.names,
            quote=self.quote,
            way_out=WAY_OUT,
        )

    def _read_items(self, container: files.Container) -> pa.Table:
        genres = [line.split("|")[0] for line in _lines(self._read(container, self.genres))]
        text = self._read(container, self.items)
        try:
            rows = list(self.parse_items(text, genres))
        except (ValueError, KeyError, AttributeError, csv.Error) as error:
            raise DataError(
                f"{container.path}/{posixpath.join(self.folder, self.items)} does not have the rows of a "
                f"MovieLens {self.items} ({error}). {WAY_OUT}"
            ) from error
        return items.build(*zip(*rows, strict=True)) if rows else schema.ITEMS_SCHEMA.empty_table()

    def _read(self, container: files.Container, name: str) -> str:
        """A file's text; "" for one that is not there, which only the names of the genres may be."""
        path = posixpath.join(self.folder, name)
        if path not in container.names:
            return ""
        with files.reading(f"{container.path}/{path}"), container.open(path) as file:
            return file.read().decode(self.encoding)


LAYOUTS = (
    Layout("u.data", "u.item", "latin-1", _hundred_thousand_items, "\t", names=RATINGS_COLUMNS, genres="u.genre"),
    Layout("ratings.dat", "movies.dat", "latin-1", _million_items, ":", names=DOUBLE_COLON_NAMES),
    Layout("ratings.csv", "movies.csv", "utf-8-sig", _csv_items, ",", columns=CSV_NAMES, quote='"'),
)


def find_layout(container: files.Container) -> Layout | None:
    """The layout whose ratings and items lie side by side, at the top or else in a subfolder; or None."""
    folders = sorted({posixpath.dirname(name) for name in container.names})
    for folder in folders:
        for layout in LAYOUTS:
            if all(posixpath.join(folder, name) in container.names for name in (layout.ratings, layout.items)):
                return dataclasses.replace(layout, folder=folder)
    return None
