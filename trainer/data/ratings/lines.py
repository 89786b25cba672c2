"""Reads text files with lines "user item item ...": events without ratings and times.

The words of a line are separated by spaces or tabs. The first is the id of the user, and the others are the ids of the
items. A user may have several lines, and a line may have no items. Blank lines are skipped. The published splits of
LightGCN (https://arxiv.org/abs/2002.02126) and UltraGCN (https://arxiv.org/abs/2110.15114) have this format.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settings.errors import DataError
from trainer import schema
from trainer.data.ratings import files
from trainer.data.ratings.cleaning import Part
from trainer.data.ratings.delimited import BLOCK_BYTES, BYTE_ORDER_MARK


def read(path: str, file: pa.NativeFile) -> Part:
    """Reads one row of schema.USER_ID and schema.ITEM_ID per item of a line, in the order of the file.

    Args:
      path: the name for the file in messages.
      file: the open file, which is closed afterwards.

    Raises:
      DataError: the file is not UTF-8 text, or no line has an item.
    """
    users, items = [], []
    num_lines = 0
    with files.reading(path), file:
        for block in _whole_lines(file):
            users_of_block, items_of_block = _rows(path, block, num_lines)
            users.append(users_of_block)
            items.append(items_of_block)
            num_lines += block.count(b"\n")
    rows = pa.table({schema.USER_ID: _joined(users), schema.ITEM_ID: _joined(items)})
    if not rows.num_rows:
        raise DataError(
            f"{path} has no line with a user and an item. A .txt file has lines of words, separated by spaces: the id "
            "of a user and the ids of the user's items. Give a table with columns the ending of its format, such as "
            ".csv."
        )
    return Part(path, rows)


def _joined(chunks: list[pa.DictionaryArray]) -> pa.ChunkedArray:
    return pa.chunked_array(chunks, pa.dictionary(pa.int32(), pa.string()))


def _whole_lines(file: pa.NativeFile) -> Iterator[bytes]:
    """The content of a file in blocks of whole lines, with "\\n" at the end of each line."""
    rest = b""
    is_first = True
    while chunk := file.read(BLOCK_BYTES):
        if is_first:
            chunk = chunk.removeprefix(BYTE_ORDER_MARK)
            is_first = False
        block, end, rest = _with_line_feeds(rest + chunk).rpartition(b"\n")
        if end:
            yield block + end
    if rest:
        yield rest


def _with_line_feeds(block: bytes) -> bytes:
    # At the end of a block, "\r" may be the first half of "\r\n", and counts as an end of its own only if it is alone.
    if b"\r" not in block:
        return block
    held_back = b"\r" if block.endswith(b"\r") else b""
    return block[: len(block) - len(held_back)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held_back


def _rows(path: str, block: bytes, num_lines_before: int) -> tuple[pa.DictionaryArray, pa.DictionaryArray]:
    """The users and the items of the rows of a block."""
    try:
        block.decode()
    except UnicodeDecodeError as error:
        line = 1 + num_lines_before + block.count(b"\n", 0, error.start)
        raise DataError(
            f"{path} has bytes in line {line} that are not UTF-8 text. Convert the file, for instance with `iconv -f "
            "ISO-8859-1 -t UTF-8`."
        ) from error
    lines = pc.split_pattern(pa.array([block], pa.binary()).cast(pa.string()), "\n").flatten()
    words = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(lines))
    # Each line has at least one word. The word of a blank line is empty, and no items follow it.
    starts = words.offsets.to_numpy()
    ids = words.flatten()
    is_item: np.ndarray = np.ones(len(ids), bool)
    is_item[starts[:-1]] = False
    user_of_row = np.repeat(starts[:-1], np.diff(starts) - 1)
    return ids.take(pa.array(user_of_row)).dictionary_encode(), ids.filter(pa.array(is_item)).dictionary_encode()
