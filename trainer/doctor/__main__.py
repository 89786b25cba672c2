"""Prints what would break on an accelerator, and the way out of it; exits with 78 where something would.

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
    """Prints the findings; returns the exit code of a ConfigError where a check failed."""
    findings = examine(
        cli.load_config(),
        strategy_name=flags.FLAGS.strategy,
        num_replicas=flags.FLAGS.num_replicas,
        workdir=flags.FLAGS.workdir or "",
        accelerator=flags.FLAGS.accelerator or "",
    )
    print_findings(findings)
    return ConfigError.exit_code if any(finding.passed is False for finding in findings) else 0


if __name__ == "__main__":
    flags.DEFINE_enum("strategy", "default", STRATEGIES, "Where it shall train.")
    flags.DEFINE_integer("num_replicas", 1, "Devices of the run, over all its machines.", 1)
    flags.DEFINE_enum("accelerator", None, list(ACCELERATORS), "What a replica shall run on.", case_sensitive=False)
    flags.DEFINE_string("workdir", None, "Folder, local or gs://, where the run shall leave what it leaves.")
    config_flags.DEFINE_config_file("config", None, "What shall be trained. (default: default.py)")
    cli.run(main, default_config=default.__file__)
