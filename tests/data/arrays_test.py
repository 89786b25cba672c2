"""Parts in several arrays are read as the array that they make together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.arrays import ShardedArray, join_parts
from trainer.data.queries import padded

# The sizes of the lists in each part. A part can be empty, and so can a list.
PARTS = st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=5)


@given(PARTS, st.sampled_from([(), (2,)]), st.integers(1, 6), st.data())
def test_lists_in_any_part_are_those_of_the_whole(sizes_of_parts, shape, width, data):
    num_entries = sum(map(sum, sizes_of_parts))
    whole = np.arange(num_entries * int(np.prod(shape, dtype=int)), dtype=np.float32).reshape(num_entries, *shape)
    bounds = np.cumsum([sum(sizes) for sizes in sizes_of_parts])
    joined = join_parts(np.split(whole, bounds[:-1]))
    assert (len(joined), joined.shape, joined.dtype, joined.ndim) == (
        num_entries,
        whole.shape,
        np.float32,
        whole.ndim,
    )
    np.testing.assert_array_equal(np.asarray(joined), whole)
    assert np.asarray(joined, np.float64).dtype == np.float64
    begin, end = (data.draw(st.integers(0, num_entries + 1)) for _ in range(2))
    np.testing.assert_array_equal(joined[begin:end], whole[begin:end])

    sizes = np.array([size for sizes in sizes_of_parts for size in sizes], np.int64)
    starts = np.cumsum(sizes) - sizes
    rows = np.array(data.draw(st.lists(st.integers(0, max(len(sizes) - 1, 0)), max_size=8 if len(sizes) else 0)), int)
    column = np.arange(width)
    entries, padding = starts[rows][:, np.newaxis] + column, column >= sizes[rows][:, np.newaxis]
    np.testing.assert_array_equal(padded(joined, entries, padding, -1), padded(whole, entries, padding, -1))


def test_only_the_part_that_is_asked_for_is_read():
    class Unread(np.ndarray):
        def take(self, *_, **__):
            pytest.fail("A part was read that no row is in.")

    array = ShardedArray([np.arange(3), np.arange(3, 5), np.arange(5, 9).view(Unread)])
    assert array.take(np.array([[3, 4], [0, 1]])).tolist() == [[3, 4], [0, 1]]


def test_one_part_is_not_wrapped():
    parts = [np.zeros(0), np.arange(3.0), np.zeros(0)]
    assert join_parts(parts) is parts[1] and join_parts(parts[:1]) is parts[0]
