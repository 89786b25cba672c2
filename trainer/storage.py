"""Files, local or gs://, written whole or not at all."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from settings.errors import StorageError
from trainer.compat import tf

# Which operation failed on which device, before and after what TensorFlow says of a file.
_TRIMMINGS = re.compile(r"^\{\{.*?\}\} | \[Op:\w+\].*", re.DOTALL)


def join(folder: str, *names: str) -> str:
    """A path below `folder`, for local and gs:// alike."""
    return "/".join([folder.rstrip("/"), *names])


@contextlib.contextmanager
def open_for_writing(path: str) -> Iterator[pa.NativeFile]:
    """An Arrow output whose content replaces the file in one step when the body ends without an error.

    A reader, or a crash, finds the old content or the new, never a part.

    Raises:
      StorageError: the disk is full, or not ours to write on; the old content is still there.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with writing(path):
            with tf.io.gfile.GFile(temporary, "wb") as file:
                yield pa.PythonFile(_Output(file), mode="w")
            sync(temporary)
            tf.io.gfile.rename(temporary, path, overwrite=True)
            sync(os.path.dirname(path))
    finally:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns what the file system refuses in the body into a StorageError that names `path`."""
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        raise StorageError(
            f"{path} cannot be written: {reason(error)}. Make room for it, or mend its access rights, and start "
            "the same command again."
        ) from error


def make_folder(path: str) -> None:
    """Makes a folder, and those above it, where there is none.

    Raises:
      StorageError: it cannot be made.
    """
    with writing(path):
        tf.io.gfile.makedirs(path)


class _Output(io.RawIOBase):
    """What Arrow asks of a file, on top of TensorFlow's."""

    def __init__(self, file: tf.io.gfile.GFile):
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._file.write(bytes(content))
        return len(content)


def read_bytes(path: str) -> bytes:
    """The whole file."""
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


def write_bytes(path: str, content: bytes) -> None:
    """Replaces the file in one step; see `open_for_writing`."""
    with open_for_writing(path) as file:
        file.write(content)


def write_table(table: pa.Table, path: str) -> None:
    """Writes a table as Parquet, whole or not at all; see `open_for_writing`."""
    with open_for_writing(path) as file:
        pq.write_table(table, file, write_page_checksum=True)


def read_table(path: str, schema: pa.Schema) -> pa.Table:
    """Reads what `write_table` wrote.

    Raises:
      StorageError: the file is missing, broken, or of another schema.
    """
    try:
        table = pq.read_table(pa.BufferReader(read_bytes(path)), page_checksum_verification=True)
        if not table.schema.equals(schema):
            raise ValueError(f"its columns are {', '.join(table.schema.names)}")
    except (tf.errors.OpError, pa.ArrowException, OSError, ValueError) as error:
        raise StorageError(
            f"{path} cannot be read: {reason(error)}. Restore the file from a copy, or train anew in another workdir."
        ) from error
    return table


def sync(path: str) -> None:
    """Makes a local file or folder survive a power cut; gs:// needs nothing."""
    if "://" in path:
        return
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: Exception) -> str:
    """What an error of the file system says, without TensorFlow's trimmings."""
    message = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    first_line, *_ = _TRIMMINGS.sub("", message).strip().splitlines() or [type(error).__name__]
    return first_line.rstrip(".")
