"""The causal transformer: what an output depends on, and that it can learn an order."""

import numpy as np
import pytest

from trainer.compat import keras, tf
from trainer.modeling.randomness import Draws
from trainer.modeling.transformer import CausalTransformer

BATCH_SIZE, LENGTH, SIZE = 4, 6, 8
LENGTHS = np.array([6, 3, 1, 0])
MASK = np.arange(LENGTH) < LENGTHS[:, np.newaxis]
VECTORS = np.random.default_rng(0).normal(0, 1, [BATCH_SIZE, LENGTH, SIZE]).astype(np.float32)
DRAWS = Draws(seed=1, step=2, rows=tf.range(BATCH_SIZE))


def build(*, num_layers=2, num_heads=2, max_length=LENGTH, dropout=0.0, seed=3, positions_seed=0):
    """A transformer in which no weight has the value of its start, such as the zeros of a bias."""
    transformer = CausalTransformer(
        SIZE, num_layers=num_layers, num_heads=num_heads, max_length=max_length, dropout=dropout, seed=seed
    )
    rng = np.random.default_rng(positions_seed)
    for variable in transformer.trainable_variables:
        variable.assign_add(rng.normal(0, 0.3, variable.shape))
    return transformer


def reference(transformer, vectors):
    """NumPy's outputs float64 [length, size] of one history without padding."""
    weights = {variable.name: variable.numpy().astype(np.float64) for variable in transformer.trainable_variables}
    weights = {name.split(":")[0].removeprefix("transformer/"): value for name, value in weights.items()}

    def dense(name, values):
        return values @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def norm(name, values):
        centered = values - values.mean(axis=-1, keepdims=True)
        scaled = centered / np.sqrt(np.mean(centered**2, axis=-1, keepdims=True) + 1e-6)
        return scaled * weights[f"{name}/gamma"] + weights[f"{name}/beta"]

    hidden = vectors * np.sqrt(SIZE) + weights["positions"][: len(vectors)]
    for layer in range(2):
        prefix = f"layer_{layer}/"
        queries, keys, values = np.split(
            dense(f"{prefix}query_key_value", norm(f"{prefix}attention_norm", hidden)), 3, -1
        )
        attended = np.zeros_like(hidden)
        for head in (slice(0, SIZE // 2), slice(SIZE // 2, SIZE)):
            for t in range(len(vectors)):
                logits = keys[: t + 1, head] @ queries[t, head] / np.sqrt(SIZE // 2)
                shares = np.exp(logits - logits.max())
                attended[t, head] = shares @ values[: t + 1, head] / shares.sum()
        hidden = hidden + dense(f"{prefix}attention_output", attended)
        inner = np.maximum(dense(f"{prefix}feed_forward", norm(f"{prefix}feed_forward_norm", hidden)), 0)
        hidden = hidden + dense(f"{prefix}feed_forward_output", inner)
    return norm("norm", hidden)


def test_outputs_are_those_of_the_paper():
    transformer = build()
    outputs = transformer(VECTORS, MASK).numpy()
    for row, length in enumerate(LENGTHS):
        if length:
            expected = reference(transformer, VECTORS[row, :length].astype(np.float64))
            np.testing.assert_allclose(outputs[row, :length], expected, rtol=1e-4, atol=1e-4)
    assert np.all(outputs[~MASK] == 0)


def test_an_output_depends_on_its_item_and_all_earlier_ones_and_on_no_later_one():
    transformer = build()
    full = np.ones_like(MASK)
    outputs = transformer(VECTORS, full).numpy()
    for t in range(LENGTH):
        changed = VECTORS.copy()
        changed[:, t] += np.random.default_rng(t).normal(0, 1, [BATCH_SIZE, SIZE])
        again = transformer(changed, full).numpy()
        np.testing.assert_array_equal(again[:, :t], outputs[:, :t])
        assert np.all(np.any(np.abs(again[:, t:] - outputs[:, t:]) > 1e-4, axis=-1))


@pytest.mark.parametrize("padding", [0.0, 1e9, np.nan])
def test_padding_changes_nothing(padding):
    transformer = build()
    expected = transformer(VECTORS, MASK)
    with tf.GradientTape() as tape:
        vectors = tf.constant(np.where(MASK[..., np.newaxis], VECTORS, np.float32(padding)))
        tape.watch(vectors)
        outputs = transformer(vectors, MASK)
        total = tf.reduce_sum(outputs * np.arange(SIZE))
    np.testing.assert_array_equal(outputs, expected)
    gradients = tape.gradient(total, [vectors, *transformer.trainable_variables])
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    assert np.all(gradients[0].numpy()[~MASK] == 0)


@pytest.mark.parametrize("draws", [None, DRAWS])
def test_a_prefix_has_the_outputs_that_it_has_within_a_longer_history(draws):
    """So a model is served with what it saw in training, also with the dropout of a step."""
    transformer = build(dropout=0.5)
    full = np.ones_like(MASK)
    outputs = transformer(VECTORS, full, draws).numpy()
    for length in range(1, LENGTH):
        prefix = transformer(VECTORS[:, :length], full[:, :length], draws)
        np.testing.assert_allclose(prefix, outputs[:, :length], rtol=1e-5, atol=1e-5)
        padded = transformer(VECTORS, np.arange(LENGTH) < np.full([BATCH_SIZE, 1], length), draws)
        np.testing.assert_allclose(padded[:, :length], outputs[:, :length], rtol=1e-5, atol=1e-5)


def test_dropout_depends_on_the_seed_the_step_and_the_row_only():
    transformer = build(dropout=0.3)
    outputs = transformer(VECTORS, MASK, DRAWS).numpy()
    part = [1, 0]
    draws = Draws(seed=1, step=2, rows=tf.constant(part))
    np.testing.assert_allclose(transformer(VECTORS[part], MASK[part], draws), outputs[part], rtol=1e-5, atol=1e-5)
    for other in (
        Draws(seed=2, step=2, rows=DRAWS.rows),
        Draws(seed=1, step=3, rows=DRAWS.rows),
        Draws(seed=1, step=2, rows=DRAWS.rows + 9),
        None,
    ):
        assert not np.any(np.all(np.isclose(transformer(VECTORS, MASK, other)[:3, 0], outputs[:3, 0]), axis=-1))
    np.testing.assert_array_equal(build()(VECTORS, MASK, DRAWS), build()(VECTORS, MASK))


def test_dropout_drops_that_fraction_and_keeps_the_expectation(monkeypatch):
    """In a transformer whose layers add nothing and whose last normalization is left out, the input is what is left."""
    transformer = build(dropout=0.25, max_length=50)
    for variable in transformer.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    monkeypatch.setattr(transformer, "_norm", tf.identity)
    ones = tf.ones([200, 50, SIZE]) / SIZE**0.5
    outputs = transformer(ones, tf.ones([200, 50], tf.bool), Draws(seed=0, step=0, rows=tf.range(200))).numpy()
    dropped = outputs == 0
    np.testing.assert_allclose(outputs[~dropped], 1 / 0.75, rtol=1e-5)
    assert abs(dropped.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / dropped.size)


def test_each_dropout_has_numbers_of_its_own(monkeypatch):
    streams = []

    def uniform(seed, step, rows, indices, *, stream):
        streams.append(stream)
        return tf.ones([BATCH_SIZE, indices.shape[1]])

    monkeypatch.setattr("trainer.modeling.transformer.uniform", uniform)
    build(dropout=0.5, num_layers=3)(VECTORS, MASK, DRAWS)
    assert len(streams) == len(set(streams)) == 7


@pytest.mark.parametrize("draws", [None, DRAWS])
def test_xla_computes_the_same(draws):
    transformer = build(dropout=0.4)
    compiled = tf.function(lambda vectors: transformer(vectors, MASK, draws), jit_compile=True)
    np.testing.assert_allclose(compiled(VECTORS), transformer(VECTORS, MASK, draws), rtol=1e-4, atol=1e-4)


def test_a_served_history_may_have_any_length_up_to_the_largest():
    transformer = build()
    served = tf.function(
        lambda vectors, mask: transformer(vectors, mask),
        input_signature=[tf.TensorSpec([None, None, SIZE]), tf.TensorSpec([None, None], tf.bool)],
    )
    for length in (1, 4, LENGTH):
        expected = transformer(VECTORS[:, :length], MASK[:, :length])
        np.testing.assert_allclose(served(VECTORS[:, :length], MASK[:, :length]), expected, rtol=1e-5, atol=1e-5)
    longer = np.zeros([1, LENGTH + 1, SIZE], np.float32), np.ones([1, LENGTH + 1], bool)
    with pytest.raises(ValueError, match="A history of 7 items is longer than the max_length=6"):
        transformer(*longer)
    with pytest.raises(tf.errors.InvalidArgumentError):
        served(*longer)


def test_weights_depend_on_the_seed_and_differ_between_layers():
    def weights(seed):
        transformer = CausalTransformer(SIZE, num_layers=2, num_heads=2, max_length=4, dropout=0.0, seed=seed)
        return [variable.numpy() for variable in transformer.trainable_variables if variable.shape.rank == 2]

    first, second, other = weights(1), weights(1), weights(2)
    assert len(first) == 1 + 2 * 4
    for one, two, three in zip(first, second, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, three)
    assert len({value.tobytes() for value in first}) == len(first)


def test_heads_must_divide_the_size():
    with pytest.raises(ValueError, match="embedding_size=8 cannot have num_heads=3"):
        build(num_heads=3)


def test_it_learns_a_chain_of_second_order():
    """The next item is the sum of the last two, modulo 5. The last item alone says nothing about it."""
    rng = np.random.default_rng(0)
    items = rng.integers(0, 5, [64, 9])
    for t in range(2, 9):
        items[:, t] = (items[:, t - 1] + items[:, t - 2]) % 5
    embeddings = tf.Variable(rng.normal(0, 0.1, [5, 16]), dtype=tf.float32)
    transformer = CausalTransformer(16, num_layers=2, num_heads=2, max_length=8, dropout=0.0, seed=0)
    optimizer = keras.optimizers.Adam(0.01)
    variables = [embeddings, *transformer.trainable_variables]
    optimizer.build(variables)
    mask = tf.ones([64, 8], tf.bool)

    def logits():
        return tf.matmul(transformer(tf.gather(embeddings, items[:, :-1]), mask), embeddings, transpose_b=True)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(items[:, 2:], logits()[:, 1:])
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip([tf.convert_to_tensor(g) for g in gradients], variables, strict=True))

    for _ in range(150):
        step()
    is_right = np.argmax(logits(), axis=-1) == items[:, 1:]
    assert is_right[:, 1:].mean() > 0.95
