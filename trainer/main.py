"""Trains a ranking model and writes the model, its metrics and its logs to --workdir.

python -m trainer.main --strategy=mirrored --workdir=runs/mine --config=configs/default.py
"""

import os
import pathlib

from absl import flags
from ml_collections import config_flags

from settings import cli
from settings.errors import ConfigError
from settings.trainer_config import load_trainer_config
from settings.trainer_flags import define_trainer_flags

_DEFAULT_CONFIG = pathlib.Path(__file__).resolve().parent.parent / "configs" / "default.py"

_FLAGS = flags.FLAGS

define_trainer_flags()
config_flags.DEFINE_config_file(
    "config", None, "The config file. --config.SECTION.FIELD=VALUE overrides a field. (default: configs/default.py)"
)


def main() -> int:
    """Trains and returns the exit code."""
    # Errors in the config are found before the seconds that TensorFlow's import takes.
    config = load_trainer_config(_FLAGS.config)
    workdir = _workdir()

    from trainer.training import run as training_run

    return training_run.train_and_evaluate(
        config,
        strategy_name=_FLAGS.strategy,
        workdir=workdir,
        tpu=_FLAGS.tpu,
        num_cpu_devices=_FLAGS.num_cpu_devices,
        # The GPU image sets the variable.
        require_gpu=os.environ.get("LISTWISE_REQUIRE_GPU") == "1" and not _FLAGS.allow_cpu,
        profile=_FLAGS.profile or 0,
    )


def _workdir() -> str:
    """Returns --workdir. On Vertex AI the default is the base output directory: AIP_MODEL_DIR is BASE/model/."""
    if _FLAGS.workdir:
        return _FLAGS.workdir
    model_dir = os.environ.get("AIP_MODEL_DIR", "").rstrip("/")
    if not model_dir:
        raise ConfigError("--workdir is missing. Set it to the folder that the run writes to.")
    return model_dir.rsplit("/", 1)[0]


if __name__ == "__main__":
    cli.run(main, default_config=str(_DEFAULT_CONFIG))
