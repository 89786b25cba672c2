"""Results as Parquet, CSV and JSON Lines: the same rows, whole or not at all."""

import json

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from settings.errors import ConfigError, StorageError
from trainer.serving import output_files
from trainer.serving.output_files import check_columns, check_suffix, write_tables

SCHEMA = pa.schema([("user_id", pa.string()), ("rank", pa.int32()), ("score", pa.float32())])
ROWS = [
    {"user_id": 'it\'s "quoted", with a comma', "rank": 1, "score": 0.5},
    {"user_id": "two\nlines «ü»", "rank": 2, "score": None},
    {"user_id": "", "rank": 3, "score": -2.0},
]


def table(rows):
    return pa.Table.from_pylist(rows, SCHEMA)


def read(path):
    if path.suffix == ".parquet":
        found = pq.read_table(path)
        assert found.schema.equals(SCHEMA)
        return found.to_pylist()
    if path.suffix == ".csv":
        options = pa.csv.ConvertOptions(column_types=SCHEMA, strings_can_be_null=False)
        parsing = pa.csv.ParseOptions(newlines_in_values=True)
        return pa.csv.read_csv(path, parse_options=parsing, convert_options=options).to_pylist()
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


@pytest.mark.parametrize("suffix", output_files.SUFFIXES)
@pytest.mark.parametrize("rows_per_group", [1, 1 << 18])
def test_all_rows_of_all_tables_are_written_in_order(tmp_path, monkeypatch, suffix, rows_per_group):
    monkeypatch.setattr(output_files, "_ROWS_PER_GROUP", rows_per_group)
    path = tmp_path / f"with.dot{suffix}"
    assert write_tables(iter([table(ROWS[:2]), table([]), table(ROWS[2:])]), str(path), SCHEMA) == 3
    assert read(path) == ROWS


@pytest.mark.parametrize("suffix", output_files.SUFFIXES)
def test_no_rows_make_a_file_without_rows(tmp_path, suffix):
    path = tmp_path / f"none{suffix}"
    assert write_tables([], str(path), SCHEMA) == 0
    assert read(path) == []


def test_parquet_is_written_in_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(output_files, "_ROWS_PER_GROUP", 4)
    path = tmp_path / "rows.parquet"
    write_tables([table(ROWS)] * 3, str(path), SCHEMA)
    groups = pq.ParquetFile(path).metadata
    # Tables of three rows, so two of them make a group.
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [6, 3]


@pytest.mark.parametrize("suffix", output_files.SUFFIXES)
def test_an_error_in_the_middle_leaves_the_earlier_file(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(output_files, "_ROWS_PER_GROUP", 1)

    def interrupted():
        yield table(ROWS)
        raise KeyboardInterrupt

    path = tmp_path / f"rows{suffix}"
    path.write_bytes(b"earlier")
    with pytest.raises(KeyboardInterrupt):
        write_tables(interrupted(), str(path), SCHEMA)
    assert path.read_bytes() == b"earlier"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_json_has_no_nan(tmp_path):
    path = tmp_path / "rows.jsonl"
    schema = pa.schema([("score", pa.float64()), ("genres", pa.list_(pa.string()))])
    rows = pa.table({"score": [float("nan"), float("inf"), 1.0], "genres": [["a"], [], None]}, schema=schema)
    write_tables([rows], str(path), schema)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"score": None, "genres": ["a"]},
        {"score": None, "genres": []},
        {"score": 1.0, "genres": None},
    ]


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"missing/rows.csv cannot be written"):
        write_tables([table(ROWS)], str(tmp_path / "missing" / "rows.csv"), SCHEMA)


@pytest.mark.parametrize("path", ["x.json", "x.tsv", "x.csv.gz", "x", "parquet", "x.parquet/", "x.CSV"])
def test_another_suffix_is_refused(path):
    with pytest.raises(ConfigError, match=r"must be \.parquet \(Parquet\), \.csv \(CSV\) or \.jsonl \(JSON Lines\)"):
        check_suffix(path)


def test_csv_cannot_hold_lists():
    schema = pa.schema([("user_id", pa.string()), ("genres", pa.list_(pa.string()))])
    check_columns("x.parquet", schema)
    check_columns("x.jsonl", schema)
    with pytest.raises(ConfigError, match="CSV cannot hold the column 'genres', whose values are list"):
        check_columns("x.csv", schema)
