"""A batch is a pure function of (seed, step), whoever asks for it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import schema
from trainer.compat import tf
from trainer.data.lists import QueryLists
from trainer.modeling import input_pipeline

LIST_SIZE = 4


def lists_of_sizes(sizes, list_size=LIST_SIZE) -> QueryLists:
    """List i is of query i + 1; its items are 100·i + 1, 100·i + 2, ... and its labels their positions."""
    sizes = np.asarray(sizes)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    position = np.arange(sizes.sum()) - starts
    return QueryLists(
        queries=np.arange(1, len(sizes) + 1, dtype=np.int32),
        offsets=np.append(0, np.cumsum(sizes)).astype(np.int64),
        items=(100 * np.repeat(np.arange(len(sizes)), sizes) + position + 1).astype(np.int32),
        labels=position.astype(np.float32),
        list_size=list_size,
    )


def train_batches(
    lists, call_starts, *, seed=3, batch_size=4, steps_per_execution=2, pipelines=1, pipeline=0, replicas=1
):
    """Superbatches of one pipeline, an element for each call and local replica."""
    context = tf.distribute.InputContext(pipelines, pipeline, replicas)
    dataset = input_pipeline.build_train_dataset(
        lists,
        np.asarray(call_starts),
        global_batch_size=batch_size,
        steps_per_execution=steps_per_execution,
        seed=seed,
        context=context,
    )
    return list(dataset.take(len(call_starts) * (replicas // pipelines)).as_numpy_iterator())


def queries_by_step(lists, num_steps, **options):
    """int32 [num_steps, batch_size]."""
    return np.concatenate([call[schema.QUERY] for call in train_batches(lists, range(0, num_steps, 2), **options)])


@settings(deadline=None, max_examples=15)
@given(num_lists=st.integers(1, 30), batch_size=st.integers(1, 8), seed=st.integers(0, 2**31 - 1))
def test_every_list_once_an_epoch_and_padding_rows_weigh_nothing(num_lists, batch_size, seed):
    lists = lists_of_sizes([2] * num_lists)
    epoch_steps = input_pipeline.steps_per_epoch(num_lists, batch_size)
    calls = train_batches(lists, range(2 * epoch_steps), batch_size=batch_size, seed=seed, steps_per_execution=1)
    for epoch in (calls[:epoch_steps], calls[epoch_steps:]):
        queries = np.concatenate([call[schema.QUERY].ravel() for call in epoch])
        weights = np.concatenate([call[schema.WEIGHTS].ravel() for call in epoch])
        assert sorted(queries[weights == 1]) == list(range(1, num_lists + 1))
        assert (queries[weights == 0] == schema.UNKNOWN_INDEX).all()
        assert sum(call[schema.NUM_LISTS][0] for call in epoch) == num_lists
        for call in epoch:
            assert call[schema.NUM_LISTS][0] == call[schema.WEIGHTS].sum()
            assert (call[schema.LABELS][call[schema.WEIGHTS] == 0] == schema.PADDING_LABEL).all()


def test_order_differs_by_epoch_and_by_seed():
    lists = lists_of_sizes([1] * 40)
    queries = queries_by_step(lists, 20)
    assert not np.array_equal(queries[:10], queries[10:])
    assert not np.array_equal(queries, queries_by_step(lists, 20, seed=4))
    np.testing.assert_array_equal(queries, queries_by_step(lists, 20))


def test_a_call_that_starts_anywhere_sees_what_the_uninterrupted_run_sees():
    lists = lists_of_sizes([1] * 23)
    uninterrupted = queries_by_step(lists, 30)
    (resumed,) = train_batches(lists, [17], steps_per_execution=5)
    np.testing.assert_array_equal(resumed[schema.QUERY], uninterrupted[17:22])


@pytest.mark.parametrize(("pipelines", "replicas"), [(1, 2), (1, 4), (2, 2), (2, 4)])
def test_replicas_and_workers_share_the_same_global_batch(pipelines, replicas):
    lists = lists_of_sizes([1, 3, 2] * 5)
    (whole,) = train_batches(lists, [1])
    parts = [
        part
        for pipeline in range(pipelines)
        for part in train_batches(lists, [1], pipelines=pipelines, pipeline=pipeline, replicas=replicas)
    ]
    for feature in (schema.QUERY, schema.ITEMS, schema.LABELS, schema.WEIGHTS):
        np.testing.assert_array_equal(np.concatenate([part[feature] for part in parts], axis=1), whole[feature])
    np.testing.assert_array_equal(np.concatenate([part[schema.ROWS] for part in parts], axis=1), [[0, 1, 2, 3]] * 2)
    for part in parts:
        np.testing.assert_array_equal(part[schema.NUM_LISTS], whole[schema.NUM_LISTS])


def test_lists_are_padded_to_list_size():
    lists = lists_of_sizes([2, 4, 1])
    dataset = input_pipeline.build_eval_dataset(lists, global_batch_size=2, context=tf.distribute.InputContext())
    first, second = dataset.take(2).as_numpy_iterator()
    np.testing.assert_array_equal(first[schema.QUERY], [1, 2])
    np.testing.assert_array_equal(first[schema.ITEMS], [[1, 2, 0, 0], [101, 102, 103, 104]])
    np.testing.assert_array_equal(first[schema.LABELS], [[0, 1, -1, -1], [0, 1, 2, 3]])
    np.testing.assert_array_equal(second[schema.QUERY], [3, 0])
    np.testing.assert_array_equal(second[schema.LABELS], [[0, -1, -1, -1], [-1] * 4])
    np.testing.assert_array_equal(second[schema.WEIGHTS], [1, 0])
    assert second[schema.NUM_LISTS] == 1


def test_shapes_are_static():
    lists = lists_of_sizes([2, 4, 1])
    for dataset, leading in (
        (
            input_pipeline.build_train_dataset(
                lists,
                np.array([0]),
                global_batch_size=2,
                steps_per_execution=3,
                seed=0,
                context=tf.distribute.InputContext(),
            ),
            [3, 2],
        ),
        (
            input_pipeline.build_eval_dataset(lists, global_batch_size=2, context=tf.distribute.InputContext()),
            [2],
        ),
    ):
        spec = dataset.element_spec
        assert spec[schema.ITEMS].shape == spec[schema.LABELS].shape == [*leading, LIST_SIZE]
        assert spec[schema.QUERY].shape == spec[schema.WEIGHTS].shape == leading


class _Counted:
    """Lists that record which rows are gathered."""

    def __init__(self, lists):
        self._lists, self.rows = lists, []
        self.num_lists, self.list_size = lists.num_lists, lists.list_size

    def gather(self, rows):
        self.rows.extend(np.asarray(rows).tolist())
        return self._lists.gather(rows)


@pytest.mark.promise(4, "a late resume", "starts gather nothing of earlier steps")
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9])
def test_a_resume_gathers_no_list_of_the_steps_before_it(fraction):
    """So a late resume takes no longer than an early one."""
    num_lists, batch_size = 4000, 4
    epoch_steps = num_lists // batch_size
    lists = _Counted(lists_of_sizes([1] * num_lists))
    first_step = int(fraction * epoch_steps)
    train_batches(lists, range(first_step, epoch_steps, 2), batch_size=batch_size)[0]
    gathered = set(lists.rows)
    of_the_rest = queries_by_step(lists_of_sizes([1] * num_lists), epoch_steps, batch_size=batch_size)[first_step:]
    # What is fetched ahead belongs to the calls that follow: the plan starts again after its last call.
    assert gathered == set((of_the_rest.ravel() - 1).tolist())
