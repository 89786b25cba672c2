"""A step does the arithmetic it says, and the strategy changes nothing about it."""

import numpy as np
import pytest

from tests.conftest import mirrored_strategy
from tests.modeling.input_pipeline_test import lists_of_sizes
from trainer import schema
from trainer.compat import tf
from trainer.evaluation import metrics
from trainer.modeling import input_pipeline
from trainer.modeling.two_tower import TwoTowerModel
from trainer.training import losses, optimizers, steps
from trainer.training.objectives import Objective, rank_rated

LIST_SIZE = 6
NUM_LISTS = 19
BATCH_SIZE = 4  # 5 steps an epoch, of which the last has one padding row
STEPS_PER_EXECUTION = 3


@pytest.fixture(scope="module")
def lists():
    """Lists of 2 to 6 entries with labels 0, 1, 2, ... of items below 20."""
    planted = lists_of_sizes([2 + i % 5 for i in range(NUM_LISTS)], list_size=LIST_SIZE)
    planted.items[:] = 1 + planted.items * 7 % 19
    return planted


def strategies():
    """By name: the default, and mirrored over 1, 2 and 4 CPU devices."""
    mirrored = {f"mirrored over {number}": mirrored_strategy(number) for number in (1, 2, 4)}
    return {"default": tf.distribute.get_strategy(), **mirrored}


def build(strategy, *, loss_key="softmax_loss", optimizer_name="adagrad"):
    """A small model and the call that trains it."""
    with strategy.scope():
        model = TwoTowerModel(num_queries=NUM_LISTS + 1, num_items=20, embedding_size=4, seed=5)
        schedule = optimizers.build_schedule("constant", learning_rate=0.3, total_steps=100, warmup_steps=0)
        optimizer = optimizers.build_optimizer(optimizer_name, schedule, tables=model.table_variables)
        optimizer.build(model.trainable_variables)
    train_call = steps.build_train_call(
        strategy,
        model,
        optimizer,
        Objective(model, rank_rated(model, losses.build_loss(loss_key, global_batch_size=BATCH_SIZE))),
        metrics.build_metrics(["ndcg", "mrr"], relevance_threshold=2.0),
    )
    return model, train_call


def train(
    strategy,
    lists,
    num_calls,
    *,
    num_steps=STEPS_PER_EXECUTION,
    steps_per_execution=STEPS_PER_EXECUTION,
    first_call=0,
    weights=None,
    **options,
):
    """Trains from call `first_call`. Returns the sums of each call, and the final weights."""
    model, train_call = build(strategy, **options)
    if weights is not None:
        model.set_weights(weights)
    starts = np.arange(first_call, first_call + num_calls) * num_steps
    batches = iter(
        strategy.distribute_datasets_from_function(
            lambda context: input_pipeline.build_train_dataset(
                lists,
                starts,
                global_batch_size=BATCH_SIZE,
                steps_per_execution=steps_per_execution,
                seed=1,
                context=context,
            )
        )
    )
    sums = [
        train_call(next(batches), tf.constant(start, tf.int64), tf.constant(num_steps, tf.int32)).sums.numpy()
        for start in starts
    ]
    return np.stack(sums), model.get_weights()


def test_one_step_is_gradient_descent_on_the_mean_softmax_loss(lists):
    """Against the gradient written out by hand: of the cross-entropy times the sum of labels, over the batch."""
    model = TwoTowerModel(num_queries=NUM_LISTS + 1, num_items=20, embedding_size=4, seed=5)
    users, items = (weights.astype(np.float64) for weights in model.get_weights())
    dataset = input_pipeline.build_train_dataset(
        lists,
        np.array([4]),
        global_batch_size=BATCH_SIZE,
        steps_per_execution=STEPS_PER_EXECUTION,
        seed=1,
        context=tf.distribute.InputContext(),
    )
    batch = {name: feature[0] for name, feature in next(dataset.as_numpy_iterator()).items()}
    assert batch[schema.NUM_LISTS] == 3  # Step 4 is the last of the epoch: one of its four rows is padding.
    user_gradient, item_gradient = np.zeros_like(users), np.zeros_like(items)
    for query, row_items, labels in zip(batch[schema.QUERY], batch[schema.ITEMS], batch[schema.LABELS], strict=True):
        real = labels >= 0
        row_items, labels = row_items[real], labels[real]
        if not len(labels):
            continue
        scores = items[row_items] @ users[query]
        chances = np.exp(scores) / np.exp(scores).sum()
        by_score = (labels.sum() * chances - labels) / 3
        user_gradient[query] += by_score @ items[row_items]
        np.add.at(item_gradient, row_items, by_score[:, None] * users[query])

    optimizer = optimizers.build_optimizer(
        "sgd",
        optimizers.build_schedule("constant", learning_rate=0.3, total_steps=100, warmup_steps=0),
        tables=model.table_variables,
    )
    optimizer.build(model.trainable_variables)
    train_call = steps.build_train_call(
        tf.distribute.get_strategy(),
        model,
        optimizer,
        Objective(model, rank_rated(model, losses.build_loss("softmax_loss", global_batch_size=BATCH_SIZE))),
        [],
    )
    train_call(next(iter(dataset)), tf.constant(4, tf.int64), tf.constant(1))
    trained_users, trained_items = model.get_weights()
    np.testing.assert_allclose(trained_users, users - 0.3 * user_gradient, atol=1e-6)
    np.testing.assert_allclose(trained_items, items - 0.3 * item_gradient, atol=1e-6)


def test_the_strategy_does_not_change_the_loss_curve(lists):
    runs = {name: train(strategy, lists, 4) for name, strategy in strategies().items()}
    expected_sums, expected_weights = runs.pop("default")
    assert expected_sums[-1, 0, 0] < expected_sums[0, 0, 0]
    for name, (sums, weights) in runs.items():
        np.testing.assert_allclose(sums, expected_sums, rtol=1e-4, err_msg=name)
        for part, expected in zip(weights, expected_weights, strict=True):
            np.testing.assert_allclose(part, expected, atol=1e-5, err_msg=name)


def permuted_lists(lists, number):
    """The first lists of the first epoch."""
    dataset = input_pipeline.build_train_dataset(
        lists,
        np.zeros(1, np.int64),
        global_batch_size=number,
        steps_per_execution=1,
        seed=1,
        context=tf.distribute.InputContext(),
    )
    return next(dataset.as_numpy_iterator())[schema.QUERY][0] - 1


def test_a_short_call_takes_only_its_steps(lists):
    """Two calls of 1 step and one call of 2 end with the same weights, bit for bit, and the same sums."""
    strategy = tf.distribute.get_strategy()
    one_by_one, weights_one = train(strategy, lists, 2, num_steps=1)
    together, weights_two = train(strategy, lists, 1, num_steps=2)
    for part, other in zip(weights_one, weights_two, strict=True):
        np.testing.assert_array_equal(part, other)
    np.testing.assert_allclose(one_by_one.sum(axis=0), together[0], rtol=1e-5)
    # Two of the eight lists have no relevant entry, so their MRR is undefined.
    np.testing.assert_array_equal(together[0, :3, 1], [8, 8, 6])
    # The lists have the labels 0, 1, 2, ... , and with equal scores each item has the same share.
    sizes = [np.count_nonzero(labels >= 0) for labels in lists.gather(permuted_lists(lists, 8))[schema.LABELS]]
    equal = sum(size * (size - 1) / 2 * np.log(size) for size in sizes)
    np.testing.assert_allclose(together[0, 3], [together[0, 0, 0], equal], rtol=1e-5)


def test_the_parts_of_a_call_take_each_step_once_and_measure_it(lists):
    """Seven steps are four parts of two, of which the last two overlap. A call of one step ends in the first part.

    The loss has noise, which depends on the number of the step.
    """
    strategy = tf.distribute.get_strategy()
    options = {"steps_per_execution": 7, "loss_key": "gumbel_approx_ndcg_loss"}
    one_by_one, weights_one = train(strategy, lists, 7, num_steps=1, **options)
    together, weights_together = train(strategy, lists, 1, num_steps=7, **options)
    for part, other in zip(weights_one, weights_together, strict=True):
        np.testing.assert_array_equal(part, other)
    np.testing.assert_allclose(one_by_one.sum(axis=0), together[0], rtol=1e-5)


def ancestors(op):
    """All operations that have to end before this one starts."""
    found, new = set(), {op}
    while new:
        new = {of for op in new for of in [*(tensor.op for tensor in op.inputs), *op.control_inputs]} - found
        found |= new
    return found


def test_no_step_waits_for_the_metrics_of_earlier_steps(lists):
    """Or they could not be computed on another core meanwhile."""
    dataset = input_pipeline.build_train_dataset(
        lists,
        np.zeros(1, np.int64),
        global_batch_size=BATCH_SIZE,
        steps_per_execution=STEPS_PER_EXECUTION,
        seed=1,
        context=tf.distribute.InputContext(),
    )
    _, train_call = build(tf.distribute.get_strategy())
    arguments = dataset.element_spec, tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.int32)
    graph = train_call.get_concrete_function(*arguments).graph
    loops, measured = (
        {op for op in graph.get_operations() if op.type == kind}
        for kind in ("StatefulPartitionedCall", "PartitionedCall")
    )
    assert len(loops) == len(measured) == STEPS_PER_EXECUTION
    assert all(ancestors(op) & loops for op in measured)
    assert not any(ancestors(op) & measured for op in loops)


@pytest.mark.long
def test_noise_is_a_function_of_the_step(lists):
    """A run that starts at the second call goes on as the one that took the first call too."""
    options = {"loss_key": "gumbel_approx_ndcg_loss", "optimizer_name": "sgd"}
    strategy = tf.distribute.get_strategy()
    whole, whole_weights = train(strategy, lists, 2, **options)
    _, weights = train(strategy, lists, 1, **options)
    resumed, resumed_weights = train(strategy, lists, 1, first_call=1, weights=weights, **options)
    np.testing.assert_array_equal(resumed[0], whole[1])
    for part, expected in zip(resumed_weights, whole_weights, strict=True):
        np.testing.assert_array_equal(part, expected)
    elsewhere, _ = train(strategy, lists, 1, first_call=3, weights=weights, **options)
    assert not np.array_equal(elsewhere[0], whole[1])


@pytest.mark.long
def test_noise_does_not_depend_on_the_number_of_replicas(lists):
    """Noise belongs to the row of the global batch. Replicas that drew the same noise would train something else."""
    options = {"loss_key": "gumbel_approx_ndcg_loss"}
    expected_sums, expected_weights = train(tf.distribute.get_strategy(), lists, 2, **options)
    sums, weights = train(mirrored_strategy(2), lists, 2, **options)
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-4)
    for part, expected in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-5)
