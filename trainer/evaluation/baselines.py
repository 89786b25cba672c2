"""What needs no model: scorers to compare a model with."""

from trainer import schema
from trainer.compat import tf
from trainer.evaluation.evaluator import Scorer
from trainer.modeling.two_tower import Features


def build_floors(*, seed: int) -> dict[str, Scorer]:
    """What needs no model: scorers by name, each from features to scores [batch_size, list_size]."""

    def popularity(features: Features) -> tf.Tensor:
        # The vocabulary has the items in this order; so ties end as they do in recommending.
        return -tf.cast(features[schema.ITEMS], tf.float32)

    def random(features: Features) -> tf.Tensor:
        # A seed for each query, not for each batch, whose rows depend on the number of replicas.
        list_size = features[schema.ITEMS].shape[1]
        return tf.map_fn(
            lambda query: tf.random.stateless_uniform([list_size], tf.stack([seed, query])),
            features[schema.QUERY],
            fn_output_signature=tf.float32,
        )

    return {"popularity": unknown_last(popularity), "random": random}


def unknown_last(scorer: Scorer) -> Scorer:
    """`scorer`, but below all other items those that training has not seen, which are never recommended."""

    def score(features: Features) -> tf.Tensor:
        scores = scorer(features)
        last = tf.reduce_min(scores, axis=1, keepdims=True) - 1.0
        return tf.where(features[schema.ITEMS] == schema.UNKNOWN_INDEX, last, scores)

    return score
