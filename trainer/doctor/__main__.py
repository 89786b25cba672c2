"""Checks whether a run would work on an accelerator, and prints how to fix it. Exits with 78 if a check fails.

python -m trainer.doctor --strategy=tpu --config=configs/movielens_1m.py --num_replicas=8 --accelerator=TPU-v3
"""

from absl import flags
from ml_collections import config_flags

from configs import default
from settings import cli
from settings.errors import ConfigError
from trainer.doctor import examine, print_findings
from trainer.doctor.memory import ACCELERATORS
from trainer.strategy import STRATEGIES


def main() -> int:
    """Prints the findings. Returns the exit code of a ConfigError if a check failed, and 0 otherwise."""
    findings = examine(
        flags.FLAGS.config,
        strategy_name=flags.FLAGS.strategy,
        num_replicas=flags.FLAGS.num_replicas,
        workdir=flags.FLAGS.workdir or "",
        accelerator=flags.FLAGS.accelerator or "",
    )
    print_findings(findings)
    return ConfigError.exit_code if any(finding.passed is False for finding in findings) else 0


if __name__ == "__main__":
    flags.DEFINE_enum("strategy", "default", STRATEGIES, "The strategy of the run.")
    flags.DEFINE_integer("num_replicas", 1, "The number of devices of the run, over all its machines.", 1)
    flags.DEFINE_enum("accelerator", None, list(ACCELERATORS), "The accelerator of a replica.", case_sensitive=False)
    flags.DEFINE_string("workdir", None, "The output folder of the run, local or gs://.")
    config_flags.DEFINE_config_file("config", None, "The config file of the run. (default: configs/default.py)")
    cli.run(main, default_config=default.__file__)
