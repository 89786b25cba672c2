"""Opens files, folders and zip archives, local or gs://, and turns their errors into messages.

Files are opened as Arrow's own files. Arrow's threads can read them without calling Python, which would hang or abort
the process if it happened at exit. A local file is read from disk. Any other file is first copied into memory.
"""

import contextlib
import dataclasses
import gzip
import posixpath
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

import pyarrow as pa

from settings.errors import DataError, StorageError
from settings.special_files import check_is_no_special_file
from trainer import storage

MAX_MEMBER_BYTES = 4 << 30
"""The largest size of an unpacked member of an archive. The largest member of MovieLens 25M has 0.7 GB."""

COPY_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Container:
    """A folder or a zip archive.

    Attributes:
      path: the path of the folder or archive.
      names: the names of its files and of the files in its direct subfolders, separated by "/".
      open: opens the file with one of these names.
    """

    path: str
    names: tuple[str, ...]
    open: Callable[[str], pa.NativeFile]


def exists(path: str) -> bool:
    """Returns whether there is a file or folder at `path`."""
    with reading(path):
        return storage.exists(path)


def open_file(path: str) -> pa.NativeFile:
    """Opens a file. A file whose name ends in .gz is unpacked."""
    if path.endswith(".gz"):
        with storage.open_for_reading(path) as packed, gzip.open(packed) as file:
            return _in_memory(file, unpacked_from=path)
    if "://" in path:
        with storage.open_for_reading(path) as file:
            return _in_memory(file)
    check_is_no_special_file(path)
    return pa.OSFile(path, "r")


def open_container(path: str) -> Container | None:
    """Opens the folder or zip archive at `path`. Returns None for any other file."""
    with reading(path):
        if storage.is_folder(path):
            return Container(path, tuple(_list_folder(path)), lambda name: open_file(posixpath.join(path, name)))
        if not path.endswith(".zip"):
            return None
        archive = zipfile.ZipFile(storage.open_for_reading(path))
        for name in archive.namelist():
            if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
                raise DataError(
                    f"{path} has a member {name!r}, whose name points outside of the archive. Such archives are not "
                    "read. Pack the files again, or set config.data.source to their folder."
                )
        names = tuple(name for name in archive.namelist() if name.count("/") <= 1 and not name.endswith("/"))
        return Container(path, names, lambda name: _open_member(path, archive, name))


def _list_folder(path: str) -> Iterator[str]:
    for entry in storage.list_folder(path):
        inside = posixpath.join(path, entry)
        if storage.is_folder(inside):
            for name in storage.list_folder(inside):
                yield posixpath.join(entry, name)
        else:
            yield entry


def _open_member(path: str, archive: zipfile.ZipFile, name: str) -> pa.NativeFile:
    # If a member is larger than the archive states, zipfile stops there and its checksum fails.
    facts = archive.getinfo(name)
    num_bytes = facts.file_size
    if stat.S_ISLNK(facts.external_attr >> 16):
        raise DataError(f"{name} in {path} is a link. Pack the file that it points to, or use the folder of the files.")
    if num_bytes > MAX_MEMBER_BYTES:
        raise DataError(
            f"{name} in {path} has {num_bytes:,} bytes when unpacked. At most {MAX_MEMBER_BYTES:,} bytes are read "
            "from an archive. Unpack it and set config.data.source to the folder."
        )
    with archive.open(name) as member:
        return _in_memory(member)


def _in_memory(file: IO[bytes] | gzip.GzipFile, *, unpacked_from: str = "") -> pa.NativeFile:
    """A copy of an open file. If it is `unpacked_from` a file, that says nothing certain about its size."""
    copy = pa.BufferOutputStream()
    while chunk := file.read(COPY_BYTES):
        copy.write(chunk)
        if unpacked_from and copy.tell() > MAX_MEMBER_BYTES:
            raise DataError(
                f"{unpacked_from} has more than {MAX_MEMBER_BYTES:,} bytes when unpacked, and no more are read from "
                "such a file. Unpack it, and set config.data.source to the unpacked file."
            )
    return pa.BufferReader(copy.getvalue())


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns an error while `name` is read into a message that names it.

    Raises:
      DataError: the content is damaged or has another format.
      StorageError: the content cannot be read.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise DataError(f"{name} is damaged or incomplete ({_line(error)}). Copy it again.") from error
    except (RuntimeError, NotImplementedError) as error:  # From zipfile: encrypted, or an unknown compression.
        raise DataError(f"{name} cannot be unpacked ({_line(error)}). Unpack it yourself.") from error
    except UnicodeDecodeError as error:
        raise _not_utf8(name, error) from error
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise _not_utf8(name, error) from error
        raise DataError(
            f"{name} cannot be read ({_line(error)}). Check that it is complete and has the format of its name."
        ) from error
    except storage.file_errors() as error:
        # Arrow reports damaged pages of a Parquet file as an OSError without an error number.
        kind = StorageError if getattr(error, "errno", None) or not isinstance(error, OSError) else DataError
        raise kind(
            f"{name} cannot be read ({_line(error)}). Check that it is complete and that you may read it."
        ) from (error)


def _not_utf8(name: str, error: Exception) -> DataError:
    return DataError(
        f"{name} is not UTF-8 text ({_line(error)}). Convert it, for instance with `iconv -f ISO-8859-1 -t UTF-8`."
    )


def _line(error: Exception) -> str:
    return " ".join(str(getattr(error, "message", None) or error or type(error).__name__).split())[:300]
