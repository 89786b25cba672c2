"""Rows that are computed some at a time against all at once."""

import numpy as np
import pytest

from trainer.compat import tf
from trainer.modeling.chunks import map_in_chunks


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
