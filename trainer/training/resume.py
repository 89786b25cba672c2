"""How a run goes on: from which checkpoint, and whether it fits the data, the config and the other workers."""

import json

from settings.trainer_config import TrainerConfig
from trainer import config as config_lib
from trainer import strategy as strategy_lib
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.training.checkpoint import Checkpointer
from trainer.training.loop import RunState
from trainer.training.size_rules import Values
from trainer.workdir import Workdir


def fingerprints(config: TrainerConfig, dataset: Dataset) -> dict[str, str]:
    """Returns what has to be the same when a run goes on: the SHA-256 of its config and of each part of its data."""
    return {"config": config_lib.fingerprint(config), **dataset.description["fingerprints"]}


def restore(
    config: TrainerConfig,
    paths: Workdir,
    strategy: tf.distribute.Strategy,
    dataset: Dataset,
    checkpointer: Checkpointer,
    *,
    chosen: Values,
    epoch_steps: int,
) -> RunState:
    """Restores the newest checkpoint, and checks that this run can go on from it, on all workers.

    Raises:
      ConfigError: the data or the number of epochs does not fit the run in the workdir, or the workers differ.
      StorageError: no checkpoint can be used although there were some.
    """
    paths.check_data(dataset.description)
    paths.check_chosen(chosen)
    saved = checkpointer.restore_latest()
    paths.check_progress(saved.step if saved else None)
    state = RunState(**saved.state) if saved else RunState()
    paths.check_num_epochs(config.train.num_epochs, steps_per_epoch=epoch_steps, step=state.step)
    # Only the folder of the data may differ between workers.
    fields = config_lib.flatten(config_lib.plain(config))
    fields.pop("data.data_dir")
    facts = {
        "step": str(state.step),
        "checkpoint": saved.digest[:12] if saved else "none",
        **{f"config.{name}": json.dumps(value) for name, value in fields.items()},
        **{f"the fingerprint of {name}": value[:12] for name, value in dataset.description["fingerprints"].items()},
    }
    strategy_lib.check_workers_agree(strategy, facts)
    return state
