"""Values that follow from the size of the data, where the config leaves them open.

The rules come from searches on validation ratings of data sets from 1,600 to 41,000 items; see docs/models.md.
"""

import math

from settings.trainer_config import SMALLEST_EMBEDDING_SIZE, TrainerConfig
from trainer.data.dataset import Dataset

MAX_CATALOGUE_ITEMS = 50_000
"""Above this number of items, `auto` candidates are sampled: the softmax over all items takes most of the time. An
`auto` optimizer then updates only the rows of a table that a step looked up."""

MIN_RATINGS_FOR_ALL_TARGETS = 300_000
"""From this number of training ratings up, all items of a list are targets. Fewer ratings are learnt by heart."""

_EMBEDDING_SIZES = (4 * SMALLEST_EMBEDDING_SIZE, 2 * SMALLEST_EMBEDDING_SIZE, SMALLEST_EMBEDDING_SIZE)
_MAX_NUMBERS = 4_000_000
_SMALL_SCALE = 4.0
_SCALE_PER_LOG_ITEM = 0.75
_NUM_STEPS = 1500
_MIN_EPOCHS, _MAX_EPOCHS = 20, 100
# With many short epochs, a validation after each would take longer than the training.
_MAX_TIMES = 25


Values = dict[str, str | int | float]
"""Values of fields by dotted name."""


def choose_values(config: TrainerConfig, *, num_items: int, num_ratings: int, epoch_steps: int) -> Values:
    """The values of the open fields.

    Args:
      config: The config of the run.
      num_items: The number of items in the training split.
      num_ratings: The number of ratings in the training split.
      epoch_steps: The number of steps per epoch.
    """
    chosen: Values = {}
    is_small = num_ratings < MIN_RATINGS_FOR_ALL_TARGETS
    if config.candidates.method == "auto":
        chosen["candidates.method"] = "catalogue" if num_items <= MAX_CATALOGUE_ITEMS else "sampled"
    if config.optimizer.name == "auto":
        candidates = chosen.get("candidates.method", config.candidates.method)
        touches_all_rows = candidates == "catalogue" or num_items <= MAX_CATALOGUE_ITEMS
        chosen["optimizer.name"] = "adamw" if touches_all_rows else "lazy_adam"
    if not config.model.embedding_size:
        fitting = [size for size in _EMBEDDING_SIZES if size * num_items <= _MAX_NUMBERS]
        chosen["model.embedding_size"] = (fitting or _EMBEDDING_SIZES[-1:])[0]
    if not config.model.scale and config.model.similarity == "cosine":
        large_scale = round(_SCALE_PER_LOG_ITEM * math.log(num_items), 2)
        chosen["model.scale"] = _SMALL_SCALE if is_small else large_scale
    if config.history.targets == "auto" and config.history.encoder == "pooled":
        # The history of a rated list has its ratings, so it must not have those of the targets.
        is_rated = config.candidates.method == "rated"
        chosen["history.targets"] = "dropped" if config.history.dropout and (is_small or is_rated) else "all"
    if not config.train.num_epochs:
        num_epochs = min(max(math.ceil(_NUM_STEPS / epoch_steps), _MIN_EPOCHS), _MAX_EPOCHS)
        chosen["train.num_epochs"] = num_epochs
        for name in ("log_every_steps", "eval_every_steps", "checkpoint_every_steps"):
            if not getattr(config.train, name) and num_epochs > _MAX_TIMES:
                chosen[f"train.{name}"] = epoch_steps * math.ceil(num_epochs / _MAX_TIMES)
    return chosen


def adapt(config: TrainerConfig, dataset: Dataset, *, epoch_steps: int) -> tuple[TrainerConfig, Values]:
    """Returns the config with the chosen values of the open fields, and these values."""
    chosen = choose_values(
        config,
        num_items=dataset.vocabulary.num_items - 1,
        num_ratings=dataset.lists["train"].num_entries,
        epoch_steps=epoch_steps,
    )
    tree = config.model_dump()
    for name, value in chosen.items():
        section, field = name.split(".")
        tree[section][field] = value
    return TrainerConfig.model_validate(tree), chosen
