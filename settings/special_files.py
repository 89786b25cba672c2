"""Which files are none: pipes, sockets and devices, which can keep a reader waiting for ever."""

import os
import stat

from settings.errors import StorageError

_KINDS = {
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def check_is_no_special_file(path: str) -> None:
    """Checks that a local path is a file, a folder or nothing, or a link to one of these.

    Raises:
      StorageError: it is a named pipe, a socket or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # Whoever opens the path gets the error, and says it.
    for is_kind, name in _KINDS.items():
        if is_kind(mode):
            raise StorageError(f"{path} is {name}, and only files and folders are read. Copy its content to a file.")
