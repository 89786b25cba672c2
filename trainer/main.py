"""Trains a ranking model and leaves it, its figures and its logs in --workdir.

python -m trainer.main --strategy=mirrored --workdir=runs/mine --config=configs/default.py
"""

import os
import pathlib

from absl import flags
from ml_collections import config_flags

from settings import cli
from settings.errors import ConfigError

_DEFAULT_CONFIG = pathlib.Path(__file__).resolve().parent.parent / "configs" / "default.py"

_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "default",
    ["default", "mirrored", "multi_worker_mirrored", "tpu"],
    "Where it trains: one device; all GPUs of this machine (or its CPU); the machines of TF_CONFIG; a TPU.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder, local or gs://, for what the run leaves. The same command again goes on in it."
)
_TPU = flags.DEFINE_string("tpu", "local", "With --strategy=tpu: the TPU's name, or local, or grpc://HOST:8470.")
_NUM_CPU_DEVICES = flags.DEFINE_integer(
    "num_cpu_devices", 1, "Split the CPU into this many devices, to try --strategy=mirrored without GPUs.", 1
)
_ALLOW_CPU = flags.DEFINE_bool("allow_cpu", False, "Go on without a GPU in the image that is made for GPUs.")
config_flags.DEFINE_config_file(
    "config", None, "What is trained; any field can be set with --config.SECTION.FIELD=VALUE. (default: default.py)"
)


def main() -> int:
    """Trains, and returns the exit code."""
    # What can be wrong with the config is said before TensorFlow's import takes its seconds.
    from trainer import config as config_lib

    config = cli.load_config()
    config_lib.check_config(config)
    workdir = _workdir()
    if _ALLOW_CPU.value:
        os.environ.pop("LISTWISE_REQUIRE_GPU", None)  # Set by the image; trainer/strategy.py reads it.

    from trainer.training import run as training_run

    return training_run.train_and_evaluate(
        config,
        strategy_name=_STRATEGY.value,
        workdir=workdir,
        tpu=_TPU.value,
        num_cpu_devices=_NUM_CPU_DEVICES.value,
    )


def _workdir() -> str:
    """--workdir, or under Vertex AI the base output directory, of which AIP_MODEL_DIR is BASE/model/."""
    if _WORKDIR.value:
        return _WORKDIR.value
    model_dir = os.environ.get("AIP_MODEL_DIR", "").rstrip("/")
    if not model_dir:
        raise ConfigError("--workdir is missing: name a folder for what the run leaves.")
    return model_dir.rsplit("/", 1)[0]


if __name__ == "__main__":
    cli.run(main, default_config=str(_DEFAULT_CONFIG))
