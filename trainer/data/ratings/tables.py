"""CSV, TSV and Parquet, one file or a folder of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from settings.errors import ConfigError, DataError
from trainer import schema
from trainer.data.ratings import files
from trainer.data.ratings.cleaning import Malformed, Part

DELIMITERS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
PARQUET = ".parquet"

REQUIRED_COLUMNS = (schema.USER_ID, schema.ITEM_ID, schema.RATING)
ALL_COLUMNS = (*REQUIRED_COLUMNS, schema.TIMESTAMP, schema.TITLE, schema.GENRES)

BLOCK_BYTES = 8 << 20
"""A text file is parsed in pieces of this size, on all cores; no row may be longer."""


def read(source: str, container: files.Container | None, *, columns: Mapping[str, str]) -> Iterator[Part]:
    """Reads the file at `source`, or every table in a folder in the order of their names.

    Args:
      source: the path of the file or folder.
      container: what is in the folder; None for a file.
      columns: our names → the file's; "" for none.

    Raises:
      ConfigError: a required column without a name.
      DataError: no table is there, or one without a column that is asked for.
    """
    for name in REQUIRED_COLUMNS:
        if not columns.get(name):
            raise ConfigError(f"config.data.columns.{name} is empty: name the column of {source} that holds it.")
    wanted = {name: columns[name] for name in ALL_COLUMNS if columns.get(name)}
    if container is None:
        yield _read_table(source, source, files.open_file, wanted)
        return
    names = [name for name in container.names if _is_table(name)]
    nested = [name for name in names if "/" in name]
    if nested:
        raise DataError(
            f"{source} has tables in subfolders ({nested[0]} is one), and only a flat folder is read: move them up, or "
            "give one of the subfolders as config.data.source."
        )
    if not names:
        found = ", ".join(container.names[:10]) or "nothing"
        raise DataError(
            f"{source} holds neither MovieLens as its authors distribute it (u.data with u.item, ratings.dat "
            f"with movies.dat, or ratings.csv with movies.csv) nor any {_formats()} file; found: {found}. "
            "Set config.data.source to the folder or file that has the ratings."
        )
    for name in names:
        yield _read_table(f"{source.rstrip('/')}/{name}", name, container.open, wanted)


def _formats() -> str:
    return ", ".join((*DELIMITERS, PARQUET))


def _is_table(name: str) -> bool:
    # Spark and macOS leave files of their own beside the data, with these first letters.
    return name.endswith((*DELIMITERS, PARQUET)) and not name.startswith((".", "_"))


def _read_table(path: str, name: str, open_fn: Callable[[str], BinaryIO], columns: Mapping[str, str]) -> Part:
    if name.endswith(PARQUET):
        return _read_parquet(path, open_fn(name), columns)
    for ending, delimiter in DELIMITERS.items():
        if name.endswith(ending):
            return read_text(path, lambda: open_fn(name), columns=columns, delimiter=delimiter)
    raise DataError(
        f"{path} is of no format that is read here, which are {_formats()}, and a folder or zip of "
        "MovieLens: rename or convert it, or set config.data.source to the MovieLens folder that it is in."
    )


def _read_parquet(path: str, file: BinaryIO, columns: Mapping[str, str]) -> Part:
    with files.reading(path), file:
        parquet = pyarrow.parquet.ParquetFile(pa.PythonFile(file, mode="r"))
        _require_columns(path, columns, found=parquet.schema_arrow.names)
        return Part(path, _renamed(parquet.read(columns=_unique(columns)), columns))


def read_text(
    path: str,
    open_fn: Callable[[], BinaryIO],
    *,
    columns: Mapping[str, str],
    delimiter: str,
    names: Sequence[str] = (),
    quote: str = '"',
    way_out: str = "",
) -> Part:
    """Reads a delimited text file.

    Args:
      path: what messages call it.
      open_fn: opens it, from the start each time.
      columns: our names → the file's.
      delimiter: one character.
      names: of all columns, in a file without a header.
      quote: around values that hold a delimiter; "" for none.
      way_out: what to do where a column is missing, if not to name another in the config.

    Raises:
      DataError: it cannot be parsed, or lacks a column.
    """
    with files.reading(path):
        if not names:
            with open_fn() as file:
                first = pyarrow.csv.open_csv(
                    pa.PythonFile(file, mode="r"),
                    parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=lambda row: "skip"),
                )
                _require_columns(path, columns, found=first.schema.names, way_out=way_out)
        malformed: list[Malformed] = []

        def skip(row: pyarrow.csv.InvalidRow) -> str:
            malformed.append(Malformed(row.number, row.text))
            return "skip"

        def parse(*, strict: bool) -> pa.Table:
            number, time = (pa.float64(), pa.int64()) if strict else (pa.string(), pa.string())
            types = {schema.RATING: number, schema.TIMESTAMP: time}
            text = pa.dictionary(pa.int32(), pa.string())
            with open_fn() as file:
                return pyarrow.csv.read_csv(
                    pa.PythonFile(file, mode="r"),
                    read_options=pyarrow.csv.ReadOptions(
                        # Rows are only numbered when they are parsed one after the other.
                        use_threads=strict,
                        block_size=BLOCK_BYTES,
                        column_names=list(names),
                    ),
                    parse_options=pyarrow.csv.ParseOptions(
                        delimiter=delimiter,
                        quote_char=quote or False,
                        newlines_in_values=not strict,
                        invalid_row_handler=None if strict else skip,
                    ),
                    convert_options=pyarrow.csv.ConvertOptions(
                        include_columns=_unique(columns),
                        column_types={file_name: types.get(ours, text) for ours, file_name in columns.items()},
                    ),
                )

        try:
            table = parse(strict=True)
        except pa.ArrowInvalid:
            # Once more, slowly: `cleaning` counts what is not a number, and rows with too few values.
            table = parse(strict=False)
    return Part(path, _renamed(table, columns), 1 if names else 2, tuple(malformed))


def _unique(columns: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(columns.values()))


def _renamed(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    return pa.table({ours: table[file_name] for ours, file_name in columns.items()})


def _require_columns(path: str, columns: Mapping[str, str], *, found: Sequence[str], way_out: str = "") -> None:
    for ours, file_name in columns.items():
        if file_name not in found:
            names = ", ".join(map(repr, found))
            way_out = way_out or f"Set config.data.columns.{ours} to the one that holds it."
            raise DataError(f"{path} has no column {file_name!r} for {ours}; its columns are {names}. {way_out}")
