import numpy as np
import pytest

from tests.conftest import mirrored_strategy
from trainer import schema
from trainer.compat import tf
from trainer.modeling import embedding
from trainer.modeling.two_tower import TwoTowerModel
from trainer.training import losses, optimizers, steps
from trainer.training.objectives import Objective, rank_rated

NAMES = ("sgd", "adagrad", "rowwise_adagrad", "lazy_adam")
NUM_ROWS, SIZE = 6, 3
RATE, DECAY = 0.25, 0.1

K, BATCH_SIZE, LIST_SIZE, NUM_QUERIES, NUM_ITEMS = 3, 4, 5, 40, 30


def build(name, tables, others=(), *, rate=RATE, **options):
    schedule = optimizers.build_schedule("constant", learning_rate=rate, total_steps=9, warmup_steps=0)
    optimizer = optimizers.build_optimizer(name, schedule, tables=tables, **options)
    optimizer.build([*tables, *others])
    return optimizer


def by_hand(name, table, gradients, *, weight_decay=0.0):
    """Applies dense gradients [num_steps, num_rows, size] to a table, row by row."""
    table = table.astype(np.float64)
    first, second = np.zeros_like(table), np.zeros_like(table)
    squares = np.full_like(table, 0.1)
    for step, gradient in enumerate(gradients, 1):
        for row, g in enumerate(gradient):
            if name == "sgd":
                table[row] -= RATE * g
            elif name == "adagrad":
                squares[row] += g**2
                table[row] -= RATE * g / np.sqrt(squares[row] + 1e-7)
            elif name == "rowwise_adagrad":
                squares[row] += np.mean(g**2)
                table[row] -= RATE * g / np.sqrt(squares[row] + 1e-7)
            elif g.any():
                first[row] += 0.1 * (g - first[row])
                second[row] += 0.001 * (g**2 - second[row])
                correction = np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                change = correction * first[row] / (np.sqrt(second[row]) + 1e-7)
                table[row] -= RATE * (change + weight_decay * table[row])
    return table


def planted_steps():
    """Sparse gradients with repeated rows, one row in both steps and one in neither, and the same ones dense."""
    rng = np.random.default_rng(3)
    rows = np.array([[4, 1, 4, 0, 4], [4, 2, 2, 5, 5]])
    values = rng.normal(size=[2, 5, SIZE]).astype(np.float32)
    values[0, 3] = 0.0  # Row 0 was looked up without an effect, as padding is.
    dense = np.zeros([2, NUM_ROWS, SIZE])
    for step in range(2):
        np.add.at(dense[step], rows[step], values[step])
    return rows, values, dense


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NAMES), ("lazy_adam", {"weight_decay": DECAY})])
def test_sparse_and_dense_gradients_give_what_the_formula_gives(name, options, jit_compile):
    initial = np.random.default_rng(1).normal(size=[NUM_ROWS, SIZE]).astype(np.float32)
    rows, values, dense = planted_steps()
    expected = by_hand(name, initial, dense, **options)
    assert np.abs(expected - initial)[[1, 2, 4, 5]].min() > 1e-4
    for is_sparse in (True, False):
        table = tf.Variable(initial)
        optimizer = build(name, [table], **options)

        @tf.function(jit_compile=jit_compile)
        def apply(indices, gradient, table=table, optimizer=optimizer, is_sparse=is_sparse):
            optimizer.apply_gradients([(tf.IndexedSlices(gradient, indices) if is_sparse else gradient, table)])

        for step in range(2):
            apply(
                tf.constant(rows[step], tf.int32), tf.constant(values[step] if is_sparse else dense[step], tf.float32)
            )
        np.testing.assert_allclose(table, expected, atol=1e-5, err_msg=f"sparse: {is_sparse}")
        np.testing.assert_array_equal(table[3], initial[3])
        if not options:
            np.testing.assert_array_equal(table[0], initial[0])


@pytest.mark.parametrize("clip_norm", [0.5, 100.0])
def test_the_global_norm_counts_each_row_once(clip_norm):
    """The norm is that of the summed gradient of a row, with that of a dense variable beside it."""
    rows, values, dense = planted_steps()
    other_gradient = np.array([3.0, 4.0], np.float32)
    table, other = tf.Variable(tf.zeros([NUM_ROWS, SIZE])), tf.Variable([0.0, 0.0])
    optimizer = build("sgd", [table], [other], rate=1.0, clip_norm=clip_norm)
    optimizer.apply_gradients(
        [(tf.IndexedSlices(tf.constant(values[0]), tf.constant(rows[0])), table), (tf.constant(other_gradient), other)]
    )
    factor = min(1.0, clip_norm / np.sqrt((dense[0] ** 2).sum() + 25))
    np.testing.assert_allclose(table, -factor * dense[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(other, -factor * other_gradient, rtol=1e-5)


@pytest.mark.parametrize("name", ["lazy_adam", "rowwise_adagrad"])
def test_other_variables_are_updated_by_the_plain_optimizer(name):
    """A layer's weights have no rows in this sense: Adam moves them on also where the gradient is 0."""
    plain = {"lazy_adam": "adam", "rowwise_adagrad": "adagrad"}[name]
    gradients = [[[1.0, -2.0], [0.5, 3.0]], [[0.0, 0.0], [1.0, 0.0]]]
    results = []
    for optimizer_name in (name, plain):
        table, weights = tf.Variable(tf.zeros([2, 2])), tf.Variable(tf.ones([2, 2]))
        optimizer = build(optimizer_name, [table], [weights], weight_decay=0.5)
        for gradient in gradients:
            optimizer.apply_gradients([(tf.constant(gradient), weights)])
        results.append(weights.numpy())
    np.testing.assert_array_equal(*results)


def test_row_wise_adagrad_keeps_one_number_a_row_and_sgd_none():
    table = tf.Variable(tf.zeros([NUM_ROWS, SIZE]))
    shapes = {name: [v.shape.as_list() for v in build(name, [table]).variables] for name in NAMES}
    assert [shape for shape in shapes["sgd"] if shape] == []
    assert [shape for shape in shapes["rowwise_adagrad"] if shape] == [[NUM_ROWS, 1]]
    assert [shape for shape in shapes["adagrad"] if shape] == [[NUM_ROWS, SIZE]]
    assert [shape for shape in shapes["lazy_adam"] if shape] == 2 * [[NUM_ROWS, SIZE]]


def test_the_positions_of_rows_are_in_no_checkpoint(tmp_path):
    table = tf.Variable(tf.zeros([NUM_ROWS, SIZE]))
    checkpoint = tf.train.Checkpoint(optimizer=build("adagrad", [table]))
    saved = [shape for _, shape in tf.train.list_variables(checkpoint.write(str(tmp_path / "checkpoint")))]
    assert [NUM_ROWS] not in saved and [NUM_ROWS, SIZE] in saved


@pytest.fixture(scope="module")
def superbatch():
    rng = np.random.default_rng(0)
    return {
        schema.QUERY: tf.constant(rng.integers(1, NUM_QUERIES, [K, BATCH_SIZE]), tf.int32),
        schema.ITEMS: tf.constant(rng.integers(1, 9, [K, BATCH_SIZE, LIST_SIZE]), tf.int32),  # With repetitions.
        schema.LABELS: tf.constant(rng.integers(0, 6, [K, BATCH_SIZE, LIST_SIZE]), tf.float32),
        schema.WEIGHTS: tf.ones([K, BATCH_SIZE]),
        schema.ROWS: tf.tile(tf.range(BATCH_SIZE)[tf.newaxis], [K, 1]),
        schema.NUM_LISTS: tf.fill([K], float(BATCH_SIZE)),
    }


def train(strategy, superbatch, name, options):
    """Takes K steps. Returns the weights, and whether the gradients of the tables of the model were sparse."""
    with strategy.scope():
        model = TwoTowerModel(
            num_queries=NUM_QUERIES, num_items=NUM_ITEMS, embedding_size=4, item_bias=True, hidden_sizes=(3,), seed=5
        )
        optimizer = build(name, model.table_variables, model.dense_variables, **options)
    found = []
    convert = model.update_gradients

    def update_gradients(gradients, *, allow_sparse):
        converted = convert(gradients, allow_sparse=allow_sparse)
        found[:] = [isinstance(gradient, tf.IndexedSlices) for gradient in converted]
        return converted

    model.update_gradients = update_gradients
    # Softmax does not change with a bias of all scores. Adam would make a step of the rounding error of its gradient.
    loss_fn = losses.build_loss("mean_squared_loss", global_batch_size=BATCH_SIZE)
    objective = Objective(model, rank_rated(model, loss_fn))
    train_call = steps.build_train_call(strategy, model, optimizer, objective, [])
    size = BATCH_SIZE // strategy.num_replicas_in_sync

    def share(name):
        feature = superbatch[name]
        if name == schema.NUM_LISTS or strategy.num_replicas_in_sync == 1:
            return lambda context: feature
        return lambda context: feature[:, size * context.replica_id_in_sync_group :][:, :size]

    batch = {
        name: strategy.experimental_distribute_values_from_function(share(name))
        if strategy.num_replicas_in_sync > 1
        else superbatch[name]
        for name in superbatch
    }
    train_call(batch, tf.constant(0, tf.int64), tf.constant(K))
    return model.get_weights(), sum(found)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"momentum": 0.9}),
        ("adagrad", {"clip_norm": 0.02}),
        ("adagrad", {"weight_decay": 0.3}),
        ("rowwise_adagrad", {}),
        ("lazy_adam", {"weight_decay": DECAY, "clip_norm": 0.02}),
    ],
)
def test_sparse_updates_train_as_dense_ones_do_on_any_number_of_replicas(superbatch, name, options, monkeypatch):
    default = tf.distribute.get_strategy()
    monkeypatch.setattr(embedding, "_ROWS_PER_INDEX", 10**9)
    expected, num_sparse = train(default, superbatch, name, options)
    assert num_sparse == 0
    monkeypatch.setattr(embedding, "_ROWS_PER_INDEX", 0)
    for strategy in (default, mirrored_strategy(2)):
        found, num_sparse = train(strategy, superbatch, name, options)
        assert num_sparse == 3  # The tables of queries, of items and of the bias.
        for part, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(part, other, rtol=1e-5, atol=1e-5)


def test_the_plain_optimizers_of_keras_take_dense_gradients_only(superbatch, monkeypatch):
    monkeypatch.setattr(embedding, "_ROWS_PER_INDEX", 0)
    assert train(tf.distribute.get_strategy(), superbatch, "adam", {})[1] == 0


def test_a_table_is_updated_sparsely_from_two_rows_an_index_up():
    tables = {num_rows: embedding.EmbeddingTable(num_rows, SIZE, seed=0) for num_rows in (8, 9)}
    for num_rows, table in tables.items():
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(table.lookup([1, 2, 3, 3]))
        gradient = tape.gradient(total, table.embeddings)
        is_sparse = isinstance(table.gradient_of_rows(gradient, allow_sparse=True), tf.IndexedSlices)
        assert is_sparse == (num_rows > 8)
        assert isinstance(table.gradient_of_rows(gradient, allow_sparse=False), tf.Tensor)
