"""What a training step minimizes, for each kind of candidates.

The lists of a step come from the model (`TwoTowerModel.training_lists`): those of the batch, or one for each item of a
list. A `RankFn` scores them against their candidates and computes their losses:

- rated: TF-Ranking's loss of each list.
- sampled: the same, after the sampled negatives were added to each list.
- catalogue: the softmax loss over all items.
"""

from collections.abc import Callable
from dataclasses import dataclass

from trainer import schema
from trainer.compat import tf
from trainer.modeling.chunks import CHUNK_BYTES
from trainer.modeling.randomness import Draws
from trainer.modeling.two_tower import Features, ScoredLists, TwoTowerModel
from trainer.training.candidates import NegativeSampler, sampled_lists
from trainer.training.catalogue_softmax import catalogue_softmax
from trainer.training.losses import LossFn


@dataclass(frozen=True)
class Losses:
    """The losses of some lists.

    Attributes:
      total: float32 [], the weighted sum of the losses, which is differentiated.
      losses: float32 [num_lists].
      equal_losses: float32 [num_lists], the losses of the same lists if all scores were equal.
      scores: float32 [num_lists, list_size], the scores of the items of the lists; None if they were not computed.
    """

    total: tf.Tensor
    losses: tf.Tensor
    equal_losses: tf.Tensor
    scores: tf.Tensor | None = None


RankFn = Callable[[ScoredLists, Features, "tf.Tensor | int", tf.Tensor], Losses]
"""(lists, features of the batch, step, weights [num_lists]) → the losses of the lists."""

LabelsFn = Callable[[tf.Tensor], tf.Tensor]
"""Ratings [batch_size, list_size] → labels of the same shape. Padding stays negative."""


class Objective:
    """The loss of a batch, on one replica.

    The loss that is differentiated is the mean over the real lists of the global batch. Each replica sums the losses of
    its lists and divides by their number in the whole batch, and gradients are summed over replicas. So the number of
    replicas does not change the result.

    The losses of two splits cannot be compared: a list with more targets or more candidates has a larger loss. So there
    is also the relative loss of lists, Σ (loss − lowest_loss) / Σ (loss of equal scores − lowest_loss). A model that
    does not tell items apart has 1. The best is 0.
    """

    def __init__(
        self,
        model: TwoTowerModel,
        rank_fn: RankFn,
        *,
        labels_fn: LabelsFn | None = None,
        normalization_power: float = 0.0,
        lowest_loss: float = 0.0,
        seed: int = 0,
    ):
        """Builds an objective.

        Args:
          model: The model.
          rank_fn: Scores lists against their candidates.
          labels_fn: Turns ratings into labels. None: ratings are labels.
          normalization_power: The loss of a list is divided by (sum of its labels)^normalization_power.
          lowest_loss: The lowest loss that a list can have, before it is normalized.
          seed: Of the dropout of the model.
        """
        self._model = model
        self._rank_fn = rank_fn
        self._labels_fn = labels_fn or tf.identity
        self._normalization_power = normalization_power
        self._lowest_loss = lowest_loss
        self._seed = seed

    def __call__(self, features: Features, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Computes the losses of a training step.

        Args:
          features: the batch of this replica; see `input_pipeline.build_train_dataset`.
          step: int64 [].

        Returns:
          The loss [] to differentiate; sums over the weighted and normalized lists, float32 [3]: of their losses, and
          of the numerator and the denominator of the relative loss; and the scores of their items, float32
          [batch_size, list_size], or [batch_size, 0] if they were not computed.
        """
        draws = Draws(self._seed, step, features[schema.ROWS])
        lists = self._model.training_lists(self._with_labels(features), draws)
        weights = features[schema.WEIGHTS] * self._normalization(lists.labels, features)
        lists_per_row = lists.labels.shape[0] // weights.shape[0]
        found = self._rank_fn(lists, features, step, tf.repeat(weights, lists_per_row))
        sums = tf.reduce_sum(self._of_rows(found, weights), axis=0)
        scores = tf.zeros([weights.shape[0], 0]) if found.scores is None else found.scores
        scores = tf.reshape(scores, [weights.shape[0], -1])
        return found.total / features[schema.NUM_LISTS], sums, scores

    def evaluate(self, features: Features) -> tf.Tensor:
        """The losses of the lists of a batch without dropout, float32 [batch_size, 3].

        The columns are the normalized loss, and the numerator and the denominator of the relative loss.
        """
        lists = self._model.evaluation_lists(self._with_labels(features))
        weights = self._normalization(lists.labels, features)
        return self._of_rows(self._rank_fn(lists, features, 0, weights), weights)

    def _of_rows(self, found: Losses, weights: tf.Tensor) -> tf.Tensor:
        """The losses of the rows of a batch, and both parts of their relative losses: float32 [batch_size, 3].

        Args:
          found: of all lists. Each row has the same number of lists.
          weights: float32 [batch_size].
        """
        lowest = self._lowest_loss
        of_lists = tf.stack([found.losses, found.losses - lowest, found.equal_losses - lowest], axis=-1)
        return tf.reduce_sum(tf.reshape(of_lists, [weights.shape[0], -1, 3]), axis=1) * weights[:, tf.newaxis]

    def _with_labels(self, features: Features) -> Features:
        return features | {schema.LABELS: self._labels_fn(features[schema.LABELS])}

    def _normalization(self, labels: tf.Tensor, features: Features) -> tf.Tensor:
        """What the loss of each row of the batch is multiplied by, from its labels: float32 [batch_size]."""
        sums = tf.reduce_sum(tf.reshape(tf.maximum(labels, 0.0), [features[schema.WEIGHTS].shape[0], -1]), axis=1)
        return tf.where(sums > 0, tf.pow(tf.maximum(sums, 1e-9), -self._normalization_power), 1.0)


def binary_labels(relevance_threshold: float) -> LabelsFn:
    """Labels of 1 for ratings at or above the threshold and 0 below it."""
    return lambda ratings: tf.where(ratings < 0, ratings, tf.cast(ratings >= relevance_threshold, ratings.dtype))


def gains(ratings: tf.Tensor) -> tf.Tensor:
    """The gains of NDCG, 2^rating − 1. Padding stays negative."""
    return tf.where(ratings < 0, ratings, tf.pow(2.0, ratings) - 1.0)


def rank_rated(model: TwoTowerModel, loss_fn: LossFn) -> RankFn:
    """Ranks the items of each list."""

    def rank(lists: ScoredLists, features: Features, step: "tf.Tensor | int", weights: tf.Tensor) -> Losses:
        scores = model.list_scores(lists.queries, lists.items, lists.examples)
        losses = loss_fn(lists.labels, scores, step, features[schema.ROWS])
        equal_losses = loss_fn(lists.labels, tf.zeros_like(scores), step, features[schema.ROWS])
        return Losses(tf.reduce_sum(losses * weights), losses, equal_losses, scores)

    return rank


def rank_sampled(model: TwoTowerModel, loss_fn: LossFn, sampler: NegativeSampler, *, logq_correction: bool) -> RankFn:
    """Ranks the items of each list and the negatives of the batch. A validation has the negatives of step 0."""
    log_expected_counts = tf.constant(sampler.log_expected_counts) if logq_correction else None
    validation_negatives = tf.constant(sampler.draw([0])[0])

    def rank(lists: ScoredLists, features: Features, step: "tf.Tensor | int", weights: tf.Tensor) -> Losses:
        negatives = features.get(schema.NEGATIVES, validation_negatives)
        labels, scores = sampled_lists(
            lists.queries,
            lists.items,
            lists.labels,
            model.list_scores(lists.queries, lists.items, lists.examples),
            negatives=negatives,
            negative_vectors=model.candidate_vectors(negatives),
            seen=features[schema.HISTORY],
            num_items=model.num_items,
            log_expected_counts=log_expected_counts,
        )
        rows = tf.repeat(features[schema.ROWS], lists.labels.shape[0] // features[schema.ROWS].shape[0])
        equal_scores = tf.zeros_like(negatives, tf.float32)
        if log_expected_counts is not None:
            equal_scores -= tf.gather(log_expected_counts, negatives)
        equal_scores = tf.repeat(equal_scores[tf.newaxis], labels.shape[0], axis=0)
        equal_scores = tf.concat([tf.zeros_like(lists.labels), equal_scores], axis=1)
        # A list whose entries are all padding or no targets has nothing to learn from.
        has_target = tf.reduce_any(lists.labels > 0, axis=1)
        losses, equal_losses = (
            tf.where(has_target, loss_fn(labels, of_all, step, rows), 0.0) for of_all in (scores, equal_scores)
        )
        return Losses(tf.reduce_sum(losses * weights), losses, equal_losses)

    return rank


def rank_catalogue(model: TwoTowerModel, *, temperature: float) -> RankFn:
    """Ranks all items.

    The items of a query's history are no candidates, except for the items of its list. Where each item of a list is a
    list of its own, all items are candidates.
    """

    def rank(lists: ScoredLists, features: Features, step: "tf.Tensor | int", weights: tf.Tensor) -> Losses:
        history = features[schema.HISTORY]
        is_own_list = lists.labels.shape[0] != history.shape[0]
        total, losses, equal_losses = catalogue_softmax(
            lists.queries / temperature,
            model.catalogue_vectors(),
            lists.items,
            lists.labels,
            tf.zeros([lists.labels.shape[0], 0], tf.int32) if is_own_list else history,
            weights,
            chunk_bytes=CHUNK_BYTES,
        )
        return Losses(total, losses, equal_losses)

    return rank
