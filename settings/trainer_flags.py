"""All flags of `trainer.main` except --config. The trainer and the launchers read this list."""

from absl import flags

from settings.trainer_config import STRATEGIES

# So that absl counts the flags as those of the program that calls `define_trainer_flags`, whose --help shows them.
flags.disclaim_key_flags()


def define_trainer_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of `trainer.main` in `values`."""
    flags.DEFINE_enum(
        "strategy",
        "default",
        STRATEGIES,
        "The devices to train on: one device; all GPUs of this machine (or its CPU); the machines of TF_CONFIG; a TPU.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "workdir",
        None,
        "Output folder, local or gs://. The same command resumes a run that was interrupted.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "tpu", "local", "For --strategy=tpu: the TPU's name, local, or grpc://HOST:8470.", flag_values=values
    )
    flags.DEFINE_integer(
        "num_cpu_devices",
        1,
        "Split the CPU into several devices, to try --strategy=mirrored without GPUs.",
        1,
        flag_values=values,
    )
    flags.DEFINE_bool("allow_cpu", False, "Train on the CPU even in the GPU image.", flag_values=values)
