"""The losses for sampled negatives against their papers' formulas, target by target."""

import numpy as np
import pytest

from trainer.compat import tf
from trainer.training import losses as losses_lib

PAD = -1.0
# Several targets, one with padding within, a padding row, one without negatives, one without targets.
LABELS = np.array(
    [[1, 2, 0, 0, 0], [1, PAD, 0, PAD, 0], [PAD] * 5, [1, 1, PAD, PAD, PAD], [0, 0, 0, PAD, PAD]], np.float32
)
SCORES = np.random.default_rng(0).uniform(-1, 1, LABELS.shape).astype(np.float32)
NUM_NEGATIVES, NUM_ITEMS = 20, 102
KEYS = ["gbce_loss", "cosine_contrastive_loss"]


def build(key, **options):
    options = {"num_negatives": NUM_NEGATIVES, "num_items": NUM_ITEMS} | options
    return losses_lib.build_loss(key, global_batch_size=8, **options)


def evaluate(loss_fn, labels=LABELS, scores=SCORES):
    """The loss of each list, and the gradient of their sum."""
    scores = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        losses = loss_fn(tf.constant(labels), scores, 3, tf.range(len(labels)))
    return losses.numpy(), tape.gradient(losses, scores).numpy()


def gbce(calibration):
    def loss(target, negatives):
        rate = NUM_NEGATIVES / 100
        power = rate * (calibration * (1 - 1 / rate) + 1 / rate)
        chance = 1 / (1 + np.exp(-target))
        chances = 1 / (1 + np.exp(-negatives))
        return -(np.log(chance**power) + np.sum(np.log(1 - chances))) / (len(negatives) + 1)

    return loss


def cosine_contrastive(margin, negative_weight):
    def loss(target, negatives):
        excess = np.maximum(0, negatives - margin)
        return (1 - target) + (negative_weight * np.mean(excess) if len(negatives) else 0)

    return loss


@pytest.mark.parametrize(
    ("key", "options", "formula"),
    [
        ("gbce_loss", {"calibration": 0.0}, gbce(0.0)),
        ("gbce_loss", {"calibration": 0.75}, gbce(0.75)),
        ("gbce_loss", {"calibration": 1.0}, gbce(1.0)),
        ("cosine_contrastive_loss", {"margin": 0.3, "negative_weight": 150.0}, cosine_contrastive(0.3, 150.0)),
        ("cosine_contrastive_loss", {"margin": -1.0, "negative_weight": 1.0}, cosine_contrastive(-1.0, 1.0)),
    ],
)
def test_a_list_has_the_sum_of_its_targets_losses(key, options, formula):
    losses, _ = evaluate(build(key, **options))
    for row, (labels, scores) in enumerate(zip(LABELS, SCORES.astype(np.float64), strict=True)):
        negatives = scores[labels == 0]
        expected = sum(labels[j] * formula(scores[j], negatives) for j in np.flatnonzero(labels > 0))
        assert losses[row] == pytest.approx(expected, rel=1e-5)
    assert losses[2] == losses[4] == 0


@pytest.mark.parametrize("key", KEYS)
def test_padding_changes_nothing(key):
    losses, gradient = evaluate(build(key))
    assert np.all(np.isfinite(gradient)) and np.any(gradient[0] != 0)
    assert np.all(gradient[LABELS == PAD] == 0)
    for wild in (1e9, -1e9, np.inf, np.nan):
        again, gradient_again = evaluate(build(key), scores=np.where(LABELS == PAD, np.float32(wild), SCORES))
        np.testing.assert_array_equal(again, losses)
        np.testing.assert_array_equal(gradient_again, gradient)
    more = evaluate(
        build(key),
        np.pad(LABELS, ((0, 0), (2, 3)), constant_values=PAD),
        np.pad(SCORES, ((0, 0), (2, 3)), constant_values=7.0),
    )
    np.testing.assert_allclose(more[0], losses, rtol=1e-6)
    np.testing.assert_allclose(more[1][:, 2:-3], gradient, rtol=1e-6)


def test_full_calibration_finds_the_probabilities_of_the_catalogue():
    """With t = 1, σ(s) converges to the probability that the item is the target. With t = 0, it is overestimated."""
    probability, rate = 0.01, 0.2
    # Over many steps an item is the target with probability p, and else a negative with the sampling rate.
    labels = np.array([[1.0, 0.0]], np.float32)
    for calibration, expected in (
        (1.0, probability),
        (0.0, probability / (probability + (1 - probability) * rate)),
    ):
        loss_fn = build("gbce_loss", calibration=calibration)
        logit = np.log(expected / (1 - expected))
        _, gradient = evaluate(loss_fn, labels, np.full([1, 2], logit, np.float32))
        assert probability * gradient[0, 0] == pytest.approx(-(1 - probability) * rate * gradient[0, 1], rel=1e-4)


def test_more_draws_than_items_are_a_full_sample():
    losses = [evaluate(build("gbce_loss", num_negatives=1000, calibration=t))[0] for t in (0.0, 1.0)]
    np.testing.assert_array_equal(*losses)


@pytest.mark.parametrize("missing", ["num_negatives", "num_items"])
def test_gbce_needs_negatives(missing):
    with pytest.raises(ValueError, match=f"needs sampled negatives: .*{missing}=0"):
        build("gbce_loss", **{missing: 0})


@pytest.mark.parametrize("key", KEYS)
def test_large_scores_are_exact_in_half_precision_and_under_xla(key):
    loss_fn = build(key)
    scores = tf.constant(100.0 * SCORES, tf.bfloat16)
    compiled = tf.function(lambda scores: loss_fn(LABELS, scores, 0, tf.range(len(LABELS))), jit_compile=True)
    expected, _ = evaluate(loss_fn, scores=tf.cast(scores, tf.float32).numpy())
    assert np.all(np.isfinite(expected))
    np.testing.assert_allclose(compiled(scores), expected, rtol=1e-5)
