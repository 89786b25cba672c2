import contextlib
import os
import resource
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pytest

from settings.errors import StorageError
from tests.conftest import REPOSITORY
from trainer import file_systems, storage
from trainer.compat import tf

TABLE = pa.table({"index": pa.array([3, 1, 2], pa.int32()), "title": ["a", "ü", None]})


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    """A local folder, or one in a file system that, like gs://, only TensorFlow can open."""
    path = str(tmp_path) if request.param == "local" else f"ram://{tmp_path.name}"
    storage.make_folder(path)
    return path


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield str(path)
    subprocess.run(["umount", path], check=True)


@contextlib.contextmanager
def full_disk(monkeypatch):
    """Makes every write stop half way with an error: the kernel's for local files, TensorFlow's for remote files."""
    write = tf.io.gfile.GFile.write

    def write_half(self, content):
        write(self, content[: len(content) // 2])
        raise tf.errors.ResourceExhaustedError(None, None, f"{self.name}; File too large")

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        patch.setattr(tf.io.gfile.GFile, "write", write_half)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_bytes_replace_what_was_there(folder):
    path = storage.join(folder, "file")
    storage.write_bytes(path, b"the old content, which is longer")
    storage.write_bytes(path, b"new\0\n")
    assert storage.read_bytes(path) == b"new\0\n"
    assert storage.list_folder(folder) == ["file"]


def test_readers_see_the_old_content_until_the_new_is_whole(folder):
    path = storage.join(folder, "file")
    storage.write_bytes(path, b"old")
    with storage.open_for_writing(path) as file:
        file.write(b"ne")
        file.flush()
        assert storage.read_bytes(path) == b"old"
        file.write(b"w")
    assert storage.read_bytes(path) == b"new"


@pytest.mark.parametrize("error", [KeyError("planted"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_error_while_writing_leaves_the_old_content(folder, error):
    path = storage.join(folder, "file")
    storage.write_bytes(path, b"old")
    with pytest.raises(type(error)), storage.open_for_writing(path) as file:
        file.write(b"half of the ")
        raise error
    assert storage.read_bytes(path) == b"old"
    assert storage.list_folder(folder) == ["file"]


@pytest.mark.parametrize(
    "write", [lambda path: storage.write_bytes(path, b"new!"), lambda path: storage.write_table(TABLE, path)]
)
def test_a_disk_that_fills_up_leaves_the_old_content(folder, write, monkeypatch):
    path = storage.join(folder, "file")
    storage.write_bytes(path, b"old")
    with (
        full_disk(monkeypatch),
        pytest.raises(StorageError, match=r"file cannot be written: .*File too large\. Make room"),
    ):
        write(path)
    assert storage.read_bytes(path) == b"old"
    assert storage.list_folder(folder) == ["file"]


def test_a_full_disk_is_reported(small_disk):
    path = storage.join(small_disk, "file")
    storage.write_bytes(path, b"o" * 600_000)
    with pytest.raises(StorageError, match=r"file cannot be written: .*No space left on device. Make room"):
        storage.write_bytes(path, b"n" * 600_000)
    assert storage.read_bytes(path) == b"o" * 600_000
    assert os.listdir(small_disk) == ["file"]


def test_a_disk_error_is_reported(tmp_path, monkeypatch):
    def sync(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage, "sync", sync)
    with pytest.raises(StorageError, match=r"file cannot be written: Input/output error\."):
        storage.write_bytes(str(tmp_path / "file"), b"new")
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(StorageError, match="missing/file cannot be written"):
        storage.write_bytes(str(tmp_path / "missing" / "file"), b"")


def test_content_is_synced_before_it_replaces_the_file_and_the_folder_after(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    events = []
    monkeypatch.setattr(storage, "sync", lambda synced: events.append((os.path.basename(synced), path.read_bytes())))
    storage.write_bytes(str(path), b"new")
    assert events == [(f"file.{os.getpid()}.tmp", b"old"), (tmp_path.name, b"new")]


def test_folders_are_listed_and_told_from_files(folder):
    storage.make_folder(storage.join(folder, "b", "c"))
    storage.make_folder(storage.join(folder, "b"))
    storage.write_bytes(storage.join(folder, "a"), b"")
    assert storage.list_folder(folder) == ["a", "b"]
    paths = [storage.join(folder, *names) for names in (["a"], ["b"], ["b", "c"], ["d"])]
    assert [storage.exists(path) for path in paths] == [True, True, True, False]
    assert [storage.is_folder(path) for path in paths] == [False, True, True, False]


def test_all_files_below_a_folder_are_listed_in_order_and_removed(folder):
    root = storage.join(folder, "root")
    assert [*storage.list_files(root)] == []
    for name in ("b/2", "b/10", "a", "c/d/e", "f"):
        storage.make_folder(os.path.dirname(storage.join(root, name)))
        storage.write_bytes(storage.join(root, name), name.encode())
    storage.write_bytes(storage.join(folder, "other"), b"")
    names = [*storage.list_files(root)]
    assert names == ["a", "b/10", "b/2", "c/d/e", "f"] == sorted(names, key=lambda name: name.split("/"))
    assert [storage.size(storage.join(root, name)) for name in names] == [len(name) for name in names]
    storage.remove(storage.join(root, "b"))
    storage.remove(storage.join(root, "a"))
    storage.remove(storage.join(root, "missing"))
    assert [*storage.list_files(root)] == ["c/d/e", "f"]
    storage.remove(root)
    assert [*storage.list_files(root)] == [] and storage.list_folder(folder) == ["other"]


def test_without_tensorflow_another_library_opens_remote_files(tmp_path, monkeypatch):
    class Files:
        def exists(self, path):
            return path == "gs://bucket/there"

    monkeypatch.setattr(file_systems.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(file_systems.epath_backend, "fsspec_backend", Files())
    assert storage.exists("gs://bucket/there") and not storage.exists("gs://bucket/missing")


def test_a_file_can_be_read_at_any_position(folder):
    path = storage.join(folder, "file")
    storage.write_bytes(path, bytes(range(100)))
    with storage.open_for_reading(path) as file:
        assert file.seek(-10, os.SEEK_END) == 90
        assert file.read() == bytes(range(90, 100))
        file.seek(5)
        assert (file.read(3), file.tell()) == (bytes([5, 6, 7]), 8)
        file.seek(2, os.SEEK_CUR)
        assert file.read(1) == bytes([10])
        with pytest.raises((OSError, ValueError)):
            file.seek(-101, os.SEEK_END)


def test_local_files_do_not_need_tensorflow(tmp_path):
    code = f"""
import sys
import pyarrow as pa
from trainer import file_systems, storage
storage.make_folder({str(tmp_path / "a")!r})
path = {str(tmp_path / "a" / "table.parquet")!r}
table = pa.table({{"x": [1, 2]}})
storage.write_table(table, path)
assert storage.read_table(path, table.schema).equals(table)
sys.exit("tensorflow" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


def test_a_table_is_read_as_it_was_written(folder):
    path = storage.join(folder, "table.parquet")
    storage.write_table(TABLE, path)
    assert storage.read_table(path, TABLE.schema).equals(TABLE)


@pytest.mark.parametrize(
    "content", [b"", b"not a table", lambda whole: whole[:-1], lambda whole: whole[: len(whole) // 2]]
)
def test_a_damaged_table_is_reported(folder, content):
    path = storage.join(folder, "table.parquet")
    storage.write_table(TABLE, path)
    storage.write_bytes(path, content(storage.read_bytes(path)) if callable(content) else content)
    with pytest.raises(StorageError, match=r"table.parquet cannot be read: .+\. Restore the file"):
        storage.read_table(path, TABLE.schema)


def test_a_flipped_bit_in_the_values_of_a_table_is_reported(folder):
    path = storage.join(folder, "table.parquet")
    # Random values do not compress, so a flipped bit changes a value and only the checksum can notice it.
    values = pa.table({"index": np.random.default_rng(0).integers(0, 2**62, 1000)})
    storage.write_table(values, path)
    content = bytearray(storage.read_bytes(path))
    content[len(content) // 4] ^= 1
    storage.write_bytes(path, bytes(content))
    with pytest.raises(StorageError, match=r"table.parquet cannot be read"):
        storage.read_table(path, values.schema)


def test_a_table_with_other_columns_is_reported_with_its_columns(folder):
    path = storage.join(folder, "table.parquet")
    storage.write_table(pa.table({"price": [1.0], "shop": ["x"]}), path)
    with pytest.raises(StorageError, match=r"table.parquet cannot be read: its columns are price, shop\."):
        storage.read_table(path, TABLE.schema)


def test_a_table_with_other_types_is_refused(folder):
    path = storage.join(folder, "table.parquet")
    storage.write_table(TABLE.set_column(0, "index", pa.array([3, 1, 2], pa.int64())), path)
    with pytest.raises(StorageError):
        storage.read_table(path, TABLE.schema)


def test_a_missing_table_is_reported(folder):
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


@pytest.mark.parametrize("path", ["s3://bucket/run", "http://host/run", "hdfs://node/run"])
def test_a_scheme_without_a_file_system_is_named(path):
    for use in (storage.exists, storage.is_folder, storage.read_bytes, storage.make_folder):
        with pytest.raises(StorageError, match=f"{path} cannot be opened: there is no file system for "):
            use(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gs://", "'gs://' names no bucket. Write the path as gs://BUCKET/FOLDER."),
        ("gs:///", "'gs:///' names no bucket."),
        ("/tmp/\udcff", "it is not UTF-8"),
        ("/tmp/a\0b", "it contains a NUL byte"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused(path, message):
    for use in (storage.exists, storage.read_bytes, lambda path: storage.join(path, "config.json")):
        with pytest.raises(StorageError) as caught:
            use(path)
        assert message in str(caught.value)


class Bucket:
    """A backend that answers what it is told to."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def exists(self, path):
        self.asked.append(path)
        return self.answer()


def raise_error(error):
    raise error


BUCKETS = {
    "no bucket": (lambda: False, r"gs://mine/runs/a cannot be opened: there is no bucket gs://mine\. Check its name"),
    "an error": (
        lambda: raise_error(tf.errors.UnauthenticatedError(None, None, "no credentials.\nmore")),
        r"gs://mine/runs/a cannot be opened: no credentials\. Check its name, the network",
    ),
    "no answer": (
        lambda: threading.Event().wait(),
        r"gs://mine/runs/a cannot be opened: gs://mine has not answered for 0\.05 s\. Check its name, the network",
    ),
}


@pytest.mark.parametrize("case", BUCKETS)
def test_a_bucket_that_cannot_be_used_is_said_at_once(monkeypatch, case):
    answer, says = BUCKETS[case]
    monkeypatch.setattr(storage, "backend_of", lambda path: Bucket(answer))
    with pytest.raises(StorageError, match=says):
        storage.check_bucket("gs://mine/runs/a", timeout=0.05)


def test_a_bucket_that_may_be_used_passes(monkeypatch):
    bucket = Bucket(lambda: True)
    monkeypatch.setattr(storage, "backend_of", lambda path: bucket)
    for path in ("gs://mine/runs/a", "gs://mine", "runs/a", "ram://runs", "movielens"):
        storage.check_bucket(path)
    assert bucket.asked == ["gs://mine/", "gs://mine/"]
    # The right to use objects does not include the right to see the bucket.
    bucket.answer = lambda: raise_error(tf.errors.PermissionDeniedError(None, None, "forbidden"))
    storage.check_bucket("gs://mine/runs/a")
