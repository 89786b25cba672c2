"""Values that follow from the size of the data, where the config leaves them open.

The rules come from searches on validation ratings of data sets from 1,600 to 41,000 items; see docs/models.md.
"""

import math

from settings.trainer_config import TrainerConfig

MAX_CATALOGUE_ITEMS = 50_000
"""Above this number of items, `auto` candidates are sampled: the softmax over all items takes most of the time."""

_EMBEDDING_SIZES = (256, 128, 64)
_MAX_NUMBERS = 4_000_000
_SCALE_PER_LOG_ITEM = 0.75
_NUM_STEPS = 1500
_MIN_EPOCHS, _MAX_EPOCHS = 20, 100


def choose_values(config: TrainerConfig, *, num_items: int, epoch_steps: int) -> dict[str, str | int | float]:
    """The values of the open fields, by dotted name.

    Args:
      config: The config of the run.
      num_items: The number of items in the training split.
      epoch_steps: The number of steps per epoch.
    """
    chosen: dict[str, str | int | float] = {}
    if config.candidates.method == "auto":
        chosen["candidates.method"] = "catalogue" if num_items <= MAX_CATALOGUE_ITEMS else "sampled"
    if not config.model.embedding_size:
        fitting = [size for size in _EMBEDDING_SIZES if size * num_items <= _MAX_NUMBERS]
        chosen["model.embedding_size"] = (fitting or _EMBEDDING_SIZES[-1:])[0]
    if not config.model.scale:
        is_cosine = config.model.similarity == "cosine"
        chosen["model.scale"] = round(_SCALE_PER_LOG_ITEM * math.log(max(num_items, 4)), 2) if is_cosine else 1.0
    if not config.train.num_epochs:
        chosen["train.num_epochs"] = min(max(math.ceil(_NUM_STEPS / epoch_steps), _MIN_EPOCHS), _MAX_EPOCHS)
    return chosen


def with_values(config: TrainerConfig, values: dict[str, str | int | float]) -> TrainerConfig:
    """The config with other values of some fields, by dotted name."""
    tree = config.model_dump()
    for name, value in values.items():
        section, field = name.split(".")
        tree[section][field] = value
    return TrainerConfig.model_validate(tree)
