"""What a validation during training measures."""

from collections.abc import Callable

from settings.trainer_config import TrainerConfig
from settings.trainer_config.evaluation import CATALOGUE
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.evaluation.catalogue_ranking import catalogue_evaluator
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.statistics import Metrics
from trainer.training.learner import Learner


def build_validation(
    config: TrainerConfig, strategy: tf.distribute.Strategy, dataset: Dataset, learner: Learner
) -> Callable[[], Metrics] | None:
    """What evaluates the validation split: the loss, the rated lists and the catalogue. None if there is no split."""
    if "validation" not in dataset.lists:
        return None
    evaluator = Evaluator(
        strategy,
        learner.ranker,
        dataset.lists["validation"],
        learner.metrics if dataset.has_ratings else [],
        global_batch_size=config.train.global_batch_size,
        losses_fn=learner.objective.evaluate,
    )
    if not config.eval.num_validation_users:
        return evaluator.evaluate
    catalogue_fn = catalogue_evaluator(
        learner.ranker,
        dataset,
        "validation",
        learner.metrics,
        num_users=config.eval.num_validation_users,
        relevance_threshold=config.eval.relevance_threshold,
        seed=config.seed,
    )
    return lambda: evaluator.evaluate() | {f"{CATALOGUE}{name}": mean for name, mean in catalogue_fn().items()}
