"""Digests of long lists of values, without a copy of them in memory."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

_VALUES_PER_CHUNK = 1 << 16


def digest_of_lists(lists: Sequence[pa.Array | pa.ChunkedArray | Sequence[Any]]) -> str:
    """The SHA-256 digest, in hexadecimal, of the JSON of a list of lists.

    JSON marks the end of each value. Joined ids could be equal for different ids.

    Args:
      lists: columns, or lists of values that JSON knows.
    """
    sha = hashlib.sha256(b"[")
    for number, values in enumerate(lists):
        sha.update(b", [" if number else b"[")
        for begin in range(0, len(values), _VALUES_PER_CHUNK):
            chunk = values[begin : begin + _VALUES_PER_CHUNK]
            text = json.dumps(chunk if isinstance(chunk, Sequence) else chunk.to_pylist())
            sha.update(f"{', ' if begin else ''}{text[1:-1]}".encode())
        sha.update(b"]")
    sha.update(b"]")
    return sha.hexdigest()
