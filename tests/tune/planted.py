"""A space with a planted optimum, and a fake of the trainer that measures it."""

import io
import json
import math
import os

from rich.console import Console

from configs import tutorial
from settings.errors import ConfigError
from settings.search_space import SearchParameter
from settings.trainer_config import load_trainer_config
from trainer.tune.search import Search
from trainer.tune.space import check_space
from trainer.tune.study import StudyFolder
from trainer.workdir import Workdir

LEARNING_RATE = {"field": "optimizer.learning_rate", "range": (0.0001, 1.0), "scale": "log"}
LOSS = {"field": "loss.key", "values": ("softmax_loss", "approx_ndcg_loss", "list_mle_loss")}
HIDDEN = {"field": "model.hidden_sizes", "values": ((), (8,), (8, 4))}
SIZE = {"field": "model.embedding_size", "range": (4, 64)}
SPACE = (LEARNING_RATE, LOSS, HIDDEN, SIZE)

BASE_FIELDS = {"split.method": "random", "eval.best_metric": "mrr"}


def parameters(*space):
    return tuple(SearchParameter(**parameter) for parameter in space or SPACE)


def base_config(**fields):
    """The tutorial, with a validation split and the metric of rated lists."""
    config = tutorial.get_config()
    config.update_from_flattened_dict(BASE_FIELDS | fields)
    return config


def planted_value(values):
    """1 at a learning rate of 0.01 with approx_ndcg_loss, and less elsewhere."""
    distance = math.log10(values["optimizer.learning_rate"]) + 2
    return math.exp(-(distance**2)) * (1.0 if values["loss.key"] == "approx_ndcg_loss" else 0.6)


class Training:
    """Stands for the trainer: writes the metrics of a run whose best validation has the planted value.

    Attributes:
      workdirs: those of all calls.
      failures: call → the error to raise in it.
    """

    def __init__(self, failures=None, fingerprint="f" * 64):
        self.workdirs, self.failures, self.fingerprint = [], failures or {}, fingerprint

    def __call__(self, config, workdir):
        self.workdirs.append(workdir)
        paths = Workdir(workdir)
        os.makedirs(workdir, exist_ok=True)
        failure = self.failures.get(len(self.workdirs))
        # A config is refused before anything is written.
        if not isinstance(failure, ConfigError):
            paths.check(config)
            paths.save_json(paths.config, {"config": config.model_dump()})
        if failure:
            raise failure
        paths.save_json(paths.data, {"fingerprints": {"vocabulary": self.fingerprint}})
        value = planted_value({"optimizer.learning_rate": config.optimizer.learning_rate, "loss.key": config.loss.key})
        lines = [
            {"step": step, "epoch": step / 10, "split": split, "metrics": {config.eval.best_metric: shown}}
            for step, split, shown in (
                (10, "train", 2.0),
                (10, "validation", value / 2),
                (20, "validation", value),
                (30, "validation", None),
            )
        ]
        with open(paths.metrics, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def search(folder, train_fn, *, space=SPACE, num_trials=6, console=None, **fields):
    """Runs a search as the command does, and returns its trials."""
    config = base_config(**fields)
    study, space = StudyFolder(str(folder)), parameters(*space)
    check_space(space, config.to_dict(), "the space")
    checked = load_trainer_config(config)
    study.check(checked, space)
    with study.locked():
        study.save_study(checked, space)
        overrides = [f"--config.{name}={value}" for name, value in (BASE_FIELDS | fields).items()]
        flags = [f"--config={tutorial.__file__}", *overrides]
        return Search(config.to_dict(), space, study, flags, train_fn, console or Console(file=io.StringIO())).run(
            num_trials
        )
