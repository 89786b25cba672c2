"""The losses that are defined for sampled negatives, by key. They are not part of TF-Ranking.

Both papers give the loss of one target with its own negatives. A list here may have several targets, which share the
negatives. Its loss is the sum of the losses of its targets, each times its label, as softmax_loss sums over targets.
Negatives are the entries with label 0. Padding has no effect, also on the number of negatives.
"""

from collections.abc import Callable

from trainer.compat import tf

ListLossFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Labels [batch_size, list_size], negative where padded, and scores of the same shape → losses [batch_size]."""


def build_gbce_loss(*, num_negatives: int, num_items: int, calibration: float) -> ListLossFn:
    """Builds the generalized binary cross-entropy of gSASRec (Petrov & Macdonald, RecSys 2023).

    For a target with score s⁺ and k negatives with scores s⁻ it is

        −(log σ(s⁺)^β + Σ log(1 − σ(s⁻))) / (k + 1),    β = α · (t · (1 − 1/α) + 1/α)

    where α is the fraction of the other items that are sampled and t is the calibration. t = 0 gives β = 1, the usual
    cross-entropy, which overestimates the probability of an item if few negatives are sampled. t = 1 corrects this.

    Args:
      num_negatives: the number of negatives that a step draws.
      num_items: the number of item indices, including index 0.
      calibration: t, in [0, 1].

    Raises:
      ValueError: there are no negatives or no items to draw them from.
    """
    if num_negatives < 1 or num_items < 3:
        raise ValueError(
            f"gbce_loss needs sampled negatives: it got num_negatives={num_negatives} of num_items={num_items}."
        )
    # Index 0 is no item, and the target is no negative. Negatives are drawn with replacement, so α could be above 1.
    sampling_rate = min(1.0, num_negatives / (num_items - 2))
    # The formula above without the division by α.
    power = 1.0 - calibration * (1.0 - sampling_rate)

    def loss_fn(labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        label_sum, is_negative, num_real_negatives = _split(labels)
        # softplus(x) = −log σ(−x).
        of_targets = tf.reduce_sum(tf.maximum(labels, 0.0) * tf.nn.softplus(-scores), axis=1)
        of_negatives = tf.reduce_sum(is_negative * tf.nn.softplus(scores), axis=1)
        return (power * of_targets + label_sum * of_negatives) / (num_real_negatives + 1.0)

    return loss_fn


def build_cosine_contrastive_loss(*, margin: float, negative_weight: float) -> ListLossFn:
    """Builds the loss of SimpleX (Mao et al., CIKM 2021), for scores that are cosines.

    For a target with score s⁺ and k negatives with scores s⁻ it is

        (1 − s⁺) + negative_weight / k · Σ max(0, s⁻ − margin)

    Args:
      margin: negatives with a score below it have no loss.
      negative_weight: the weight of all negatives together.
    """

    def loss_fn(labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        label_sum, is_negative, num_real_negatives = _split(labels)
        of_targets = tf.reduce_sum(tf.maximum(labels, 0.0) * (1.0 - scores), axis=1)
        of_negatives = tf.reduce_sum(is_negative * tf.nn.relu(scores - margin), axis=1)
        return of_targets + negative_weight * label_sum * of_negatives / tf.maximum(num_real_negatives, 1.0)

    return loss_fn


def _split(labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The sum of the labels [batch_size], 1 for negatives [batch_size, list_size], and their number [batch_size]."""
    is_negative = tf.cast(labels == 0, tf.float32)
    return tf.reduce_sum(tf.maximum(labels, 0.0), axis=1), is_negative, tf.reduce_sum(is_negative, axis=1)
