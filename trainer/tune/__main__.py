"""Searches for the best values of config fields, on the validation split.

python -m trainer.tune --config=configs/default.py --space=configs/tune/default.py --workdir=runs/tune --num_trials=30
"""

import os

import optuna
from absl import flags
from ml_collections import config_flags

from configs import default
from settings import cli
from settings.errors import UserError
from settings.trainer_config import STRATEGIES, TrainerConfig, load_trainer_config
from trainer.tune.report import best_trial, print_best
from trainer.tune.search import OutOfMemoryError, Search
from trainer.tune.space import check_space, load_space
from trainer.tune.study import StudyFolder

# The workers of a cluster would each need the same trials at the same time.
_STRATEGIES = tuple(name for name in STRATEGIES if name != "multi_worker_mirrored")


def main() -> int:
    """Runs the trials that are missing, and prints the table of all. Returns the exit code."""
    config_dict = cli.load_config()
    config = load_trainer_config(config_dict)
    space = flags.FLAGS.space
    parameters = load_space(space)
    check_space(parameters, config_dict.to_dict(), f"--space={space}")
    folder = StudyFolder(flags.FLAGS.workdir)
    folder.check(config, parameters)
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    search = Search(
        config_dict.to_dict(),
        parameters,
        folder,
        flags=_config_flags(),
        train_fn=lambda trial, workdir: _train(trial, workdir, evaluate_test=False),
        console=cli.build_console(),
    )
    with folder.locked():
        folder.save_study(config, parameters)
        trials = search.run(flags.FLAGS.num_trials)
        print_best(search.console, folder, trials, config.eval, search.flags)
        best = best_trial(trials, config.eval.best_direction)
        if best is None:
            raise UserError(f"All {len(trials)} trials have failed. {trials[-1].reason}")
        if flags.FLAGS.evaluate_best:
            _train(search.config_of(best), folder.trial_workdir(best.number), evaluate_test=True)
    return 0


def _train(config: TrainerConfig, workdir: str, *, evaluate_test: bool) -> None:
    """Trains a trial in this process. With evaluate_test it also exports the model and evaluates it on the test split.

    Raises:
      OutOfMemoryError: the device is out of memory.
      UserError: what is wrong with the run.
    """
    # Imported here, because TensorFlow takes seconds to import and wrong flags should not wait for it.
    from trainer.compat import keras, tf
    from trainer.training import run as training_run

    try:
        training_run.train_and_evaluate(
            config,
            strategy_name=flags.FLAGS.strategy,
            workdir=workdir,
            tpu=flags.FLAGS.tpu,
            require_gpu=os.environ.get("LISTWISE_REQUIRE_GPU") == "1" and not flags.FLAGS.allow_cpu,
            evaluate_test=evaluate_test,
        )
    except tf.errors.ResourceExhaustedError as error:
        raise OutOfMemoryError("The device is out of memory.") from error
    finally:
        keras.backend.clear_session()


def _config_flags() -> list[str]:
    """The flags that `trainer.main` needs for the same config."""
    flag = flags.FLAGS["config"]
    overrides = config_flags.get_override_values(flag)
    return [
        f"--config={config_flags.get_config_filename(flag)}",
        *(f"--config.{name}={value}" for name, value in overrides.items()),
    ]


if __name__ == "__main__":
    flags.DEFINE_enum("strategy", "default", _STRATEGIES, "The devices to train on: see trainer.main.")
    flags.DEFINE_string("workdir", None, "Output folder of the search, local or gs://.", required=True)
    flags.DEFINE_string("space", None, "The Python file with the fields to vary; see configs/tune.", required=True)
    flags.DEFINE_integer("num_trials", 30, "The number of trials, with those of earlier starts.", 1)
    flags.DEFINE_bool("evaluate_best", False, "Export the best trial at the end, and evaluate it on the test split.")
    flags.DEFINE_string("tpu", "local", "For --strategy=tpu: the TPU's name, local, or grpc://HOST:8470.")
    flags.DEFINE_bool("allow_cpu", False, "Train on the CPU even in the GPU image.")
    config_flags.DEFINE_config_file("config", None, "The config file of the trials. (default: configs/default.py)")
    cli.run(main, default_config=default.__file__)
