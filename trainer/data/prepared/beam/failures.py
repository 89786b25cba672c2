"""How an error of a worker reaches the command that waits for the pipeline: as a file beside the data."""

import contextlib
import json
from collections.abc import Iterator

from settings import errors
from settings.errors import UserError
from trainer import storage

FAILURE = "failure.json"


@contextlib.contextmanager
def reporting(folder: str) -> Iterator[None]:
    """Writes down an error in the body that the user can fix, and raises it again, so that the pipeline fails.

    Runners wrap an error in text of their own, or keep only its text. So its class and its message go into a file.

    Args:
      folder: where the data is written.
    """
    try:
        yield
    except UserError as error:
        record = {"kind": type(error).__name__, "message": str(error)}
        with contextlib.suppress(UserError):  # The disk may be full.
            storage.make_folder(folder)
            storage.write_bytes(storage.join(folder, FAILURE), json.dumps(record).encode())
        raise


def reported(folder: str) -> UserError | None:
    """Returns an error that a worker has written down, or None."""
    path = storage.join(folder, FAILURE)
    if not storage.exists(path):
        return None
    record = json.loads(storage.read_bytes(path))
    return getattr(errors, record["kind"])(record["message"])


def forget(folder: str) -> None:
    """Removes what `reporting` has written, if the pipeline has succeeded after all: runners try again."""
    storage.remove(storage.join(folder, FAILURE))
