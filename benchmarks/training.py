"""Our training as `trainer.main` builds it, for benchmarks that time its calls."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ml_collections import ConfigDict

from settings.trainer_config import TrainerConfig, load_trainer_config
from trainer import config as config_lib
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.data.loading import load_dataset
from trainer.modeling import input_pipeline
from trainer.modeling.two_tower import Features
from trainer.training import steps
from trainer.training.learner import Learner, build_learner


@dataclass(frozen=True)
class Training:
    """What takes the steps of a run.

    Attributes:
      train_call: (superbatch, first_step, num_steps) → sums and weights; the first row is that of the loss.
      steps_per_execution: the steps of a call.
      epoch_steps: the steps of an epoch.
    """

    config: TrainerConfig
    dataset: Dataset
    strategy: tf.distribute.Strategy
    learner: Learner
    train_call: steps.TrainCall
    steps_per_execution: int
    epoch_steps: int

    def superbatches(self) -> Iterator[Features]:
        """The superbatches of the calls from step 0, forever."""
        starts = np.arange(1000, dtype=np.int64) * self.steps_per_execution
        lists = self.dataset.lists["train"]
        batches = input_pipeline.distribute(
            self.strategy,
            lambda context: input_pipeline.build_train_dataset(
                lists,
                starts,
                global_batch_size=self.config.train.global_batch_size,
                steps_per_execution=self.steps_per_execution,
                seed=self.config.seed,
                context=context,
                negatives_fn=self.learner.negatives_fn,
            ),
        )
        return iter(batches)

    def take_steps(self, superbatch: Features, first_step: int = 0) -> float:
        """Takes the steps of one call and waits for them. Returns their mean loss over lists."""
        first, number = tf.constant(first_step, tf.int64), tf.constant(self.steps_per_execution)
        (loss, weight), *_ = self.train_call(superbatch, first, number).sums.numpy().astype(np.float64)
        return float(loss / weight)


def build_training(
    config: ConfigDict,
    *,
    strategy: tf.distribute.Strategy | None = None,
    has_metrics: bool = False,
    steps_per_execution: int = 0,
    num_virtual: int = 0,
    dataset: Dataset | None = None,
) -> Training:
    """Builds the training of a config.

    Args:
      strategy: None: the default strategy.
      has_metrics: whether steps measure config.eval.metrics.
      steps_per_execution: 0 for an epoch.
      num_virtual: see `steps.build_train_call`.
      dataset: None: the one of the config.
    """
    checked = load_trainer_config(config)
    strategy = strategy or tf.distribute.get_strategy()
    dataset = dataset or load_dataset(**config_lib.dataset_arguments(checked))
    epoch_steps = input_pipeline.steps_per_epoch(dataset.lists["train"].num_lists, checked.train.global_batch_size)
    learner = build_learner(checked, dataset, strategy, total_steps=epoch_steps * checked.train.num_epochs)
    metrics = learner.train_metrics if has_metrics else []
    return Training(
        config=checked,
        dataset=dataset,
        strategy=strategy,
        learner=learner,
        train_call=steps.build_train_call(
            strategy, learner.model, learner.optimizer, learner.objective, metrics, num_virtual=num_virtual
        ),
        steps_per_execution=steps_per_execution or epoch_steps,
        epoch_steps=epoch_steps,
    )
