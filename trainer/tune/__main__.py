"""Searches for the best values of config fields, on the validation split, and trains a config with several seeds.

python -m trainer.tune --config=configs/default.py --space=configs/tune/default.py --workdir=runs/tune --num_trials=30
python -m trainer.tune --config=configs/default.py --workdir=runs/seeds --num_seeds=5
"""

import os

import optuna
from absl import flags
from ml_collections import config_flags

from configs import default
from settings import cli
from settings.errors import ConfigError, UserError
from settings.trainer_config import STRATEGIES, TrainerConfig, load_trainer_config
from trainer.tune.report import best_trial, describe_best, print_best
from trainer.tune.search import OutOfMemoryError, Search
from trainer.tune.seeds import describe_seeds, metrics_over_seeds, print_seeds, run_seeds
from trainer.tune.space import check_space, load_space
from trainer.tune.study import StudyFolder, Trial

# The workers of a cluster would each need the same trials at the same time.
_STRATEGIES = tuple(name for name in STRATEGIES if name != "multi_worker_mirrored")


def main() -> int:
    """Runs the trials and seeds that are missing, and prints tables of all. Returns the exit code."""
    _check_flags()
    config_dict = flags.FLAGS.config
    config = load_trainer_config(config_dict)
    space = flags.FLAGS.space
    parameters = load_space(space) if space else ()
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
        best = _search(search) if parameters else None
        if flags.FLAGS.num_seeds:
            _run_seeds(search, best)
    return 0


def _check_flags() -> None:
    """Raises ConfigError for flags that do not go together."""
    if not flags.FLAGS.space and not flags.FLAGS.num_seeds:
        raise ConfigError(
            "There is nothing to do. Set --space to the file with the fields to vary, or set --num_seeds to train the "
            "config with several seeds."
        )
    if flags.FLAGS.num_seeds == 1:
        raise ConfigError("--num_seeds=1 cannot be used: it has to be at least 2, or 0 for no seeds.")
    if flags.FLAGS["num_trials"].present and not flags.FLAGS.space:
        raise ConfigError("--num_trials is only used with --space. Set --space, or leave out --num_trials.")


def _search(search: Search) -> Trial:
    """Runs the trials that are missing, and returns the best one."""
    trials = search.run(flags.FLAGS.num_trials)
    print_best(search.console, search.folder, trials, search.base.eval, search.flags)
    best = best_trial(trials, search.base.eval.best_direction)
    if best is None:
        raise UserError(f"All {len(trials)} trials have failed. {trials[-1].reason}")
    if flags.FLAGS.evaluate_best:
        _train(search.config_of(best), search.folder.trial_workdir(best.number), evaluate_test=True)
    return best


def _run_seeds(search: Search, best: Trial | None) -> None:
    """Trains the best trial, or without a search the config as it is, with several seeds."""
    with_test = flags.FLAGS.evaluate_best
    runs = run_seeds(
        search,
        best,
        flags.FLAGS.num_seeds,
        evaluate_fn=(lambda config, workdir: _train(config, workdir, evaluate_test=True)) if with_test else None,
    )
    metrics = metrics_over_seeds(search, runs, with_test=with_test)
    record = describe_best(best, search.base.eval, search.flags)
    search.folder.save_best({**record, "seeds": describe_seeds(runs, metrics)})
    print_seeds(search.console, runs, metrics)


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
    flags.DEFINE_string("space", None, "The Python file with the fields to vary; see configs/tune.")
    flags.DEFINE_integer("num_trials", 30, "The number of trials, with those of earlier starts.", 1)
    flags.DEFINE_bool(
        "evaluate_best",
        False,
        "At the end, export the best trial, and the runs of --num_seeds, and evaluate them on the test split.",
    )
    flags.DEFINE_integer(
        "num_seeds",
        0,
        "At the end, train the best trial with this number of seeds, or the config as it is if there is no --space. "
        "Report the mean and an interval of the metrics.",
        0,
    )
    flags.DEFINE_string("tpu", "local", "For --strategy=tpu: the TPU's name, local, or grpc://HOST:8470.")
    flags.DEFINE_bool("allow_cpu", False, "Train on the CPU even in the GPU image.")
    config_flags.DEFINE_config_file("config", None, "The config file of the trials. (default: configs/default.py)")
    cli.run(main, default_config=default.__file__)
