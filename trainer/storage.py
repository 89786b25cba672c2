"""Files, local or remote (gs:// and other schemes that TensorFlow can open).

A file is replaced as a whole or not at all. An operation on a remote path is tried again after an error that may pass;
see `retries.py`. `file_systems.py` opens remote files.
"""

import contextlib
import hashlib
import io
import os
import re
import shutil
import threading
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from settings.errors import StorageError
from settings.special_files import check_is_no_special_file
from trainer.file_systems import RemoteFile, backend_of, check_name, file_errors, is_remote, reason
from trainer.retries import retry

_BUFFER_BYTES = 1 << 20
_DIGEST_BYTES = 1 << 24

BUCKET_SECONDS = 20.0
"""How long a bucket may take to answer before the run is refused."""


def join(folder: str, *names: str) -> str:
    """Joins a folder and names below it, for local and remote paths alike.

    Raises:
      StorageError: the folder is a scheme without a bucket.
    """
    check_name(folder)
    return "/".join([folder.rstrip("/"), *names])


def exists(path: str) -> bool:
    """Returns whether there is a file or folder at `path`."""
    return retry(path, lambda: backend_of(path).exists(path))


def is_folder(path: str) -> bool:
    """Returns whether there is a folder at `path`."""
    return retry(path, lambda: backend_of(path).isdir(path))


def list_folder(path: str) -> list[str]:
    """Returns the sorted names of the files and folders in the folder at `path`."""
    return sorted(name.rstrip("/") for name in retry(path, lambda: backend_of(path).listdir(path)))


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
    if is_remote(path):
        retry(path, lambda: _remove_remote(path))
    elif os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.remove(path)


def rename(path: str, new_path: str) -> None:
    """Renames a file. It replaces a file that has the new name."""

    def replace() -> None:
        try:
            backend_of(path).replace(path, new_path)
        except FileNotFoundError:
            # The answer to an earlier try was lost, but the service had renamed the file.
            if not (is_remote(path) and backend_of(path).exists(new_path)):
                raise

    retry(path, replace)


def size(path: str) -> int:
    """Returns the size of a file in bytes."""
    return retry(path, lambda: backend_of(path).stat(path).length) if is_remote(path) else os.path.getsize(path)


def modified(path: str) -> float:
    """Returns when a file was last written: seconds since the epoch, by the clock of the storage."""
    return float(retry(path, lambda: backend_of(path).stat(path).mtime))


def open_for_reading(path: str) -> BinaryIO:
    """Opens a file for reading bytes at any position."""
    if is_remote(path):
        return io.BufferedReader(RemoteFile(path, "rb"), _BUFFER_BYTES)
    check_name(path)
    check_is_no_special_file(path)
    return open(path, "rb", _BUFFER_BYTES)


@contextlib.contextmanager
def open_for_writing(path: str) -> Iterator[pa.NativeFile]:
    """Gives an Arrow output file. Its content replaces the file at `path` when the body ends without an error.

    The replacement is one step: readers see the old content or the new content, also after a crash.

    Raises:
      StorageError: the file cannot be written, for example because the disk is full. The old content is unchanged.
    """
    check_name(path)
    temporary = f"{path}.{os.getpid()}.tmp"
    remove_leftovers(path)
    try:
        with writing(path):
            with RemoteFile(temporary, "wb") if is_remote(path) else open(temporary, "wb") as file:
                yield pa.PythonFile(file, mode="w")
            sync(temporary)
            rename(temporary, path)
            sync(os.path.dirname(path))
    except BaseException:
        # The first error goes on.
        with contextlib.suppress(*file_errors()):
            remove(temporary)
        raise


def remove_leftovers(path: str, *, is_alone: bool = False) -> None:
    """Removes what killed processes have left of writing a file or folder: PATH.PID.tmp beside it.

    Whoever writes a local path calls it first. What a living process is writing stays. A process of another machine
    counts as gone, but two machines cannot write one path anyway.

    Args:
      path: the file or folder. If it is remote, nothing is removed unless `is_alone` is set.
      is_alone: whether no other process can be writing it, as in a workdir whose lock this process holds.
    """
    if is_remote(path) and not is_alone:
        return
    folder, _, name = path.rpartition("/")
    temporary = re.compile(re.escape(name) + r"\.(\d{1,7})\.tmp")
    # A folder that cannot be listed can be written to.
    with contextlib.suppress(*file_errors()):
        for found in map(temporary.fullmatch, list_folder(folder or ".")):
            if found and (is_alone or not _is_alive(int(found[1]))):
                remove(join(folder, found[0]) if folder else found[0])


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
        retry(path, lambda: backend_of(path).makedirs(path, exist_ok=True))


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
    if is_remote(path):
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
    backend = backend_of(path)
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


def _remove_remote(path: str) -> None:
    backend = backend_of(path)
    for name in list_files(path):
        backend.remove(join(path, name))
    # What is left is the file itself, or objects that stand for folders, if there are any.
    with contextlib.suppress(FileNotFoundError):
        (backend.rmtree if backend.isdir(path) else backend.remove)(path)
