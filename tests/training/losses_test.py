import functools

import numpy as np
import pytest

from trainer.compat import stateless_random, tf, tfr
from trainer.training import losses as losses_lib

GLOBAL_BATCH_SIZE = 8
build_loss = functools.partial(losses_lib.build_loss, global_batch_size=GLOBAL_BATCH_SIZE)

KEYS = sorted(tfr.keras.losses.RankingLossKey.all_keys())
POINTWISE = ["mean_squared_loss", "ordinal_loss", "sigmoid_cross_entropy_loss"]
RANDOM = ["coupled_rankdistil_loss", "gumbel_approx_ndcg_loss", "yeti_logistic_loss"]
LAMBDA_WEIGHTED = [
    ("pairwise_logistic_loss", "label_diff", 0),
    ("pairwise_hinge_loss", "dcg", 2),
    ("pairwise_soft_zero_one_loss", "ndcg", 0),
    ("pairwise_logistic_loss", "ndcg_v2", 2),
    ("pairwise_mse_loss", "yeti_dcg", 0),
    ("pairwise_logistic_loss", "precision", 2),
    ("softmax_loss", "dcg", 0),
    ("softmax_loss", "ndcg", 0),
    ("list_mle_loss", "list_mle", 0),
]
ALL = [(key, "", 0) for key in KEYS] + LAMBDA_WEIGHTED
DETERMINISTIC = [case for case in ALL if case[0] not in RANDOM]

PAD = -1.0
# A full list, one with padding within, a padding row row, a short list, one without relevance. No ties of labels,
# which list_mle would break at random, but where nothing is relevant.
LABELS = np.array(
    [
        [3, 0, 1, 5, 2, 4],
        [2, PAD, 0, 1, PAD, 4],
        [PAD, PAD, PAD, PAD, PAD, PAD],
        [0, 1, PAD, PAD, PAD, PAD],
        [0, PAD, PAD, PAD, PAD, PAD],
    ],
    np.float32,
)
SCORES = np.random.default_rng(0).normal(0, 2, LABELS.shape).astype(np.float32)
IS_REAL = LABELS >= 0
PADDING_ROW = 2


def build(case):
    key, lambda_weight, cutoff = case
    return build_loss(key, lambda_weight=lambda_weight, lambda_weight_cutoff=cutoff, seed=7)


def evaluate(loss_fn, labels, scores, step=3):
    """The loss of each list, and the gradient of their sum."""
    scores = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        losses = loss_fn(tf.constant(labels), scores, step, tf.range(len(labels)))
    return losses.numpy(), tf.convert_to_tensor(tape.gradient(losses, scores)).numpy()


# The formulas, each for one list without padding.


def softmax(labels, scores):
    return -np.sum(labels * (scores - np.log(np.sum(np.exp(scores)))))


def mean_squared(labels, scores):
    return np.mean((labels - scores) ** 2)


def sigmoid_cross_entropy(labels, scores):
    chance = 1 / (1 + np.exp(-scores))
    return -np.mean(labels * np.log(chance) + (1 - labels) * np.log(1 - chance))


def ordinal(labels, scores):
    return sigmoid_cross_entropy(1.0 * (labels >= 1), scores)


def over_pairs(pair_loss):
    def loss(labels, scores):
        pairs = [
            pair_loss(scores[i] - scores[j])
            for i in range(len(labels))
            for j in range(len(labels))
            if labels[i] > labels[j]
        ]
        return sum(pairs) / len(labels)

    return loss


def approx_ndcg(labels, scores):
    ranks = np.array([1 + sum(1 / (1 + np.exp(s - scores))) - 0.5 for s in scores])
    gains = 2.0**labels - 1
    ideal = np.sum(np.sort(gains)[::-1] / np.log2(np.arange(len(gains)) + 2))
    return -np.sum(gains / np.log2(ranks + 1)) / ideal if ideal else 0.0


def list_mle(labels, scores):
    scores = scores[np.argsort(-labels)]
    return sum(np.log(np.sum(np.exp(scores[i:]))) - scores[i] for i in range(len(scores)))


FORMULAS = {
    "softmax_loss": softmax,
    "mean_squared_loss": mean_squared,
    "sigmoid_cross_entropy_loss": sigmoid_cross_entropy,
    "ordinal_loss": ordinal,
    "pairwise_logistic_loss": over_pairs(lambda difference: np.log1p(np.exp(-difference))),
    "pairwise_hinge_loss": over_pairs(lambda difference: max(0.0, 1 - difference)),
    "approx_ndcg_loss": approx_ndcg,
    "list_mle_loss": list_mle,
}


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("key", FORMULAS)
def test_a_list_has_the_loss_that_the_formula_gives_its_real_entries(key, temperature):
    if temperature != 1.0 and key in POINTWISE:
        pytest.skip("has no temperature")
    losses, _ = evaluate(build_loss(key, temperature=temperature), LABELS, SCORES)
    for row in range(len(LABELS)):
        if row != PADDING_ROW:
            real = IS_REAL[row]
            scores = SCORES[row, real].astype(np.float64) / temperature
            assert losses[row] == pytest.approx(FORMULAS[key](LABELS[row, real], scores), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("case", DETERMINISTIC, ids=str)
def test_without_padding_the_mean_is_that_of_the_keras_loss(case):
    key, name, cutoff = case
    options = {}
    if name:
        classes = {
            "ndcg_v2": "NDCGLambdaWeightV2",
            "list_mle": "ListMLELambdaWeight",
            "dcg": "DCGLambdaWeight",
        }
        classes |= {"label_diff": "LabelDiffLambdaWeight", "yeti_dcg": "YetiDCGLambdaWeight"}
        classes |= {"ndcg": "NDCGLambdaWeight", "precision": "PrecisionLambdaWeight"}
        weight_class = getattr(tfr.keras.losses, classes[name])
        discount = {"rank_discount_fn": tfr.keras.utils.log2_inverse} if name == "list_mle" else {}
        options["lambda_weight"] = weight_class(topn=cutoff or None, **discount)
    if key.startswith("approx"):
        options["temperature"] = 1.0
    keras_loss = tfr.keras.losses.get(key, **options)
    labels = np.array([[3, 0, 1, 2], [1, 2, 3, 0]], np.float32)
    scores = SCORES[:2, :4]
    expected = keras_loss(labels, scores[:, :, np.newaxis] if key == "ordinal_loss" else scores)
    losses, _ = evaluate(build(case), labels, scores)
    assert losses.mean() == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_wild_scores_of_padding_change_nothing(case):
    loss_fn = build(case)
    losses, gradient = evaluate(loss_fn, LABELS, SCORES)
    assert np.all(np.isfinite(losses)) and np.all(np.isfinite(gradient))
    assert np.any(gradient[IS_REAL] != 0)
    assert np.all(gradient[~IS_REAL] == 0)
    for wild in (1e9, -1e9, np.inf, np.nan):
        again, gradient_again = evaluate(loss_fn, LABELS, np.where(IS_REAL, SCORES, np.float32(wild)))
        np.testing.assert_array_equal(again, losses)
        np.testing.assert_array_equal(gradient_again, gradient)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_a_padding_row_has_no_loss_and_no_gradient(case):
    labels = np.full([2, 30], PAD, np.float32)
    labels[1] = np.arange(30) % 3
    losses, gradient = evaluate(build(case), labels, np.tile(SCORES[:2], 5))
    assert losses[0] == 0 and losses[1] != 0
    assert np.all(gradient[0] == 0)


@pytest.mark.parametrize("case", DETERMINISTIC, ids=str)
def test_more_padding_changes_nothing(case):
    losses, gradient = evaluate(build(case), LABELS, SCORES)
    pad = ((0, 0), (2, 5))
    again, gradient_again = evaluate(
        build(case), np.pad(LABELS, pad, constant_values=PAD), np.pad(SCORES, pad, constant_values=3.0)
    )
    # list_mle takes the loss of padding off a sum in single precision.
    np.testing.assert_allclose(again, losses, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(gradient_again[:, 2:-5], gradient, rtol=1e-4, atol=1e-6)


def test_a_padding_row_has_no_loss_compiled_by_xla_either():
    # There the loss of padding and what is taken off for it differ by rounding.
    labels = tf.fill([3, 30], PAD)
    loss_fn = build_loss("list_mle_loss", lambda_weight="list_mle")
    compiled = tf.function(lambda scores: loss_fn(labels, scores, 0, tf.range(3)), jit_compile=True)
    np.testing.assert_array_equal(compiled(tf.zeros_like(labels)), np.zeros(3))


def test_more_padding_adds_nothing_to_coupled_rankdistil():
    # There is one order of one entry, so its loss is 0 however much padding there is, relevant or not.
    labels = np.array([[2, PAD, PAD, PAD], [0, PAD, PAD, PAD]], np.float32)
    losses, _ = evaluate(build_loss("coupled_rankdistil_loss"), labels, SCORES[:2, :4])
    np.testing.assert_allclose(losses, 0, atol=1e-5)


@pytest.mark.parametrize("key", RANDOM)
def test_without_padding_the_mean_of_a_random_loss_is_that_of_the_keras_loss(key):
    labels, scores = np.array([[3, 0, 1, 2], [1, 2, 3, 0]], np.float32), SCORES[:2, :4]
    options = {"temperature": 1.0} if key.startswith("gumbel") else {}
    keras_loss = tfr.keras.losses.get(key, **options)
    means = []
    for seed, step in ((7, 3), (7, 4), (8, 3)):
        losses, _ = evaluate(build_loss(key, seed=seed), labels, scores, step)
        means.append(losses.mean())
        with stateless_random(seed, step, tf.range(2), GLOBAL_BATCH_SIZE):
            assert means[-1] == pytest.approx(float(keras_loss(labels, scores)), rel=1e-5)
    assert len(set(means)) == 3


@pytest.mark.parametrize("case", [case for case in ALL if case[0] not in POINTWISE], ids=str)
@pytest.mark.parametrize("offset", [-80, 80])
def test_padding_weighs_nothing_wherever_the_scores_lie(case, offset):
    losses, gradient = evaluate(build(case), LABELS, SCORES)
    again, gradient_again = evaluate(build(case), LABELS, SCORES + offset)
    np.testing.assert_allclose(again, losses, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(gradient_again, gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("key", ["softmax_loss", "list_mle_loss"])
def test_padding_does_not_outweigh_the_low_scores_of_a_wide_list(key):
    # Shifted until the highest score is 0, the other two would be at the mercy of padding.
    labels = np.array([[2, 1, 0] + 20 * [PAD]], np.float32)
    scores = np.array([[30, 0, 1] + 20 * [0]], np.float32)
    losses, _ = evaluate(build_loss(key), labels, scores)
    expected = FORMULAS[key](labels[0, :3], scores[0, :3].astype(np.float64))
    assert losses[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("case", DETERMINISTIC, ids=str)
def test_the_order_of_entries_does_not_matter(case):
    order = np.array([4, 1, 5, 0, 3, 2])
    losses, gradient = evaluate(build(case), LABELS, SCORES)
    again, gradient_again = evaluate(build(case), LABELS[:, order], SCORES[:, order])
    np.testing.assert_allclose(again, losses, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient_again, gradient[:, order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("key", KEYS)
def test_xla_compiles_each_loss(key):
    loss_fn = build_loss(key, seed=7)
    compiled = tf.function(lambda labels, scores: loss_fn(labels, scores, 3, tf.range(len(LABELS))), jit_compile=True)
    losses, _ = evaluate(loss_fn, LABELS, SCORES)
    # XLA makes other numbers of the same random bits.
    tolerance = 1.0 if key in RANDOM else 1e-4
    np.testing.assert_allclose(compiled(LABELS, SCORES), losses, rtol=tolerance, atol=tolerance)


def test_half_precision_scores_give_a_single_precision_loss():
    scores = tf.cast(SCORES, tf.bfloat16)
    losses = build_loss("softmax_loss")(tf.constant(LABELS), scores, 0, tf.range(len(LABELS)))
    assert losses.dtype == tf.float32
    expected, _ = evaluate(build_loss("softmax_loss"), LABELS, tf.cast(scores, tf.float32).numpy())
    np.testing.assert_array_equal(losses, expected)


@pytest.mark.parametrize("key", KEYS)
def test_descent_puts_the_relevant_first(key):
    loss_fn, labels = build_loss(key), np.array([[0.0, 1.0, PAD, 0.0]], np.float32)
    scores = np.array([[0.2, 0.0, 9.0, 0.1]], np.float32)
    for step in range(10):
        scores -= 0.3 * evaluate(loss_fn, labels, scores, step)[1]
    assert np.argmax(scores[0, [0, 1, 3]]) == 1
