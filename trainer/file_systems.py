"""Which file system a path belongs to, how a remote file is opened, and the errors of all of them.

Local paths do not need TensorFlow. It is imported on the first use of a remote path. Where it is not installed, as on
the workers of Beam, fsspec reads and writes remote paths.
"""

import errno
import importlib.util
import io
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from etils.epath import backend as epath_backend

from settings.errors import StorageError
from trainer.retries import retry

# The node and the operation, which TensorFlow puts around the message of a file error.
_TENSORFLOW_CONTEXT = re.compile(r"^\{\{.*?\}\} | \[Op:\w+\].*", re.DOTALL)


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


def is_remote(path: str) -> bool:
    """Whether a path has a scheme, such as gs://."""
    return "://" in path


def backend_of(path: str) -> epath_backend.Backend:
    """Returns what reads and writes the files of a path.

    Raises:
      StorageError: there is none for its scheme, or no file can have this name.
    """
    check_name(path)
    # Not epath.Path, which knows a few schemes only and would create a local folder named "hdfs:".
    if not is_remote(path):
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


def check_name(path: str) -> None:
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


class RemoteFile(io.RawIOBase):
    """The file interface of the standard library and of Arrow, on top of TensorFlow's."""

    def __init__(self, path: str, mode: str):
        self._path, self._mode = path, mode
        self._file, self._close = _open(path, mode)

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


def _open(path: str, mode: str) -> tuple[Any, Callable[[], None]]:
    """Returns an open file, and what closes it, which uploads what was written."""
    backend = backend_of(path)
    if backend is epath_backend.fsspec_backend:
        file: Any = backend.open(path, mode)
        # It counts as closed even if the upload has failed, so closing it is not tried again.
        return file, file.close
    from trainer.compat import tf

    # Not opened by the backend, which would upload once more after the upload has failed for good.
    file = tf.io.gfile.GFile(path, mode)
    return file, lambda: retry(path, file.close)
