"""The losses of TensorFlow Ranking by key. They return one value per list, and padding has no effect on it.

The Keras losses of TensorFlow Ranking mark padding with a negative label. In most of them padding still changes the
result. This module corrects that:

- Softmax and similar losses give padding the logit log(1e-10) ≈ −23. Real scores below it would count less than
  padding. Lambda weights place padding 1e-6 below the lowest score, which rounding can remove. All losses except the
  pointwise ones depend only on differences of scores. So each list is shifted until its lowest score is 0. Then padding
  weighs at most 1e-10 of that entry and ranks last.
- Some losses divide by list_size, so entries of a short list count less. Here only real entries are averaged.
- DCG lambda weights are multiplied by list_size. Here they are multiplied by the number of real entries.
- ListMLE and Coupled-RankDistil rank padding too, which adds a constant. It is subtracted.
"""

import math
from collections.abc import Callable
from typing import Any

from settings.trainer_config.loss import LOSSES_WITHOUT_TEMPERATURE, PAIRWISE_LOSSES
from trainer.compat import keras, stateless_random, tf, tfr
from trainer.training.sampled_losses import ListLossFn, build_cosine_contrastive_loss, build_gbce_loss

LossFn = Callable[[tf.Tensor, tf.Tensor, "tf.Tensor | int", tf.Tensor], tf.Tensor]
"""Labels and scores [batch_size, list_size], step, rows [batch_size] → the loss of each list, float32 [batch_size]."""

_Key = tfr.keras.losses.RankingLossKey

_POINTWISE = (_Key.SIGMOID_CROSS_ENTROPY_LOSS, _Key.MEAN_SQUARED_LOSS, _Key.ORDINAL_LOSS)

_PAIR_WEIGHTS = {
    "label_diff": tfr.keras.losses.LabelDiffLambdaWeight,
    "dcg": tfr.keras.losses.DCGLambdaWeight,
    "ndcg": tfr.keras.losses.NDCGLambdaWeight,
    "ndcg_v2": tfr.keras.losses.NDCGLambdaWeightV2,
    "yeti_dcg": tfr.keras.losses.YetiDCGLambdaWeight,
    "precision": tfr.keras.losses.PrecisionLambdaWeight,
}
_DCG_WEIGHTS = ("dcg", "ndcg", "ndcg_v2", "yeti_dcg")

# Their loss is minus a metric.
_NEGATIVE = (_Key.APPROX_MRR_LOSS, _Key.APPROX_NDCG_LOSS, _Key.GUMBEL_APPROX_NDCG_LOSS)

# The discount of DCG. The one of position-aware ListMLE, 2^(list_size − rank) − 1, is 6e29 at rank 1 of 100.
_list_mle_discount = tfr.keras.utils.log2_inverse


def _build_lambda_weight(name: str, cutoff: int) -> Any:
    if not name:
        return None
    if name == "list_mle":
        return tfr.keras.losses.ListMLELambdaWeight(rank_discount_fn=_list_mle_discount)
    return _PAIR_WEIGHTS[name](topn=cutoff or None)


def _separate_padding(key: str, scores: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
    """Returns scores [batch_size, list_size] where padding is 0. Unless the loss is pointwise, no score is below 0."""
    if key not in _POINTWISE:
        lowest = tf.reduce_min(tf.where(is_real, scores, scores.dtype.max), axis=1, keepdims=True)
        scores -= tf.stop_gradient(lowest)
    return tf.where(is_real, scores, 0.0)


def _loss_of_padding(key: str, lambda_weight: str, labels: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
    """Returns what TensorFlow Ranking adds to the loss of each list for its padding: float32 [batch_size].

    The two losses below go through the list by descending label, with padding last. At each rank they add the negative
    log of the probability that this entry is the best of the remaining ones. If all remaining entries have the score of
    padding, that is the log of their number.
    """
    list_size = labels.shape[1]
    num_real = tf.reduce_sum(tf.cast(is_real, tf.float32), axis=1, keepdims=True)
    rank = tf.range(1, list_size + 1, dtype=tf.float32)[tf.newaxis]
    if key == _Key.LIST_MLE_LOSS:
        terms = tf.math.log(list_size + 1 - rank)
        if lambda_weight:
            terms *= _list_mle_discount(rank)
    elif key == _Key.COUPLED_RANKDISTIL_LOSS:
        # This loss also gives ranked entries the score of padding, and skips lists in which nothing is relevant.
        is_counted = tf.reduce_any(labels > 0, axis=1, keepdims=True)
        terms = tf.where(is_counted, math.log(list_size), 0.0) * tf.ones_like(rank)
    else:
        return tf.zeros_like(num_real[:, 0])
    return tf.reduce_sum(tf.where(rank > num_real, terms, 0.0), axis=1)


def _without_padding(list_loss_fn: ListLossFn) -> LossFn:
    """A loss that is not random and sees finite scores."""

    def loss_fn(labels: tf.Tensor, scores: tf.Tensor, step: tf.Tensor | int, rows: tf.Tensor) -> tf.Tensor:
        labels = tf.cast(labels, tf.float32)
        return list_loss_fn(labels, tf.where(labels >= 0, tf.cast(scores, tf.float32), 0.0))

    return loss_fn


def lowest_loss(key: str) -> float:
    """The lowest loss that a list can have: −1 where it is minus a metric, otherwise 0."""
    return -1.0 if key in _NEGATIVE else 0.0


def build_loss(
    key: str,
    *,
    temperature: float = 1.0,
    lambda_weight: str = "",
    lambda_weight_cutoff: int = 0,
    global_batch_size: int,
    seed: int = 0,
    num_negatives: int = 0,
    num_items: int = 0,
    calibration: float = 0.75,
    margin: float = 0.4,
    negative_weight: float = 1.0,
) -> LossFn:
    """Builds the loss of TensorFlow Ranking with this key of RankingLossKey, or one of `sampled_losses`.

    Listwise losses have TensorFlow Ranking's value for each list. For example, softmax_loss is the cross-entropy times
    the sum of the labels. The other losses have a value for each entry. The loss of a list is their sum divided by the
    number of real entries. Without padding, the mean over the batch equals the Keras loss. A list that consists of
    padding has loss 0 and gradient 0.

    Before you choose a loss:

    - sigmoid_cross_entropy_loss expects labels from 0 to 1. With larger labels it has no lower bound.
    - ordinal_loss has one level, because the model gives one score per entry. It is the sigmoid cross-entropy of
      label ≥ 1. The lambda weight `precision` uses the same definition of relevant.
    - list_mle_loss can become infinite if the scores of a list, divided by the temperature, are about 60 apart.
    - approx_*, pairwise_* and yeti_* need memory for batch_size × list_size² values.

    Args:
      key: One of `tfr.keras.losses.RankingLossKey.all_keys()`, gbce_loss or cosine_contrastive_loss. The last two need
        lists with sampled negatives, and have no temperature and no lambda weight.
      temperature: Scores are divided by it. TensorFlow Ranking's own default is 0.1 for the approx_* and
        gumbel_approx_* losses, and 1 for the others.
      lambda_weight: "" for none, or label_diff, dcg, ndcg, ndcg_v2, yeti_dcg or precision with pairwise_*
        losses, dcg or ndcg with softmax_loss, list_mle with list_mle_loss (the discount of DCG by rank).
        yeti_logistic_loss always has yeti_dcg.
      lambda_weight_cutoff: The lambda weight counts down to this rank; 0 for all ranks.
      global_batch_size: The number of lists of a step, over all replicas.
      seed: The noise of the gumbel, yeti and rankdistil losses, and the order of ties, depend on the seed, the step
        and the row of a list in the global batch, and on nothing else.
      num_negatives: The number of sampled negatives, for gbce_loss.
      num_items: The number of item indices, including index 0, for gbce_loss.
      calibration: See `sampled_losses.build_gbce_loss`.
      margin: See `sampled_losses.build_cosine_contrastive_loss`.
      negative_weight: See `sampled_losses.build_cosine_contrastive_loss`.

    Returns:
      A function that takes labels [batch_size, list_size], negative where padded, scores [batch_size, list_size] of
      any float type, the step, and the rows int32 [batch_size] of the lists in the global batch. It returns the loss
      of each list, float32 [batch_size].
    """
    if key == "gbce_loss":
        return _without_padding(
            build_gbce_loss(num_negatives=num_negatives, num_items=num_items, calibration=calibration)
        )
    if key == "cosine_contrastive_loss":
        return _without_padding(build_cosine_contrastive_loss(margin=margin, negative_weight=negative_weight))
    if key == _Key.YETI_LOGISTIC_LOSS:
        lambda_weight = lambda_weight or "yeti_dcg"
    options = {} if key in LOSSES_WITHOUT_TEMPERATURE else {"temperature": temperature}
    loss = tfr.keras.losses.get(
        key,
        reduction=keras.losses.Reduction.NONE,
        lambda_weight=_build_lambda_weight(lambda_weight, lambda_weight_cutoff),
        **options,
    )

    def loss_fn(labels: tf.Tensor, scores: tf.Tensor, step: tf.Tensor | int, rows: tf.Tensor) -> tf.Tensor:
        labels = tf.cast(labels, tf.float32)
        is_real = labels >= 0
        scores = _separate_padding(key, tf.cast(scores, tf.float32), is_real)
        if key in PAIRWISE_LOSSES:
            scores /= temperature  # The Keras pairwise losses accept a temperature but never use it.
        if key == _Key.ORDINAL_LOSS:
            scores = scores[:, :, tf.newaxis]
        with stateless_random(seed, step, rows, global_batch_size):
            losses = loss(labels, scores)

        # [batch_size × num_samples], the same with a last dimension 1, or with list_size.
        batch_size, list_size = labels.shape
        num_samples = losses.shape[0] // batch_size
        list_loss = tf.reduce_sum(tf.reshape(losses, [batch_size, -1]), axis=1) / num_samples
        num_real = tf.reduce_sum(tf.cast(is_real, tf.float32), axis=1)
        if key in (*PAIRWISE_LOSSES, _Key.YETI_LOGISTIC_LOSS) and lambda_weight in _DCG_WEIGHTS:
            # These weights are multiplied by list_size and should be multiplied by num_real. In the mean that cancels.
            list_loss /= list_size
        elif key in _POINTWISE + PAIRWISE_LOSSES:
            list_loss /= tf.maximum(num_real, 1.0)
        list_loss -= _loss_of_padding(key, lambda_weight, labels, is_real)
        return tf.where(num_real > 0, list_loss, 0.0)

    return loss_fn
