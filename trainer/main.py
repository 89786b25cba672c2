"""Trains a ranking model and writes the model, its metrics and its logs to --workdir.

python -m trainer.main --strategy=mirrored --workdir=runs/mine --config=configs/default.py
"""

import os
import pathlib

from absl import flags
from ml_collections import config_flags

from settings import cli
from settings.errors import ConfigError
from settings.trainer_config import STRATEGIES, load_trainer_config

_DEFAULT_CONFIG = pathlib.Path(__file__).resolve().parent.parent / "configs" / "default.py"

_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "default",
    STRATEGIES,
    "The devices to train on: one device; all GPUs of this machine (or its CPU); the machines of TF_CONFIG; a TPU.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Output folder, local or gs://. The same command resumes a run that was interrupted."
)
_TPU = flags.DEFINE_string("tpu", "local", "For --strategy=tpu: the TPU's name, local, or grpc://HOST:8470.")
_NUM_CPU_DEVICES = flags.DEFINE_integer(
    "num_cpu_devices", 1, "Split the CPU into several devices, to try --strategy=mirrored without GPUs.", 1
)
_ALLOW_CPU = flags.DEFINE_bool("allow_cpu", False, "Train on the CPU even in the GPU image.")
_PROFILE = flags.DEFINE_integer(
    "profile",
    None,
    "Profile this number of training calls after the first one, for TensorBoard; see docs/tensorboard.md.",
    lower_bound=1,
)
config_flags.DEFINE_config_file(
    "config", None, "The config file. --config.SECTION.FIELD=VALUE overrides a field. (default: configs/default.py)"
)


def main() -> int:
    """Trains and returns the exit code."""
    # Errors in the config are found before the seconds that TensorFlow's import takes.
    config = load_trainer_config(cli.load_config())
    workdir = _workdir()

    from trainer.training import run as training_run

    return training_run.train_and_evaluate(
        config,
        strategy_name=_STRATEGY.value,
        workdir=workdir,
        tpu=_TPU.value,
        num_cpu_devices=_NUM_CPU_DEVICES.value,
        # The GPU image sets the variable.
        require_gpu=os.environ.get("LISTWISE_REQUIRE_GPU") == "1" and not _ALLOW_CPU.value,
        profile=_PROFILE.value or 0,
    )


def _workdir() -> str:
    """Returns --workdir. On Vertex AI the default is the base output directory: AIP_MODEL_DIR is BASE/model/."""
    if _WORKDIR.value:
        return _WORKDIR.value
    model_dir = os.environ.get("AIP_MODEL_DIR", "").rstrip("/")
    if not model_dir:
        raise ConfigError("--workdir is missing. Set it to the folder that the run writes to.")
    return model_dir.rsplit("/", 1)[0]


if __name__ == "__main__":
    cli.run(main, default_config=str(_DEFAULT_CONFIG))
