"""Rows that are computed some at a time against all at once."""

import numpy as np
import pytest

from tests.conftest import mirrored_strategy
from trainer.compat import tf
from trainer.modeling import chunks
from trainer.modeling.chunks import map_in_chunks, rows_in_chunks

VALUES = np.arange(14, dtype=np.float32).reshape(7, 2)


@pytest.fixture(params=[1, 2], ids=["plain", "mirrored"])
def variable(request, monkeypatch):
    """7 rows, of which a chunk has 3."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 3 * 2 * 4)
    with mirrored_strategy(request.param).scope() if request.param > 1 else tf.distribute.get_strategy().scope():
        return tf.Variable(VALUES)


@pytest.mark.parametrize("rows_per_chunk", [0, 1, 3, 5, 100])
@pytest.mark.parametrize("num_rows", [0, 1, 5, 6])
def test_the_size_of_a_chunk_changes_nothing_and_is_not_exceeded(num_rows, rows_per_chunk):
    numbers, factors = np.arange(num_rows * 4, dtype=np.float32).reshape(num_rows, 4), np.arange(num_rows)
    largest = []

    def multiply(numbers, factors):
        largest.append(len(numbers))
        return numbers[:, :2] * tf.cast(factors, tf.float32)[:, tf.newaxis]

    found = map_in_chunks(multiply, [numbers, factors], rows_per_chunk=rows_per_chunk)
    np.testing.assert_array_equal(found, numbers[:, :2] * factors[:, np.newaxis])
    assert max(largest) <= max(rows_per_chunk, 1)


def test_the_chunks_of_a_variable_are_its_rows_in_order(variable):
    rows, values = zip(*rows_in_chunks(variable), strict=True)
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(7))
    np.testing.assert_array_equal(np.concatenate(values), VALUES)
    assert [len(part) for part in values] == [3, 3, 1]
