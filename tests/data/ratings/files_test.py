"""Files that cannot be read are reported with the way out."""

import gzip
import subprocess
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from settings.errors import ConfigError, DataError
from tests.conftest import REPOSITORY
from tests.data.ratings.common import (
    COLUMNS,
    THREE_RATINGS,
    authors_bytes,
    delimited,
    load,
    parquet,
    rows_of,
    write_zip,
)
from trainer.data.ratings import files


@pytest.mark.parametrize("source", ["", "no/such/folder", "ratings.csv"])
def test_a_missing_path_is_reported_with_its_field(source):
    with pytest.raises(ConfigError, match=rf"config\.data\.source is '{source}', and there is no such file"):
        load(source)


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("a.csv", b"", "a.csv is empty"),
        ("a.csv", b"user,item,stars,time\n", "has no ratings .no rows at all"),
        ("a.csv", b"user,item,stars,time\n1,\xff\xfe,3,4\n", "a.csv is not UTF-8 text"),
        ("a.csv", b"user,item,time\n1,2,3\n", r"no column 'stars' for rating.*'user', 'item', 'time'.*columns\.rating"),
        (
            "a.csv",
            b"user,item,stars,time,stars\n1,2,3,4,5\n",
            r"a.csv has 2 columns with the name 'stars'.*columns\.rating",
        ),
        ("a.csv.gz", gzip.compress(delimited(",") * 50)[:-20], "a.csv.gz is damaged or incomplete"),
        ("a.csv.gz", b"user,item\n", "a.csv.gz is damaged or incomplete"),
        ("a.parquet", parquet()[:-9], "a.parquet cannot be read"),
        ("a.parquet", b"", "a.parquet cannot be read"),
        ("a.parquet", parquet().replace(b"stars", b"strrs"), r"no column 'stars'.*columns\.rating"),
        ("a.zip", b"PK not a zip", "a.zip is damaged or incomplete"),
        ("a.xlsx", b"x", r"a\.xlsx has none of the formats that can be read.*\.parquet"),
    ],
)
def test_a_damaged_file_is_reported_with_the_way_out(tmp_path, name, data, complaint):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=complaint) as raised:
        load(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_without_tables_is_reported_with_what_was_found(tmp_path):
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n")
    with pytest.raises(DataError, match=r"u\.data with u\.item.*found: u\.data"):
        load(tmp_path)


def test_a_required_column_without_a_name_is_reported(tmp_path):
    (tmp_path / "a.csv").write_bytes(delimited(","))
    with pytest.raises(ConfigError, match=r"config\.data\.columns\.item_id is empty"):
        load(tmp_path / "a.csv", columns={**COLUMNS, "item_id": ""})


def test_a_damaged_member_of_an_archive_is_reported(tmp_path):
    members = authors_bytes("ratings.csv")
    path = tmp_path / "ml.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    path.write_bytes(path.read_bytes().replace(b"Unrated", b"Unfated"))
    with pytest.raises(DataError, match=r"movies\.csv is damaged or incomplete"):
        load(path)


def test_a_member_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "ml.zip", authors_bytes("ratings.csv"))
    monkeypatch.setattr(files, "MAX_MEMBER_BYTES", 20)
    with pytest.raises(DataError, match=r"movies\.csv in .*ml\.zip has \d+ bytes when unpacked"):
        load(path)


def test_a_gzip_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "ratings.csv.gz"
    path.write_bytes(gzip.compress(b"user,item,stars,time\n" + b"1,2,3,4\n" * 1000))
    monkeypatch.setattr(files, "MAX_MEMBER_BYTES", 5000)
    monkeypatch.setattr(files, "COPY_BYTES", 1000)
    with pytest.raises(DataError, match=r"ratings\.csv\.gz has more than 5,000 bytes when unpacked"):
        load(path)


def test_an_archive_is_never_unpacked_to_disk(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "ml.zip", authors_bytes("u.data"))
    monkeypatch.chdir(tmp_path)
    assert rows_of(load(path)) == THREE_RATINGS
    assert sorted(tmp_path.rglob("*")) == [path]


@pytest.mark.parametrize("name", ["../../evil.csv", "/abs/u.data", "a/../../u.data", "..\\evil.csv"])
def test_an_archive_with_a_name_that_points_outside_is_refused(tmp_path, monkeypatch, name):
    path = write_zip(tmp_path / "ml.zip", {**authors_bytes("u.data"), name: b"x"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="whose name points outside of the archive"):
        load(path)
    assert sorted(tmp_path.rglob("*")) == [path]


def test_a_file_without_read_permission_is_reported(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(delimited(","))
    path.chmod(0)
    # Root may read any file, so the test process gives up its rights.
    code = f"""
import os
from settings.errors import StorageError
from trainer.data.ratings import files
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    with files.reading("a.csv"):
        files.open_file({str(path)!r})
except StorageError as error:
    print(error)
"""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o711)
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert "a.csv cannot be read" in result.stdout
    assert "Permission denied" in result.stdout


@pytest.mark.parametrize("checked", [True, False], ids=["with checksum", "without"])
def test_a_flipped_bit_in_a_parquet_page_with_a_checksum_is_reported(tmp_path, checked):
    path = tmp_path / "a.parquet"
    # Random values do not compress, so the flipped bit changes one value and nothing else.
    items = np.random.default_rng(0).integers(0, 2**62, 1000)
    table = pa.table({"user": np.arange(1000), "item": items, "stars": np.full(1000, 3), "time": np.arange(1000)})
    pa.parquet.write_table(table, path, write_page_checksum=checked, use_dictionary=False, compression="none")
    content = bytearray(path.read_bytes())
    content[content.index(items[500].tobytes()) + 1] ^= 1
    path.write_bytes(content)
    if not checked:
        assert sum(row[1] != str(item) for row, item in zip(rows_of(load(path)), items, strict=True)) == 1
        return
    with pytest.raises(DataError, match=r"a\.parquet cannot be read .*page integrity"):
        load(path)


LINE = "x" * 1000


@pytest.mark.parametrize(
    "value",
    [LINE * 9000, f'"{LINE * 9000}"', '"' + f"{LINE}\n" * 9000 + '"'],
    ids=["plain", "quoted", "in lines"],
)
def test_a_value_of_nine_million_characters_is_reported_and_the_process_exits(tmp_path, value):
    path = tmp_path / "a.csv"
    path.write_text(f"user,item,stars,time\n1,2,3,4\n1,{value},3,4\n" + "1,3,3,4\n" * 100_000)
    code = f"""
import sys
from settings.errors import DataError
from trainer.data.ratings import load_ratings
try:
    load_ratings({str(path)!r}, columns={COLUMNS!r}, rating_range=(1, 5), max_bad_fraction=0.5)
except DataError as error:
    print(error)
    sys.exit(error.exit_code)
"""
    for _ in range(3):
        # Before, the process hung or aborted at exit in about 4 of 10 tries.
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
        )
        assert (result.returncode, result.stderr) == (65, "")
        assert f"{path} has " in result.stdout
        assert "in line 3." in result.stdout
