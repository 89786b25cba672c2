"""Files, local or remote (gs:// and other schemes that TensorFlow can open).

A file is replaced as a whole or not at all. Local paths do not need TensorFlow. It is imported on the first use of a
remote path. Where it is not installed, as on the workers of Beam, fsspec reads and writes remote paths.

An operation on a remote path is tried again after an error that may pass; see `retries.py`.
"""

import contextlib
import errno
import hashlib
import importlib.util
import io
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from etils.epath import backend as epath_backend

from settings.errors import StorageError
from settings.special_files import check_is_no_special_file
from trainer.retries import retry

_BUFFER_BYTES = 1 << 20
_DIGEST_BYTES = 1 << 24

BUCKET_SECONDS = 20.0
"""How long a bucket may take to answer before the run is refused."""

# The node and the operation, which TensorFlow puts around the message of a file error.
_TENSORFLOW_CONTEXT = re.compile(r"^\{\{.*?\}\} | \[Op:\w+\].*", re.DOTALL)


def join(folder: str, *names: str) -> str:
    """Joins a folder and names below it, for local and remote paths alike.

    Raises:
      StorageError: the folder is a scheme without a bucket.
    """
    _check_name(folder)
    return "/".join([folder.rstrip("/"), *names])


def exists(path: str) -> bool:
    """Returns whether there is a file or folder at `path`."""
    return retry(path, lambda: _backend(path).exists(path))


def is_folder(path: str) -> bool:
    """Returns whether there is a folder at `path`."""
    return retry(path, lambda: _backend(path).isdir(path))


def list_folder(path: str) -> list[str]:
    """Returns the sorted names of the files and folders in the folder at `path`."""
    return sorted(name.rstrip("/") for name in retry(path, lambda: _backend(path).listdir(path)))


def list_files(folder: str) -> Iterator[str]:
    """Yields the paths of all files below the folder, relative to it, sorted by their parts. There may be no folder."""
    for name in list_folder(folder) if is_folder(folder) else ():
        path = join(folder, name)
        if is_folder(path):
            yield from (join(name, inner) for inner in list_files(path))
        else:
            yield name


def remove(path: str) -> None:
    """Removes a file, or a folder with all that is in it. A local folder loses what it can, and no error is raised."""
    if _is_remote(path):
        retry(path, lambda: _remove_remote(path))
    elif os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.remove(path)


def rename(path: str, new_path: str) -> None:
    """Renames a file. It replaces a file that has the new name."""

    def replace() -> None:
        try:
            _backend(path).replace(path, new_path)
        except FileNotFoundError:
            # The answer to an earlier try was lost, but the service had renamed the file.
            if not (_is_remote(path) and _backend(path).exists(new_path)):
                raise

    retry(path, replace)


def size(path: str) -> int:
    """Returns the size of a file in bytes."""
    return retry(path, lambda: _backend(path).stat(path).length) if _is_remote(path) else os.path.getsize(path)


def modified(path: str) -> float:
    """Returns when a file was last written: seconds since the epoch, by the clock of the storage."""
    return float(retry(path, lambda: _backend(path).stat(path).mtime))


def open_for_reading(path: str) -> BinaryIO:
    """Opens a file for reading bytes at any position."""
    if _is_remote(path):
        return io.BufferedReader(_RemoteFile(path, "rb"), _BUFFER_BYTES)
    _check_name(path)
    check_is_no_special_file(path)
    return open(path, "rb", _BUFFER_BYTES)


@contextlib.contextmanager
def open_for_writing(path: str) -> Iterator[pa.NativeFile]:
    """Gives an Arrow output file. Its content replaces the file at `path` when the body ends without an error.

    The replacement is one step: readers see the old content or the new content, also after a crash.

    Raises:
      StorageError: the file cannot be written, for example because the disk is full. The old content is unchanged.
    """
    _check_name(path)
    temporary = f"{path}.{os.getpid()}.tmp"
    remove_leftovers(path)
    try:
        with writing(path):
            with _RemoteFile(temporary, "wb") if _is_remote(path) else open(temporary, "wb") as file:
                yield pa.PythonFile(file, mode="w")
            sync(temporary)
            rename(temporary, path)
            sync(os.path.dirname(path))
    except BaseException:
        # The first error goes on.
        with contextlib.suppress(*file_errors()):
            remove(temporary)
        raise


def remove_leftovers(path: str) -> None:
    """Removes what killed processes have left of writing a local file or folder: PATH.PID.tmp beside it.

    Whoever writes `path` calls it first. What a living process is writing stays. A process of another machine counts as
    gone, but two machines cannot write one path anyway.
    """
    if _is_remote(path):
        return
    folder, name = os.path.split(os.path.abspath(path))
    temporary = re.compile(re.escape(name) + r"\.(\d{1,7})\.tmp")
    # A folder that cannot be listed can be written to.
    with contextlib.suppress(OSError):
        for found in map(temporary.fullmatch, os.listdir(folder)):
            if found and not _is_alive(int(found[1])):
                remove(os.path.join(folder, found[0]))


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # A process of another user.
        pass
    return True


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns every file error in the body into a StorageError that names `path`."""
    try:
        yield
    except file_errors() as error:
        raise StorageError(
            f"{path} cannot be written: {reason(error)}. Make room for it, or correct its access rights, and start "
            "the same command again."
        ) from error


@contextlib.contextmanager
def reading_json(path: str, *, of: str) -> Iterator[None]:
    """Turns every error that a broken JSON file causes in the body into a StorageError that names `path`.

    Args:
      path: the file that the body reads.
      of: what has written the file, for the message.
    """
    # RecursionError: brackets within brackets. OverflowError: a number that is too large for what it counts.
    errors: tuple[type[Exception], ...] = (ValueError, LookupError, TypeError, AttributeError)
    errors += (RecursionError, OverflowError)
    try:
        yield
    except errors + file_errors() as error:
        raise StorageError(
            f"{path} cannot be read as the JSON that {of} writes: {reason(error)}. Restore the file from a copy, or "
            "use another --workdir."
        ) from error


def make_folder(path: str) -> None:
    """Makes a folder and its missing parents. An existing folder is left as it is.

    Raises:
      StorageError: the folder cannot be made.
    """
    with writing(path):
        retry(path, lambda: _backend(path).makedirs(path, exist_ok=True))


def read_bytes(path: str) -> bytes:
    """Returns the content of a file."""
    with open_for_reading(path) as file:
        return file.read()


def sha256(path: str) -> str:
    """Returns the SHA-256 digest of a file in hexadecimal. Reads it in chunks of 16 MiB."""
    sha = hashlib.sha256()
    with open_for_reading(path) as file:
        while chunk := file.read(_DIGEST_BYTES):
            sha.update(chunk)
    return sha.hexdigest()


def write_bytes(path: str, content: bytes) -> None:
    """Replaces a file in one step; see `open_for_writing`."""
    with open_for_writing(path) as file:
        file.write(content)


def write_table(table: pa.Table, path: str) -> None:
    """Writes a table as Parquet in one step; see `open_for_writing`."""
    with open_for_writing(path) as file:
        pq.write_table(table, file, write_page_checksum=True)


RESTORE = "Restore the file from a copy, or train again in another workdir."


def read_table(path: str, schema: pa.Schema, *, way_out: str = RESTORE) -> pa.Table:
    """Reads a file written by `write_table`.

    Args:
      path: the file.
      schema: the schema that it must have.
      way_out: how to get a good file back, for the message.

    Raises:
      StorageError: the file is missing or damaged, or has another schema.
    """
    try:
        table = pq.read_table(pa.BufferReader(read_bytes(path)), page_checksum_verification=True)
        if not table.schema.equals(schema):
            raise ValueError(f"its columns are {', '.join(table.schema.names)}")
    except (*file_errors(), pa.ArrowException, ValueError) as error:
        raise StorageError(f"{path} cannot be read: {reason(error)}. {way_out}") from error
    return table


def sync(path: str) -> None:
    """Flushes a local file or folder to the disk, so that it survives a power failure. Remote files need no flush."""
    if _is_remote(path):
        return
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_bucket(path: str, *, timeout: float = BUCKET_SECONDS) -> None:
    """Checks that the bucket of a gs:// path exists and answers. All other paths pass.

    Raises:
      StorageError: there is no such bucket, or it does not answer within `timeout` seconds.
    """
    if not path.startswith("gs://"):
        return
    backend = _backend(path)
    bucket = "/".join(path.split("/")[:3])
    answers: list[bool | Exception] = []

    def ask() -> None:
        try:
            answers.append(backend.exists(f"{bucket}/"))
        except Exception as error:
            answers.append(error)

    # TensorFlow would try for minutes, and cannot be interrupted.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    advice = "Check its name, the network and this machine's credentials (gcloud auth application-default login)."
    match answers:
        case []:
            raise StorageError(f"{path} cannot be opened: {bucket} has not answered for {timeout:g} s. {advice}")
        case [False]:
            raise StorageError(f"{path} cannot be opened: there is no bucket {bucket}. {advice}")
        # Whoever may use the objects of a bucket need not have the right to see the bucket itself.
        case [Exception() as error] if type(error).__name__ != "PermissionDeniedError":
            raise StorageError(f"{path} cannot be opened: {reason(error)}. {advice}") from error


def file_errors() -> tuple[type[Exception], ...]:
    """Returns the exception types that a file can raise: OSError, and those of the modules for remote paths."""
    errors: list[type[Exception]] = [OSError]
    if tf := getattr(sys.modules.get("trainer.compat"), "tf", None):
        errors.append(tf.errors.OpError)
    for module, name in (("gcsfs.retry", "HttpError"), ("google.auth.exceptions", "GoogleAuthError")):
        if error := getattr(sys.modules.get(module), name, None):
            errors.append(error)
    return tuple(errors)


def reason(error: Exception) -> str:
    """Returns the first line of an error's message, without the context that TensorFlow adds."""
    message = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    first_line, *_ = _TENSORFLOW_CONTEXT.sub("", message).strip().splitlines() or [type(error).__name__]
    return first_line.rstrip(".")


def _is_remote(path: str) -> bool:
    return "://" in path


def _backend(path: str) -> epath_backend.Backend:
    _check_name(path)
    # Not epath.Path, which knows a few schemes only and would create a local folder named "hdfs:".
    if not _is_remote(path):
        return epath_backend.os_backend
    if importlib.util.find_spec("tensorflow") is None:
        return epath_backend.fsspec_backend
    from trainer.compat import tf  # epath imports TensorFlow, which must be set up first.

    scheme = path.partition("://")[0]
    if scheme not in tf.io.gfile.get_registered_schemes():
        raise StorageError(
            f"{path} cannot be opened: there is no file system for {scheme}:// here. Use a local path or gs://, or "
            "copy the files to one."
        )
    return epath_backend.tf_backend


def _remove_remote(path: str) -> None:
    backend = _backend(path)
    for name in list_files(path):
        backend.remove(join(path, name))
    # What is left is the file itself, or objects that stand for folders, if there are any.
    with contextlib.suppress(FileNotFoundError):
        (backend.rmtree if backend.isdir(path) else backend.remove)(path)


def _check_name(path: str) -> None:
    """Raises StorageError for a path that no file can have, or that names no bucket."""
    scheme, is_remote, name = path.partition("://")
    if is_remote and not name.strip("/"):
        raise StorageError(f"{path!r} names no bucket. Write the path as {scheme}://BUCKET/FOLDER.")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise StorageError(f"{path!r} cannot be used as a path: it is not UTF-8. Choose another name.") from None
    if "\0" in path:
        raise StorageError(f"{path!r} cannot be used as a path: it contains a NUL byte. Choose another name.")


class _RemoteFile(io.RawIOBase):
    """The file interface of the standard library and of Arrow, on top of TensorFlow's."""

    def __init__(self, path: str, mode: str):
        self._path, self._mode = path, mode
        self._file, self._close = _open_remote(path, mode)

    def readable(self) -> bool:
        return "r" in self._mode

    def writable(self) -> bool:
        return "w" in self._mode

    def seekable(self) -> bool:
        return self.readable()

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self.tell()
        elif whence == io.SEEK_END:
            size = self._file.size  # A method of TensorFlow's files, and a number of fsspec's.
            offset += size() if callable(size) else size
        if offset < 0:  # zipfile tries this on a file that is too short for an archive, and expects an OSError.
            raise OSError(f"position {offset} is before the start of the file")
        self._file.seek(offset)
        return offset

    def readinto(self, buffer: Any) -> int:
        try:
            position = retry(self._path, self.tell)
            data = retry(self._path, lambda: self._read_at(position, len(buffer)))
        except file_errors() as error:
            # TensorFlow opens a file when it is first read.
            if type(error).__name__ == "NotFoundError":
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path) from error
            raise
        buffer[: len(data)] = data
        return len(data)

    def _read_at(self, position: int, size: int) -> bytes:
        self._file.seek(position)
        return self._file.read(size)

    def write(self, content: Any) -> int:
        self._file.write(bytes(content))
        return len(content)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._close()


def _open_remote(path: str, mode: str) -> tuple[Any, Callable[[], None]]:
    """Returns an open file, and what closes it, which uploads what was written."""
    backend = _backend(path)
    if backend is epath_backend.fsspec_backend:
        file: Any = backend.open(path, mode)
        # It counts as closed even if the upload has failed, so closing it is not tried again.
        return file, file.close
    from trainer.compat import tf

    # Not opened by the backend, which would upload once more after the upload has failed for good.
    file = tf.io.gfile.GFile(path, mode)
    return file, lambda: retry(path, file.close)
