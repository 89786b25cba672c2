"""The score is the dot product of the towers' vectors."""

import numpy as np
import pytest

from trainer.compat import keras, tf
from trainer.features import FeatureSpec
from trainer.modeling.two_tower import TwoTowerModel
from trainer.schema import ITEMS, QUERY

QUERIES = np.array([[9, 9], [1, 2], [-1, 3]], np.float32)
CANDIDATES = np.array([[8, 8], [1, 0], [0, 1], [2, -1]], np.float32)
FEATURES = {QUERY: tf.constant([2, 1]), ITEMS: tf.constant([[1, 2, 3], [3, 3, 0]])}
SCORES = [[-1, 3, -5], [0, 0, 24]]


def build(**arguments):
    return TwoTowerModel(**{"num_queries": 3, "num_items": 4, "embedding_size": 2, **arguments})


def scores_of_all(model, queries):
    vectors = model.query_vectors({QUERY: tf.constant(queries)})
    return tf.matmul(vectors, model.candidate_vectors(tf.range(model.num_items)), transpose_b=True)


@pytest.fixture
def planted():
    model = build()
    model.set_weights([QUERIES, CANDIDATES])
    return model


def test_scores_are_dot_products_of_the_embeddings(planted):
    np.testing.assert_array_equal(planted(FEATURES), SCORES)


def test_scores_compile_to_the_same_and_have_a_static_shape(planted):
    compiled = tf.function(planted.call, jit_compile=True)
    np.testing.assert_array_equal(compiled(FEATURES), SCORES)
    assert compiled.get_concrete_function(FEATURES).output_shapes == [2, 3]


def test_vectors_give_the_scores_of_the_whole_catalogue(planted):
    np.testing.assert_array_equal(scores_of_all(planted, [2, 1]), [[16, -1, 3, -5], [24, 1, 2, 0]])


def test_hidden_layers_transform_the_embeddings():
    """Query tower: relu(e·W + b)·V + c. The candidate tower has weights of its own: it negates."""
    model = build(hidden_sizes=[3])
    w, b = np.array([[1, 0, -1], [0, 1, 0]], np.float32), np.array([0, -1, 0], np.float32)
    v, c = np.array([[1, 0], [0, 2], [5, 5]], np.float32), np.array([0, 10], np.float32)
    identity = np.eye(2, 3, dtype=np.float32)
    none = [np.zeros(3, np.float32), np.zeros(2, np.float32)]
    positive = np.abs(CANDIDATES)
    model.set_weights([QUERIES, w, b, v, c, positive, identity, none[0], -identity.T, none[1]])
    # (1, 2) → relu(1, 1, -1) → (1, 12), and (-1, 3) → relu(-1, 2, 1) → (5, 19); the last layer is linear.
    expected = -np.array([[5, 19], [1, 12]]) @ positive.T
    np.testing.assert_array_equal(scores_of_all(model, [2, 1]), expected)
    np.testing.assert_array_equal(model(FEATURES), np.take_along_axis(expected, FEATURES[ITEMS].numpy(), axis=1))


@pytest.mark.parametrize("hidden_sizes", [(), (5,)])
@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_initial_weights_are_determined_by_the_seed(hidden_sizes, seed):
    weights = build(hidden_sizes=hidden_sizes, seed=seed).get_weights()
    with tf.distribute.MirroredStrategy(tf.config.list_logical_devices("CPU")[:2]).scope():
        mirrored = build(hidden_sizes=hidden_sizes, seed=seed).get_weights()
    other = build(hidden_sizes=hidden_sizes, seed=seed - 1 if seed else 1).get_weights()
    for array, same, different in zip(weights, mirrored, other, strict=True):
        np.testing.assert_array_equal(array, same)
        if array.any():  # Biases start at zero whatever the seed.
            assert not np.isin(array, different).any()


def test_initial_weights_are_those_of_plain_keras_layers():
    """So a run has the same numbers as with the first version, which was built of these layers."""

    def keras_tower(num_indices, seed):
        embedding = keras.layers.Embedding(num_indices, 2, keras.initializers.RandomUniform(-0.05, 0.05, seed=seed))
        embedding.build(None)
        kernels = [keras.initializers.GlorotUniform(seed=seed + 1 + i)(s) for i, s in enumerate([(2, 5), (5, 2)])]
        return [embedding.embeddings.numpy(), kernels[0].numpy(), np.zeros(5), kernels[1].numpy(), np.zeros(2)]

    expected = [*keras_tower(3, 7000), *keras_tower(4, 7500)]
    for array, same in zip(build(hidden_sizes=[5], seed=7).get_weights(), expected, strict=True):
        np.testing.assert_array_equal(array, same)


def test_no_two_tables_start_alike():
    query, candidate = build(num_queries=4).get_weights()
    assert not np.isin(query, candidate).any()
    # Glorot's limits differ, so shapes are alike but numbers would be multiples of each other.
    kernels = [weight for weight in build(hidden_sizes=[2, 2]).get_weights() if weight.shape == (2, 2)]
    correlations = np.corrcoef([kernel.ravel() for kernel in kernels])
    assert np.abs(np.triu(correlations, 1)).max() < 0.99


def test_the_gradient_of_a_mean_reaches_only_the_rows_used(planted):
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(planted(FEATURES))
    query, candidate = planted.update_gradients(tape.gradient(mean, planted.trainable_variables), allow_sparse=False)
    # Query 2 met items 1, 2 and 3; query 1 met item 3 twice and item 0 once; of each score the mean takes 1/6.
    sums = [[0, 0], 2 * CANDIDATES[3] + CANDIDATES[0], CANDIDATES[1] + CANDIDATES[2] + CANDIDATES[3]]
    np.testing.assert_allclose(query, np.array(sums) / 6, rtol=1e-6)
    sums = [QUERIES[1], QUERIES[2], QUERIES[2], QUERIES[2] + 2 * QUERIES[1]]
    np.testing.assert_allclose(candidate, np.array(sums) / 6, rtol=1e-6)
    only_query_2 = {QUERY: FEATURES[QUERY][:1], ITEMS: FEATURES[ITEMS][:1, :2]}
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(planted(only_query_2))
    _, candidate = planted.update_gradients(tape.gradient(mean, planted.trainable_variables), allow_sparse=False)
    assert candidate.numpy().any(axis=1).tolist() == [False, True, True, False]


def test_gradients_of_tables_become_dense_and_the_others_stay():
    model = build(hidden_sizes=[3])
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(model(FEATURES))
    gradients = tape.gradient(mean, model.trainable_variables)
    dense = model.update_gradients(gradients, allow_sparse=False)
    tables = [table.embeddings.name for table in model.tables.values()]
    pairs = list(zip(gradients, model.trainable_variables, strict=True))
    assert [variable.name for gradient, variable in pairs if isinstance(gradient, tf.IndexedSlices)] == tables
    for gradient, variable in zip(dense, model.trainable_variables, strict=True):
        assert isinstance(gradient, tf.Tensor) and gradient.shape == variable.shape


def test_gradients_become_dense_on_every_replica():
    """Sparse gradients would reach the optimizer unnoticed, and be slow."""
    strategy = tf.distribute.MirroredStrategy(tf.config.list_logical_devices("CPU")[:2])
    with strategy.scope():
        model = build()
    kinds = []

    @tf.function
    def gradients_on_replicas():
        def on_replica():
            with tf.GradientTape() as tape:
                mean = tf.reduce_mean(model(FEATURES))
            gradients = model.update_gradients(tape.gradient(mean, model.trainable_variables), allow_sparse=False)
            kinds.extend(isinstance(gradient, tf.Tensor) for gradient in gradients)
            return gradients

        return strategy.run(on_replica)

    gradients_on_replicas()
    assert kinds == [True] * 4


def test_all_weights_are_copied_from_a_model_of_any_strategy():
    category = FeatureSpec("category", "item", num_values=3)
    options = {
        "hidden_sizes": [3], "features": [category], "item_features": {"category": np.array([0, 1, 2, 1])}
    }  # fmt: skip
    with tf.distribute.MirroredStrategy(tf.config.list_logical_devices("CPU")[:2]).scope():
        source = build(seed=1, **options)
    target = build(seed=2, **{**options, "item_features": {"category": np.array([0, 0, 0, 0])}})
    assert not np.allclose(target(FEATURES), source(FEATURES))
    target.assign_from(source)
    for array, same in zip(target.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(array, same)


def train(model, items, labels, *, steps=150):
    """Softmax loss over one list of items for query 1."""
    optimizer = keras.optimizers.legacy.Adam(0.05)
    features = {QUERY: tf.constant([1]), ITEMS: tf.constant([items])}

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.nn.softmax_cross_entropy_with_logits(labels / labels.sum(), model(features)[0])
        gradients = model.update_gradients(tape.gradient(loss, model.trainable_variables), allow_sparse=False)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    for _ in range(steps):
        step()


@pytest.mark.parametrize(
    ("options", "encode"),
    [
        ({"num_values": 3}, lambda is_good: 1 + is_good),
        ({"num_values": 3, "shape": (2,)}, lambda is_good: np.stack([1 + is_good, 0 * is_good], axis=1)),
        ({"dtype": "float32"}, lambda is_good: 2.0 * is_good - 1),
        ({"dtype": "float32", "shape": (2,)}, lambda is_good: np.stack([is_good, 1 - is_good], axis=1)),
    ],
    ids=["index", "indices", "number", "numbers"],
)
def test_a_model_learns_from_one_more_item_feature(options, encode):
    """Items 1 to 10 are trained on. Items 11 to 20 are ranked right by the feature that they share with those."""
    spec, is_good = FeatureSpec("feature", "item", **options), np.arange(21) % 2
    model = build(
        num_items=21, embedding_size=4, hidden_sizes=[8], features=[spec], item_features={"feature": encode(is_good)}
    )
    assert ("feature" in model.tables) == spec.is_categorical
    train(model, list(range(1, 11)), is_good[1:11].astype(np.float32))
    scores = scores_of_all(model, [1]).numpy()[0, 11:]
    assert scores[is_good[11:] == 1].min() > scores[is_good[11:] == 0].max()

    without = build(num_items=21, embedding_size=4, hidden_sizes=[8])
    train(without, list(range(1, 11)), is_good[1:11].astype(np.float32))
    scores = scores_of_all(without, [1]).numpy()[0, 11:]
    assert scores[is_good[11:] == 1].min() < scores[is_good[11:] == 0].max()


def test_a_query_feature_comes_with_the_batch():
    model = build(features=[FeatureSpec("age", "query", dtype="float32")])
    model.query_tower.encoders[1].dense.set_weights([np.array([[10, 100]], np.float32)])
    model.query_tower.tables[QUERY].embeddings.assign(QUERIES)
    vectors = model.query_vectors({QUERY: tf.constant([2, 1]), "age": tf.constant([0.5, -1.0])})
    np.testing.assert_array_equal(vectors, [[-1 + 5, 3 + 50], [1 - 10, 2 - 100]])


def test_features_that_no_tower_can_use_are_refused():
    category = FeatureSpec("category", "item", num_values=3)
    with pytest.raises(ValueError, match=r"'category' are missing.*\(4,\)"):
        build(features=[category])
    with pytest.raises(ValueError, match=r"'category' have the shape \(3,\).*\(4,\)"):
        build(features=[category], item_features={"category": np.zeros(3, np.int32)})


def test_features_of_entries_add_to_the_score_where_they_are_known():
    specs = [FeatureSpec("position", "example", num_values=4), FeatureSpec("price", "example", dtype="float32")]
    model = build(features=specs)
    model.query_tower.tables[QUERY].embeddings.assign(QUERIES)
    model.candidate_tower.tables[ITEMS].embeddings.assign(CANDIDATES)
    model.tables["position"].embeddings.assign([[0], [100], [200], [300]])
    model.example_tower.encoders[1].dense.set_weights([np.array([[10]], np.float32)])
    known = {
        "position": tf.constant([[1, 2, 3], [3, 1, 0]]),
        "price": tf.constant([[0.5, 0.0, -1.0], [0.0, 0.0, 2.0]]),
    }
    expected = np.add(SCORES, [[105, 200, 290], [300, 100, 20]])
    in_loss = model.list_scores(model.query_vectors(FEATURES), FEATURES[ITEMS], known)
    np.testing.assert_array_equal(in_loss, expected)
    labels = {"labels": tf.zeros([2, 3])}
    assert model.evaluation_lists(FEATURES | known | labels).examples.keys() == known.keys()
    np.testing.assert_array_equal(model(FEATURES | known), SCORES)
    assert model.query_features == [QUERY]


def cosine_model():
    model = build(similarity="cosine", scale=5.0, item_bias=True)
    model.query_tower.tables[QUERY].embeddings.assign(QUERIES)
    model.candidate_tower.tables[ITEMS].embeddings.assign(CANDIDATES)
    model.item_bias.embeddings.assign([[0], [1], [2], [3]])
    return model


def test_a_score_is_a_scaled_cosine_plus_the_bias_of_the_item():
    model = cosine_model()
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (QUERIES, CANDIDATES)]
    expected = 5 * unit[0] @ unit[1].T + np.arange(4)
    np.testing.assert_allclose(scores_of_all(model, [1, 2]), expected[[1, 2]], rtol=1e-6)
    np.testing.assert_allclose(
        model(FEATURES), np.take_along_axis(expected[[2, 1]], FEATURES[ITEMS].numpy(), axis=1), rtol=1e-6
    )


@pytest.mark.parametrize("item_bias", [False, True])
def test_the_prior_of_an_item_is_added_to_its_score_and_is_not_trained(item_bias):
    prior: np.ndarray = np.array([0, -1, 0.5, 2], np.float32)
    model, plain = build(item_bias=item_bias, item_prior=prior), build(item_bias=item_bias)
    np.testing.assert_allclose(scores_of_all(model, [1, 2]), scores_of_all(plain, [1, 2]) + prior, rtol=1e-5)
    assert len(model.trainable_variables) == len(plain.trainable_variables)


def test_the_vectors_of_the_catalogue_are_those_of_all_items():
    features = [FeatureSpec("category", "item", num_values=3)]
    model = build(
        features=features,
        item_features={"category": np.array([0, 1, 2, 1], np.int32)},
        hidden_sizes=[3],
        item_bias=True,
        item_prior=np.arange(4, dtype=np.float32),
    )
    np.testing.assert_allclose(model.catalogue_vectors(), model.candidate_vectors(tf.range(4)), rtol=1e-6)


def test_a_query_is_the_sum_of_its_embedding_its_features_and_its_history():
    history = {"power": 0.0, "highest_rating": 5.0, "leave_out_targets": False}
    model = build(features=[FeatureSpec("age", "query", dtype="float32")], history=history)
    model.query_tower.tables[QUERY].embeddings.assign(QUERIES)
    model.query_tower.encoders[1].dense.set_weights([np.array([[10, 100]], np.float32)])
    model.tables["history"].embeddings.assign(CANDIDATES)
    features = {
        QUERY: tf.constant([2, 1]),
        "age": tf.constant([0.5, 0.0]),
        "history": tf.constant([[1, 3], [0, 0]]),
        "history_ratings": tf.constant([[5.0, 2.5], [0.0, 0.0]]),
    }
    np.testing.assert_allclose(model.query_vectors(features), [[-1 + 5 + 1 + 1, 3 + 50 + 0 - 0.5], [1, 2]])
    assert model.query_features == [QUERY, "age", "history", "history_ratings"]
