import os
import subprocess

import numpy as np
import pyarrow as pa
import pytest

from settings.errors import StorageError
from trainer import storage
from trainer.compat import tf

TABLE = pa.table({"index": pa.array([3, 1, 2], pa.int32()), "title": ["a", "ü", None]})


@pytest.fixture(params=["local", "ram"])
def folder(request, tmp_path):
    """A folder on this machine, and one on a file system that, like gs://, only TensorFlow can open."""
    path = str(tmp_path) if request.param == "local" else f"ram://{tmp_path.name}"
    tf.io.gfile.makedirs(path)
    return path


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    yield str(path)
    subprocess.run(["umount", path], check=True)


def fill_up(monkeypatch):
    """Lets every write of TensorFlow's files come half way, then find the disk full."""
    write = tf.io.gfile.GFile.write

    def write_half(self, content):
        write(self, content[: len(content) // 2])
        raise tf.errors.ResourceExhaustedError(None, None, f"{self.name}; No space left on device")

    monkeypatch.setattr(tf.io.gfile.GFile, "write", write_half)


def test_bytes_replace_what_was_there(folder):
    path = storage.join(folder, "file")
    storage.write_bytes(path, b"the old content, which is longer")
    storage.write_bytes(path, b"new\0\n")
    assert storage.read_bytes(path) == b"new\0\n"
    assert tf.io.gfile.listdir(folder) == ["file"]


def test_nothing_is_seen_of_a_file_before_it_is_whole(folder):
    path = storage.join(folder, "file")
    storage.write_bytes(path, b"old")
    with storage.open_for_writing(path) as file:
        file.write(b"ne")
        file.flush()
        assert storage.read_bytes(path) == b"old"
        file.write(b"w")
    assert storage.read_bytes(path) == b"new"


@pytest.mark.parametrize("error", [KeyError("planted"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_error_half_way_leaves_the_old_content(folder, error):
    path = storage.join(folder, "file")
    storage.write_bytes(path, b"old")
    with pytest.raises(type(error)), storage.open_for_writing(path) as file:
        file.write(b"half of the ")
        raise error
    assert storage.read_bytes(path) == b"old"
    assert tf.io.gfile.listdir(folder) == ["file"]


@pytest.mark.parametrize(
    "write", [lambda path: storage.write_bytes(path, b"new!"), lambda path: storage.write_table(TABLE, path)]
)
def test_a_disk_that_fills_up_leaves_the_old_content(folder, write, monkeypatch):
    path = storage.join(folder, "file")
    storage.write_bytes(path, b"old")
    fill_up(monkeypatch)
    with pytest.raises(StorageError, match=r"file cannot be written: .*No space left on device. Make room"):
        write(path)
    monkeypatch.undo()
    assert storage.read_bytes(path) == b"old"
    assert tf.io.gfile.listdir(folder) == ["file"]


def test_a_disk_that_is_full(small_disk):
    path = storage.join(small_disk, "file")
    storage.write_bytes(path, b"o" * 600_000)
    with pytest.raises(StorageError, match=r"file cannot be written: .*No space left on device. Make room"):
        storage.write_bytes(path, b"n" * 600_000)
    assert storage.read_bytes(path) == b"o" * 600_000
    assert os.listdir(small_disk) == ["file"]


def test_a_disk_that_fails_is_named(tmp_path, monkeypatch):
    def sync(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage, "sync", sync)
    with pytest.raises(StorageError, match=r"file cannot be written: Input/output error\."):
        storage.write_bytes(str(tmp_path / "file"), b"new")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(StorageError, match="missing/file cannot be written"):
        storage.write_bytes(str(tmp_path / "missing" / "file"), b"")


def test_what_is_written_reaches_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    events = []
    rename = tf.io.gfile.rename

    def note_rename(source, target, overwrite=False):
        events.append("rename")
        rename(source, target, overwrite)

    monkeypatch.setattr(storage, "sync", lambda path: events.append(os.path.basename(path)))
    monkeypatch.setattr(tf.io.gfile, "rename", note_rename)
    storage.write_bytes(str(tmp_path / "file"), b"content")
    assert events == [f"file.{os.getpid()}.tmp", "rename", tmp_path.name]


def test_tables_come_back_as_they_were(folder):
    path = storage.join(folder, "table.parquet")
    storage.write_table(TABLE, path)
    assert storage.read_table(path, TABLE.schema).equals(TABLE)


@pytest.mark.parametrize(
    "content", [b"", b"not a table", lambda whole: whole[:-1], lambda whole: whole[: len(whole) // 2]]
)
def test_a_broken_table_is_named(folder, content):
    path = storage.join(folder, "table.parquet")
    storage.write_table(TABLE, path)
    storage.write_bytes(path, content(storage.read_bytes(path)) if callable(content) else content)
    with pytest.raises(StorageError, match=r"table.parquet cannot be read: .+\. Restore the file"):
        storage.read_table(path, TABLE.schema)


def test_a_table_with_a_flipped_bit_in_its_values_is_named(folder):
    path = storage.join(folder, "table.parquet")
    # Values that compress to themselves, so that a flipped bit gives other values and no error but the checksum's.
    values = pa.table({"index": np.random.default_rng(0).integers(0, 2**62, 1000)})
    storage.write_table(values, path)
    content = bytearray(storage.read_bytes(path))
    content[len(content) // 4] ^= 1
    storage.write_bytes(path, bytes(content))
    with pytest.raises(StorageError, match=r"table.parquet cannot be read"):
        storage.read_table(path, values.schema)


def test_a_foreign_table_is_named_with_its_columns(folder):
    path = storage.join(folder, "table.parquet")
    storage.write_table(pa.table({"price": [1.0], "shop": ["x"]}), path)
    with pytest.raises(StorageError, match=r"table.parquet cannot be read: its columns are price, shop\."):
        storage.read_table(path, TABLE.schema)


def test_a_table_of_other_types_is_foreign_too(folder):
    path = storage.join(folder, "table.parquet")
    storage.write_table(TABLE.set_column(0, "index", pa.array([3, 1, 2], pa.int64())), path)
    with pytest.raises(StorageError):
        storage.read_table(path, TABLE.schema)


def test_a_missing_table_is_named(folder):
    with pytest.raises(StorageError, match=r"table.parquet cannot be read"):
        storage.read_table(storage.join(folder, "table.parquet"), TABLE.schema)


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (("runs", "a", "b"), "runs/a/b"),
        (("runs/", "a"), "runs/a"),
        (("/", "a"), "/a"),
        (("gs://bucket/run/", "a"), "gs://bucket/run/a"),
    ],
)
def test_paths_are_joined(names, joined):
    assert storage.join(*names) == joined


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (tf.errors.NotFoundError(None, None, "a; No such file\n\t [[op]]"), "a; No such file"),
        (tf.errors.UnknownError(None, None, "{{node a/b}} a; No space [Op:SaveV2] name: "), "a; No space"),
        (tf.errors.UnknownError(None, None, "{{node a/b}} a; No space\n\tb\n\tc [Op:SaveV2] name: "), "a; No space"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("bad."), "bad"),
        (ValueError(), "ValueError"),
    ],
)
def test_the_reason_of_an_error_is_its_first_line(error, reason):
    assert storage.reason(error) == reason
