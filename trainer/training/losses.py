"""The losses of TensorFlow Ranking by key, one value per list, blind to padding.

Its Keras losses mark padding by a negative label, and most of them let it through in one way or another.
Each way is closed here:

- Softmax and its kin give padding the absolute logit log(1e-10) ≈ −23, which outweighs real scores below,
  and lambda weights rank it 1e-6 below the lowest score, which is lost in rounding. All losses but the
  pointwise ones depend only on differences of scores, so each list is shifted until its lowest score is 0:
  padding then weighs 1e-10 of it at most, and ranks last.
- The mean over list_size makes the entries of a short list count less: its real entries are averaged.
- DCG lambda weights are multiplied by list_size: here by the number of real entries.
- ListMLE and Coupled-RankDistil rank the padding too, which adds a constant: it is taken off.
"""

import inspect
import math
from collections.abc import Callable

from settings.errors import ConfigError
from trainer.compat import keras, stateless_random, tf, tfr

LossFn = Callable[[tf.Tensor, tf.Tensor, "tf.Tensor | int"], tf.Tensor]
"""(labels [batch_size, list_size], scores [batch_size, list_size], step) → losses float32 [batch_size]."""

_Key = tfr.keras.losses.RankingLossKey

_POINTWISE = (_Key.SIGMOID_CROSS_ENTROPY_LOSS, _Key.MEAN_SQUARED_LOSS, _Key.ORDINAL_LOSS)
_PAIRWISE = (
    _Key.PAIRWISE_HINGE_LOSS,
    _Key.PAIRWISE_LOGISTIC_LOSS,
    _Key.PAIRWISE_SOFT_ZERO_ONE_LOSS,
    _Key.PAIRWISE_MSE_LOSS,
)

_PAIR_WEIGHTS = {
    "label_diff": tfr.keras.losses.LabelDiffLambdaWeight,
    "dcg": tfr.keras.losses.DCGLambdaWeight,
    "ndcg": tfr.keras.losses.NDCGLambdaWeight,
    "ndcg_v2": tfr.keras.losses.NDCGLambdaWeightV2,
    "yeti_dcg": tfr.keras.losses.YetiDCGLambdaWeight,
    "precision": tfr.keras.losses.PrecisionLambdaWeight,
}
_DCG_WEIGHTS = ("dcg", "ndcg", "ndcg_v2", "yeti_dcg")
_WITH_CUTOFF = (*_DCG_WEIGHTS, "precision")

# The discount of DCG. That of position-aware ListMLE, 2^(list_size − rank) − 1, is 6e29 at rank 1 of 100.
_list_mle_discount = tfr.keras.utils.log2_inverse


def _lambda_weights_of(key: str) -> tuple[str, ...]:
    """The lambda weights that a loss heeds: some take, and silently ignore, any other."""
    if key in _PAIRWISE:
        return tuple(_PAIR_WEIGHTS)
    return {
        _Key.YETI_LOGISTIC_LOSS: ("yeti_dcg",),
        _Key.SOFTMAX_LOSS: ("dcg", "ndcg"),
        _Key.LIST_MLE_LOSS: ("list_mle",),
    }.get(key, ())


def _takes_temperature(key: str) -> bool:
    # Yeti has a temperature among its arguments, but never reads it.
    loss_class = type(tfr.keras.losses.get(key))
    return key != _Key.YETI_LOGISTIC_LOSS and "temperature" in inspect.signature(loss_class).parameters


def _check(key: str, temperature: float, lambda_weight: str, lambda_weight_cutoff: int) -> None:
    """Raises ConfigError for whatever `build_loss` cannot build."""
    known = sorted(_Key.all_keys())
    if key not in known:
        raise ConfigError(f"config.loss.key is {key!r}, but must be one of {', '.join(known)}.")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"config.loss.temperature is {temperature}, but must be a positive number.")
    if temperature != 1.0 and not _takes_temperature(key):
        takers = ", ".join(filter(_takes_temperature, known))
        raise ConfigError(
            f"config.loss.temperature is {temperature}, but {key} has no temperature: leave it at 1.0, or "
            f"choose as config.loss.key one of {takers}."
        )
    allowed = _lambda_weights_of(key)
    if lambda_weight and lambda_weight not in allowed:
        raise ConfigError(
            f"config.loss.lambda_weight is {lambda_weight!r}, but {key} takes "
            f"{'one of ' + ', '.join(allowed) if allowed else 'none'}: choose accordingly, or leave it empty."
        )
    if lambda_weight_cutoff < 0:
        raise ConfigError(
            f"config.loss.lambda_weight_cutoff is {lambda_weight_cutoff}, but must be 0, for none, or a rank from 1."
        )
    # The softmax loss weighs single entries, and those weights have no cutoff.
    has_cutoff = lambda_weight in _WITH_CUTOFF and key != _Key.SOFTMAX_LOSS
    if lambda_weight_cutoff and not has_cutoff:
        raise ConfigError(
            f"config.loss.lambda_weight_cutoff is {lambda_weight_cutoff}, but {key} with "
            f"config.loss.lambda_weight {lambda_weight!r} has no cutoff: set it to 0, or use one of the "
            f"lambda weights {', '.join(_WITH_CUTOFF)} with a pairwise loss."
        )
    if lambda_weight == "precision" and not lambda_weight_cutoff:
        raise ConfigError(
            "config.loss.lambda_weight_cutoff is 0, but the lambda weight precision needs the rank down to "
            "which precision is counted: set it to 10, say."
        )


def _build_lambda_weight(name: str, cutoff: int):  # type: ignore[no-untyped-def]
    if not name:
        return None
    if name == "list_mle":
        return tfr.keras.losses.ListMLELambdaWeight(rank_discount_fn=_list_mle_discount)
    return _PAIR_WEIGHTS[name](topn=cutoff or None)


def _separate_padding(key: str, scores: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
    """Scores [batch_size, list_size] in which padding has no say, and none is below that of padding, 0."""
    if key not in _POINTWISE:
        lowest = tf.reduce_min(tf.where(is_real, scores, scores.dtype.max), axis=1, keepdims=True)
        scores -= tf.stop_gradient(lowest)
    return tf.where(is_real, scores, 0.0)


def _loss_of_padding(key: str, lambda_weight: str, labels: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
    """What TensorFlow Ranking adds to the loss of each list for its padding: float32 [batch_size].

    Both losses below walk down the list by descending label, padding last, and add the negative log of the
    chance that the entry at that rank is the best of what is left. Among entries that all have the score of
    padding this is the log of their number.
    """
    list_size = labels.shape[1]
    num_real = tf.reduce_sum(tf.cast(is_real, tf.float32), axis=1, keepdims=True)
    rank = tf.range(1, list_size + 1, dtype=tf.float32)[tf.newaxis]
    if key == _Key.LIST_MLE_LOSS:
        terms = tf.math.log(list_size + 1 - rank)
        if lambda_weight:
            terms *= _list_mle_discount(rank)
    elif key == _Key.COUPLED_RANKDISTIL_LOSS:
        # It gives entries that were ranked already the score of padding as well, and skips irrelevant lists.
        is_counted = tf.reduce_any(labels > 0, axis=1, keepdims=True)
        terms = tf.where(is_counted, math.log(list_size), 0.0) * tf.ones_like(rank)
    else:
        return tf.zeros_like(num_real[:, 0])
    return tf.reduce_sum(tf.where(rank > num_real, terms, 0.0), axis=1)


def build_loss(
    key: str,
    *,
    temperature: float = 1.0,
    lambda_weight: str = "",
    lambda_weight_cutoff: int = 0,
    seed: int = 0,
) -> LossFn:
    """Builds the loss of TensorFlow Ranking with this key of RankingLossKey.

    Listwise losses are TensorFlow Ranking's per list: softmax, say, is the cross-entropy times the sum of
    the labels. The others have a loss for each entry, and that of a list is the sum over its entries
    divided by the number of its real ones; where no list has padding, the mean over the batch is that of
    the Keras loss. A list that is all padding has loss 0 and gradient 0.

    What to know before choosing: sigmoid_cross_entropy_loss is meant for labels from 0 to 1 and has no
    lower bound above; ordinal_loss has a single level here, since a model gives one score an entry: it is the
    sigmoid cross-entropy of label ≥ 1, which is also what the lambda weight precision calls relevant;
    list_mle_loss is infinite where the scores of a list, over temperature, are some 60 apart;
    approx_*, pairwise_* and yeti_* need memory for batch_size × list_size² values.

    Args:
      key: One of `tfr.keras.losses.RankingLossKey.all_keys()`.
      temperature: Scores are divided by it. TensorFlow Ranking's own default is 0.1 for the approx_* and
        gumbel_approx_* losses, and 1 for the others.
      lambda_weight: "" for none, or label_diff, dcg, ndcg, ndcg_v2, yeti_dcg or precision with pairwise_*
        losses, dcg or ndcg with softmax_loss, list_mle with list_mle_loss (the discount of DCG by rank).
        yeti_logistic_loss always has yeti_dcg.
      lambda_weight_cutoff: The rank down to which the lambda weight counts, 0 for all.
      seed: With the step, fixes the noise of the gumbel, yeti and rankdistil losses and how ties are broken.

    Returns:
      A function of labels [batch_size, list_size], negative where padded, scores [batch_size, list_size] of
      any float type and the step, to the loss of each list, float32 [batch_size].

    Raises:
      ConfigError: For an unknown key, or an option that the loss does not have.
    """
    if key == _Key.YETI_LOGISTIC_LOSS:
        lambda_weight = lambda_weight or "yeti_dcg"
    _check(key, temperature, lambda_weight, lambda_weight_cutoff)
    options = {"temperature": temperature} if _takes_temperature(key) else {}
    loss = tfr.keras.losses.get(
        key,
        reduction=keras.losses.Reduction.NONE,
        lambda_weight=_build_lambda_weight(lambda_weight, lambda_weight_cutoff),
        **options,
    )

    def loss_fn(labels: tf.Tensor, scores: tf.Tensor, step: tf.Tensor | int) -> tf.Tensor:
        labels = tf.cast(labels, tf.float32)
        is_real = labels >= 0
        scores = _separate_padding(key, tf.cast(scores, tf.float32), is_real)
        if key in _PAIRWISE:
            scores /= temperature  # The Keras pairwise losses take a temperature, but never read it.
        if key == _Key.ORDINAL_LOSS:
            scores = scores[:, :, tf.newaxis]
        with stateless_random(seed, step):
            losses = loss(labels, scores)

        # [batch_size × num_samples], the same with a last dimension 1, or with list_size.
        batch_size, list_size = labels.shape
        num_samples = losses.shape[0] // batch_size
        list_loss = tf.reduce_sum(tf.reshape(losses, [batch_size, -1]), axis=1) / num_samples
        num_real = tf.reduce_sum(tf.cast(is_real, tf.float32), axis=1)
        if key in (*_PAIRWISE, _Key.YETI_LOGISTIC_LOSS) and lambda_weight in _DCG_WEIGHTS:
            # These weights come times list_size and should be times num_real: for the mean both cancel.
            list_loss /= list_size
        elif key in _POINTWISE + _PAIRWISE:
            list_loss /= tf.maximum(num_real, 1.0)
        list_loss -= _loss_of_padding(key, lambda_weight, labels, is_real)
        return tf.where(num_real > 0, list_loss, 0.0)

    return loss_fn
