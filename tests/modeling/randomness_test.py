"""Statistical tests of the hash, with bounds that a good generator misses once in about a million times."""

import numpy as np
import pytest

from trainer.compat import tf
from trainer.modeling.randomness import uniform

ROWS, INDICES = np.arange(512, dtype=np.int32), np.arange(400, dtype=np.int32)[np.newaxis]
# The bound of |a standard normal| in about one of a million draws.
SIGMAS = 5.0


def draw(seed=1, step=0, rows=ROWS, indices=INDICES, stream=0):
    return uniform(seed, step, rows, indices, stream=stream).numpy().astype(np.float64)


def assert_uncorrelated(first, second):
    first, second = np.ravel(first), np.ravel(second)
    correlation = np.corrcoef(first, second)[0, 1]
    assert abs(correlation) < SIGMAS / np.sqrt(len(first))


def chi_square(counts, expected):
    """The statistic, and the bound that it may reach."""
    freedom = counts.size - 1
    return np.sum((counts - expected) ** 2 / expected), freedom + SIGMAS * np.sqrt(2 * freedom)


@pytest.mark.parametrize(
    "coordinates",
    [
        {"seed": 0},
        {"seed": 2**31 - 1},
        {"step": 10**6},
        {"step": 2**40 + 1},
        {"stream": 3},
        {"indices": INDICES * 2**20},
    ],
    ids=["seed 0", "large seed", "late step", "very late step", "stream", "spread indices"],
)
def test_numbers_are_uniform(coordinates):
    numbers = draw(**coordinates)
    assert numbers.min() >= 0 and numbers.max() < 1
    size = numbers.size
    assert abs(numbers.mean() - 0.5) < SIGMAS * np.sqrt(1 / 12 / size)
    assert abs(numbers.var() - 1 / 12) < SIGMAS * np.sqrt(1 / 180 / size)
    for bits in (numbers, numbers * 2**12 % 1):  # The high bits, and the low ones.
        statistic, bound = chi_square(np.bincount((bits * 1024).astype(int).ravel(), minlength=1024), size / 1024)
        assert statistic < bound
    # The means of rows and of columns vary as those of independent numbers do.
    for axis in (0, 1):
        means = numbers.mean(axis=axis)
        scaled = (means - 0.5) * np.sqrt(12 * numbers.shape[axis])
        assert abs(np.mean(scaled**2) - 1) < SIGMAS * np.sqrt(2 / len(scaled))


def test_neighbours_are_independent():
    numbers = draw()
    for lag in (1, 2, 3, 4, 7, 8, 16, 64, 256):
        assert_uncorrelated(numbers[:, :-lag], numbers[:, lag:])
        assert_uncorrelated(numbers[:-lag], numbers[lag:])
        assert_uncorrelated(numbers[:-lag, :-lag], numbers[lag:, lag:])
        assert_uncorrelated(numbers[:-lag, lag:], numbers[lag:, :-lag])
    # Pairs of neighbours fill the square evenly.
    for first, second in ((numbers[:, ::2], numbers[:, 1::2]), (numbers[::2], numbers[1::2])):
        cells = (first * 16).astype(int) * 16 + (second * 16).astype(int)
        statistic, bound = chi_square(np.bincount(cells.ravel(), minlength=256), cells.size / 256)
        assert statistic < bound


@pytest.mark.parametrize("other", [1, 2, 3, 256, 2**16, 2**31, 2**32, 2**32 + 1])
@pytest.mark.parametrize("coordinate", ["seed", "step", "stream"])
def test_other_coordinates_give_independent_numbers(coordinate, other):
    first = draw(seed=0, step=0, stream=0)
    if coordinate == "stream" and other >= 2**31:
        pytest.skip("There are never as many streams.")
    second = draw(**({"seed": 0, "step": 0, "stream": 0} | {coordinate: other}))
    assert not np.any(np.all(first == second, axis=1))
    assert_uncorrelated(first, second)
    assert_uncorrelated(first[1:], second[:-1])
    assert_uncorrelated(first[:, 1:], second[:, :-1])


def test_seed_step_stream_and_row_cannot_be_exchanged():
    ones = [{"seed": 1}, {"step": 1}, {"stream": 1}, {"rows": ROWS + 1}, {"indices": INDICES + 1}]
    zeros = {"seed": 0, "step": 0, "stream": 0, "rows": ROWS, "indices": INDICES}
    numbers = [draw(**(zeros | one)) for one in ones]
    for i, first in enumerate(numbers):
        for second in numbers[:i]:
            assert np.mean(first == second) < 1e-3


def test_rows_of_many_steps_do_not_share_numbers():
    """Keys of 32 bits would give about 30 pairs of these rows the same numbers."""
    rows = np.arange(2**18, dtype=np.int32)
    pairs = np.concatenate([draw(step=step, rows=rows, indices=np.arange(2)[np.newaxis]) for step in (0, 1)])
    assert len(np.unique(pairs @ [2.0**48, 2.0**24])) == len(pairs)


@pytest.mark.parametrize("step", [3, 2**33 + 3])
def test_xla_draws_the_same_numbers(step):
    compiled = tf.function(lambda step, rows, indices: uniform(9, step, rows, indices, stream=2), jit_compile=True)
    indices = np.random.default_rng(0).integers(0, 2**31, [len(ROWS), 7]).astype(np.int32)
    found = compiled(tf.constant(step, tf.int64), ROWS, indices)
    np.testing.assert_array_equal(found, uniform(9, step, ROWS, indices, stream=2))


def test_the_numbers_of_a_row_do_not_depend_on_the_batch():
    indices = np.random.default_rng(0).integers(0, 1000, [8, 5]).astype(np.int32)
    rows = np.array([9, 4, 7, 0, 1, 2, 3, 30], np.int32)
    whole = draw(rows=rows, indices=indices)
    part = [6, 1, 3]
    np.testing.assert_array_equal(draw(rows=rows[part], indices=indices[part]), whole[part])
    for row in range(8):
        np.testing.assert_array_equal(
            draw(rows=rows[row : row + 1], indices=indices[row : row + 1, ::-1]), whole[row : row + 1, ::-1]
        )


def test_equal_indices_have_equal_numbers():
    numbers = draw(indices=np.array([[5, 6, 5]], np.int32))
    np.testing.assert_array_equal(numbers[:, 0], numbers[:, 2])
    assert np.all(numbers[:, 0] != numbers[:, 1])


def test_the_numbers_are_those_of_every_version():
    """A run that a later version resumes must draw the same."""
    numbers = draw(seed=5, step=2**33 + 1, rows=np.array([0, 700]), indices=np.array([[3, 4]]), stream=6)
    np.testing.assert_array_equal(numbers * 2**24, [[5081687, 14412877], [4579426, 9005380]])
