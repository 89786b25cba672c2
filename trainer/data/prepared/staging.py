"""Copies a prepared data set from gs:// to a local disk, where it can be memory-mapped: once a machine."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator

from trainer import storage
from trainer.data.prepared.layout import MANIFEST
from trainer.data.prepared.manifest import Manifest, damaged
from trainer.data.prepared.writing import whole_or_not_at_all

DEFAULT_CACHE = os.path.join("~", ".cache", "listwise")

_CHUNK_BYTES = 16 << 20


def stage(folder: str, manifest: Manifest, cache: str) -> str:
    """Returns a local folder with a copy of a data set. The first process that asks for it makes the copy.

    Args:
      folder: the data set.
      manifest: its manifest. Its content names the copy, so data that was prepared again is copied again.
      cache: the folder of the copies; "" for DEFAULT_CACHE. All processes of a machine should have the same one.

    Raises:
      StorageError: a file is missing or damaged, or the copy cannot be written.
    """
    content = storage.read_bytes(storage.join(folder, MANIFEST))
    cache = os.path.abspath(os.path.expanduser(cache or DEFAULT_CACHE))
    local = os.path.join(cache, f"prepared-{hashlib.sha256(content).hexdigest()[:16]}")
    storage.make_folder(cache)
    with _locked(f"{local}.lock"):
        if not os.path.exists(local):
            with whole_or_not_at_all(local) as temporary:
                copy_files(folder, manifest, temporary)
                storage.write_bytes(os.path.join(temporary, MANIFEST), content)
    return local


def copy_files(folder: str, manifest: Manifest, local: str) -> None:
    """Copies all files but the manifest to a local folder, and compares their digests with the manifest.

    Raises:
      StorageError: a file is missing or damaged, or cannot be written.
    """
    for name, facts in manifest.files.items():
        source, target = storage.join(folder, name), os.path.join(local, name)
        storage.make_folder(os.path.dirname(target))
        with storage.open_for_writing(target) as copy:
            for chunk in _chunks(source):
                copy.write(chunk)
        if storage.sha256(target) != facts["sha256"]:
            raise damaged(source, "its content is not that of the manifest")


def _chunks(path: str) -> Iterator[bytes]:
    try:
        with storage.open_for_reading(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except storage.file_errors() as error:
        raise damaged(path, storage.reason(error)) from error


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Waits until no other process of this machine is in the body. The file stays; a lock on it ends with a process."""
    with storage.writing(path), open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
