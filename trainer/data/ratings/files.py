"""Files, folders and zip archives, local or gs://, read in memory; and what can go wrong with them."""

import contextlib
import dataclasses
import gzip
import io
import posixpath
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from settings.errors import DataError, StorageError

MAX_MEMBER_BYTES = 4 << 30
"""No member of an archive may be larger when unpacked: the largest of MovieLens 25M has 0.7 GB."""

BUFFER_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Container:
    """A folder or a zip archive.

    Attributes:
      path: where it is.
      names: of its files and of those in its subfolders, with "/" between; not deeper.
      open: from one of these names to its bytes.
    """

    path: str
    names: tuple[str, ...]
    open: Callable[[str], BinaryIO]


def exists(path: str) -> bool:
    """Whether a file or folder is at a path."""
    from trainer.compat import tf

    with reading(path):
        return tf.io.gfile.exists(path)


def open_file(path: str) -> BinaryIO:
    """A file's bytes, unpacked where its name ends in .gz."""
    file = io.BufferedReader(_Bytes(path), BUFFER_BYTES)
    return gzip.open(file) if path.endswith(".gz") else file  # type: ignore[return-value]


class _Bytes(io.RawIOBase):
    """What the standard library and Arrow ask of a file, on top of TensorFlow's."""

    def __init__(self, path: str):
        from trainer.compat import tf

        self._file = tf.io.gfile.GFile(path, "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self.tell()
        elif whence == io.SEEK_END:
            offset += self._file.size()
        if offset < 0:  # As zipfile does in a file too short for an archive; it expects an OSError.
            raise OSError(f"position {offset} is before the start of the file")
        self._file.seek(offset)
        return offset

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def open_container(path: str) -> Container | None:
    """The folder or zip archive at a path; None where it is another kind of file."""
    from trainer.compat import tf

    with reading(path):
        if tf.io.gfile.isdir(path):
            return Container(path, tuple(_list_folder(path)), lambda name: open_file(posixpath.join(path, name)))
        if not path.endswith(".zip"):
            return None
        archive = zipfile.ZipFile(open_file(path))
        names = tuple(name for name in archive.namelist() if name.count("/") <= 1 and not name.endswith("/"))
        return Container(path, names, lambda name: _open_member(path, archive, name))


def _list_folder(path: str) -> Iterator[str]:
    from trainer.compat import tf

    for entry in sorted(name.rstrip("/") for name in tf.io.gfile.listdir(path)):
        inside = posixpath.join(path, entry)
        if tf.io.gfile.isdir(inside):
            for name in sorted(tf.io.gfile.listdir(inside)):
                yield posixpath.join(entry, name)
        else:
            yield entry


def _open_member(path: str, archive: zipfile.ZipFile, name: str) -> BinaryIO:
    # A member that is larger than the archive says is cut off there, and fails its checksum.
    num_bytes = archive.getinfo(name).file_size
    if num_bytes > MAX_MEMBER_BYTES:
        raise DataError(
            f"{name} in {path} has {num_bytes:,} bytes when unpacked, more than the {MAX_MEMBER_BYTES:,} "
            "that are read from an archive: unpack it and give the folder as config.data.source."
        )
    return archive.open(name)  # type: ignore[return-value]


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns what may go wrong while `name` is read into one paragraph that names it.

    Raises:
      DataError: the bytes are not what they should be.
      StorageError: they cannot be had.
    """
    from trainer.compat import tf

    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tf.errors.DataLossError) as error:
        raise DataError(f"{name} is damaged or cut short ({_line(error)}): copy it anew.") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile: encrypted, or an unknown compression
        raise DataError(f"{name} cannot be unpacked ({_line(error)}): unpack it yourself.") from error
    except (UnicodeDecodeError, pa.ArrowInvalid) as error:
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            raise DataError(
                f"{name} is not UTF-8 text ({_line(error)}): convert it, for instance with "
                "`iconv -f ISO-8859-1 -t UTF-8`."
            ) from error
        raise DataError(f"{name} cannot be read ({_line(error)}): is it whole, and of that format?") from error
    except (OSError, tf.errors.OpError) as error:
        raise StorageError(
            f"{name} cannot be read ({_line(error)}): check your access to it, and that it is whole."
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(getattr(error, "message", None) or error or type(error).__name__).split())[:300]
