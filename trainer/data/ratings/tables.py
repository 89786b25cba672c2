"""Reads CSV, TSV and Parquet, one file or a folder of files, and text files with lines "user item item ..."."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet

from settings.errors import ConfigError, DataError
from trainer import schema
from trainer.data.ratings import delimited, feature_columns, files, lines
from trainer.data.ratings.cleaning import Part
from trainer.data.ratings.columns import NAMES, OPTIONAL, columns_of_table, recognize, unique

DELIMITERS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
PARQUET = ".parquet"
LINES = (".txt", ".txt.gz")

REQUIRED_COLUMNS = (schema.USER_ID, schema.ITEM_ID)


def read(
    source: str,
    container: files.Container | None,
    *,
    columns: Mapping[str, str],
    features: Mapping[str, Sequence[str]],
    needs_times: bool = False,
) -> list[Callable[[], Part]]:
    """Returns a function that reads the file at `source`, or one for each table of a folder, in the order of names.

    Args:
      source: the path of the file or folder.
      container: the folder; None for a file.
      columns: our column names → the file's, or AUTO; "" for no such column. Not used for lines.
      features: owner → the columns to keep as features.
      needs_times: whether a table must have times if the config does not say that it has none.

    Raises:
      ConfigError: a required column has no name, or there is no column with the name of a feature.
      DataError: there is no table, or a table lacks a column.
    """
    if container is None and source.endswith(LINES):
        feature_columns.require(features, {}, source=f"{source}, a file of lines,")
        return [functools.partial(_read_lines, source)]
    for name in REQUIRED_COLUMNS:
        if not columns.get(name):
            raise ConfigError(f"config.data.columns.{name} is empty. Set it to the name of that column in {source}.")
    wanted = {name: columns[name] for name in NAMES if columns.get(name)}
    wanted |= {feature_columns.column_name(name): name for name in feature_columns.names(features)}
    optional = tuple(name for name in OPTIONAL if not (needs_times and name == schema.TIMESTAMP))
    if container is None:
        return [functools.partial(_read_table, source, source, files.open_file, wanted, optional)]
    names = [name for name in container.names if _is_table(name)]
    nested = [name for name in names if "/" in name]
    if nested:
        raise DataError(
            f"{source} has tables in subfolders, for instance {nested[0]}, which are not read. Move them up, or set "
            "config.data.source to one of the subfolders."
        )
    if not names:
        found = ", ".join(container.names[:10]) or "nothing"
        raise DataError(
            f"{source} has no MovieLens files (u.data with u.item, ratings.dat with movies.dat, or ratings.csv with "
            f"movies.csv) and no {_formats()} file; found: {found}. Set config.data.source to the folder or file "
            f"with the ratings. A file of lines ({', '.join(LINES)}) is only read if the source is its own path."
        )
    folder = source.rstrip("/")
    return [
        functools.partial(_read_table, f"{folder}/{name}", name, container.open, wanted, optional) for name in names
    ]


def _formats() -> str:
    return ", ".join((*DELIMITERS, PARQUET))


def _is_table(name: str) -> bool:
    # Spark and macOS add files of their own whose names start with these characters.
    return name.endswith((*DELIMITERS, PARQUET)) and not name.startswith((".", "_"))


def _read_lines(path: str) -> Part:
    with files.reading(path):
        file = files.open_file(path)
    return lines.read(path, file)


def _read_table(
    path: str,
    name: str,
    open_fn: Callable[[str], pa.NativeFile],
    columns: Mapping[str, str],
    optional: Collection[str],
) -> Part:
    if name.endswith(PARQUET):
        return _read_parquet(path, name, open_fn, columns, optional)
    for ending, delimiter in DELIMITERS.items():
        if name.endswith(ending):
            with files.reading(path):
                file = open_fn(name)
            return delimited.read(path, file, delimited.Format(delimiter), columns=columns, optional=optional)
    raise DataError(
        f'{path} has none of the formats that can be read: {_formats()}, lines of "user item item ..." in '
        f"{', '.join(LINES)}, and a folder or zip of MovieLens. Rename or "
        "convert it, or set config.data.source to the MovieLens folder that it is in."
    )


def _read_parquet(
    path: str,
    name: str,
    open_fn: Callable[[str], pa.NativeFile],
    columns: Mapping[str, str],
    optional: Collection[str],
) -> Part:
    with files.reading(path), open_fn(name) as file:
        parquet = pyarrow.parquet.ParquetFile(file, page_checksum_verification=True)
        found = parquet.schema_arrow.names
        chosen = recognize(path, columns, found=found, optional=optional)
        rows = delimited.renamed(parquet.read(columns=unique(chosen)), chosen)
        return Part(path, rows, columns=columns_of_table(path, chosen, found=found))
