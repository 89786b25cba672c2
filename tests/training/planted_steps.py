"""A small model that takes steps under any strategy, on batches in which a bad number can be planted."""

from dataclasses import dataclass

import numpy as np

from tests.conftest import mirrored_strategy
from trainer import schema
from trainer.compat import tf
from trainer.modeling.two_tower import TwoTowerModel
from trainer.training import losses, optimizers, steps
from trainer.training.objectives import Objective, rank_rated

NUM_QUERIES, NUM_ITEMS, LIST_SIZE, BATCH_SIZE, K = 12, 20, 5, 8, 6


class PlantedObjective(Objective):
    """The loss of a step, or its gradients, get a planted number on the replica that has a planted row.

    Attributes:
      step: where it is planted; −1 for nowhere.
      row: of the global batch.
      of_loss, of_gradients: what is added to each.
    """

    def __init__(self, model, *arguments, **options):
        super().__init__(model, *arguments, **options)
        self._table = model.tables[schema.ITEMS]
        self.step, self.row = tf.Variable(-1, dtype=tf.int64), tf.Variable(0)
        self.of_loss, self.of_gradients = tf.Variable(0.0), tf.Variable(0.0)

    def __call__(self, features, step):
        loss, sums, scores = super().__call__(features, step)
        is_here = (step == self.step) & tf.reduce_any(features[schema.ROWS] == self.row)
        planted = tf.where(is_here, self.of_gradients, 0.0)

        @tf.custom_gradient
        def zero(vectors):
            return tf.zeros([]), lambda upstream: upstream * planted * tf.ones_like(vectors)

        # The planted gradient is of one looked-up row.
        loss += zero(self._table.lookup(features[schema.ITEMS][:1, :1]))
        return loss + tf.where(is_here, self.of_loss, 0.0), sums, scores


@dataclass
class PlantedSteps:
    """A model with its training call.

    Attributes:
      superbatch: K batches of BATCH_SIZE lists.
    """

    strategy: tf.distribute.Strategy
    model: TwoTowerModel
    optimizer: object
    objective: PlantedObjective
    train_call: steps.TrainCall
    superbatch: dict

    def reset(self):
        """Sets all variables of the model and the optimizer to their first values."""
        for variable, value in zip(self.variables, self._initial, strict=True):
            variable.assign(value)

    def __post_init__(self):
        self._initial = [variable.numpy() for variable in self.variables]

    @property
    def variables(self):
        return [*self.model.variables, *self.optimizer.variables]

    def take(self, num_steps, first_step=0):
        """Takes steps. Returns what the call returns."""
        call = tf.constant(first_step, tf.int64), tf.constant(num_steps)
        return self.train_call(_share(self.strategy, self.superbatch), *call)


def build_steps(
    num_replicas=0,
    *,
    optimizer_name="adagrad",
    metrics=(),
    num_virtual=0,
    loss_key="softmax_loss",
    superbatch=None,
    model_options=None,
    **options,
):
    """Builds planted steps.

    Args:
      num_replicas: 0 for the default strategy, otherwise mirrored over so many CPU devices.
    """
    strategy = mirrored_strategy(num_replicas) if num_replicas else tf.distribute.get_strategy()
    with strategy.scope():
        model = TwoTowerModel(
            num_queries=NUM_QUERIES, num_items=NUM_ITEMS, embedding_size=4, seed=5, **(model_options or {})
        )
        schedule = optimizers.build_schedule("constant", learning_rate=0.3, total_steps=100, warmup_steps=0)
        optimizer = optimizers.build_optimizer(optimizer_name, schedule, tables=model.table_variables, **options)
        optimizer.build(model.trainable_variables)
        loss_fn = losses.build_loss(loss_key, global_batch_size=BATCH_SIZE, seed=3)
        objective = PlantedObjective(model, rank_rated(model, loss_fn), seed=3)
    train_call = steps.build_train_call(strategy, model, optimizer, objective, metrics, num_virtual=num_virtual)
    return PlantedSteps(strategy, model, optimizer, objective, train_call, superbatch or random_superbatch())


def random_superbatch(seed=0):
    """K batches of lists with repeated items and labels from 0 to 5. The last row of each batch is padding."""
    rng = np.random.default_rng(seed)
    weights = np.ones([K, BATCH_SIZE], np.float32)
    weights[:, -1] = 0
    labels = rng.integers(0, 6, [K, BATCH_SIZE, LIST_SIZE]).astype(np.float32)
    labels[:, -1] = schema.PADDING_LABEL
    return {
        schema.QUERY: tf.constant(rng.integers(1, NUM_QUERIES, [K, BATCH_SIZE]), tf.int32),
        schema.ITEMS: tf.constant(rng.integers(1, 9, [K, BATCH_SIZE, LIST_SIZE]), tf.int32),
        schema.LABELS: tf.constant(labels),
        schema.WEIGHTS: tf.constant(weights),
        schema.ROWS: tf.tile(tf.range(BATCH_SIZE)[tf.newaxis], [K, 1]),
        schema.NUM_LISTS: tf.fill([K], float(BATCH_SIZE - 1)),
    }


def _share(strategy, superbatch):
    """Each replica gets its rows of the batches."""
    num_replicas = strategy.num_replicas_in_sync
    if num_replicas == 1:
        return superbatch
    size = BATCH_SIZE // num_replicas

    def of_replica(name):
        def value(context):
            feature = superbatch[name]
            if name == schema.NUM_LISTS:
                return feature
            return feature[:, size * context.replica_id_in_sync_group :][:, :size]

        return value

    return {name: strategy.experimental_distribute_values_from_function(of_replica(name)) for name in superbatch}
