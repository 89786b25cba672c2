"""What TensorBoard shows of a validation beside its metrics."""

from collections.abc import Callable

from settings.trainer_config import TrainerConfig
from settings.trainer_config.evaluation import CATALOGUE
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.evaluation.catalogue_ranking import held_out_evaluator
from trainer.evaluation.catalogue_scorer import candidate_matrix
from trainer.evaluation.statistics import Metrics
from trainer.evaluation.training_items import left_out_training_items
from trainer.training.distributions import build_distribution_fn
from trainer.training.learner import Learner
from trainer.training.metric_writer import MetricWriter
from trainer.training.samples import build_sample_fn

# More would slow down every validation. They are the same users each time, so the curve shows how the model changes.
_MAX_TRAINING_USERS = 64


def build_diagnostics(
    config: TrainerConfig, dataset: Dataset, learner: Learner, writer: MetricWriter, *, is_chief: bool
) -> Callable[[int], None]:
    """Prepares what is written after each validation: recommendations, histograms, and metrics of training items.

    Returns:
      A function that takes the step and writes all of it. That of a worker that is not the chief does nothing.
    """
    if not is_chief or "validation" not in dataset.lists:
        return lambda step: None
    distribution_fn = build_distribution_fn(learner.model, learner.ranker, dataset)
    sample_fn = build_sample_fn(learner.ranker, dataset, config.eval.num_sample_users)
    training_fn = _build_training_fn(config, dataset, learner)

    def write(step: int) -> None:
        candidates = candidate_matrix(learner.ranker.candidate_vectors, dataset.vocabulary.num_items)
        learnt = {f"{CATALOGUE}{name}": mean.value for name, mean in training_fn(candidates).items()}
        writer.write_curves(step, "train", learnt)
        writer.write_histograms(step, "validation", distribution_fn(candidates))
        if config.eval.num_sample_users:
            writer.write_text(step, "validation", "recommendations", sample_fn(candidates))

    return write


def _build_training_fn(config: TrainerConfig, dataset: Dataset, learner: Learner) -> Callable[[tf.Tensor], Metrics]:
    """The metrics of training items in the catalogue, where the validation ranks the catalogue too."""
    num_users = config.eval.num_validation_users
    if not num_users:
        return lambda candidates: {}
    held_out, query_source = left_out_training_items(
        dataset,
        num_users=_MAX_TRAINING_USERS if num_users < 0 else min(num_users, _MAX_TRAINING_USERS),
        fraction=dataset.lists["validation"].num_entries / dataset.lists["train"].num_entries,
        relevance_threshold=config.eval.relevance_threshold,
        seed=config.seed,
    )
    return held_out_evaluator(learner.ranker, held_out, query_source, learner.metrics)
