"""Run the trainer as a Vertex AI job, and serve the model that it exported.

python -m launch.vertex [submit] --project=P --region=R --image_uri=IMAGE --base_output_dir=gs://B/run \\
    [--config=configs/launch/NAME.py] [--config.FIELD=VALUE ...] [--dry_run] -- <flags of trainer.main>
python -m launch.vertex tune ...       a study of many runs, as in configs/launch/tune.py
python -m launch.vertex status --job=NAME
python -m launch.vertex logs   --job=NAME
python -m launch.vertex cancel --job=NAME

python -m launch.vertex upload   --project=P --region=R --model_uri=gs://B/serving/1 [--dry_run]
python -m launch.vertex deploy   --project=P --region=R --model=NUMBER [--endpoint=NUMBER] [--dry_run]
python -m launch.vertex undeploy --endpoint=NAME
python -m launch.vertex predict  --project=P --region=R --model=NUMBER --source=gs://B/FILE.jsonl \\
    --destination=gs://B/FOLDER [--dry_run]

The flags of a command: python -m launch.vertex COMMAND --help
"""

import functools
import sys
from collections.abc import Callable, Sequence

from launch.vertex import job_commands, model_commands
from settings import cli
from settings.errors import ConfigError

_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "submit": functools.partial(job_commands.submit, usage=__doc__),
    "tune": functools.partial(job_commands.submit, usage=__doc__, tuning=True),
    "status": functools.partial(job_commands.on_job, act=job_commands.print_status, usage=__doc__),
    "logs": functools.partial(job_commands.on_job, act=job_commands.print_logs, usage=__doc__),
    "cancel": functools.partial(job_commands.on_job, act=job_commands.cancel, usage=__doc__),
    "upload": functools.partial(model_commands.upload, usage=__doc__),
    "deploy": functools.partial(model_commands.deploy, usage=__doc__),
    "undeploy": functools.partial(model_commands.undeploy, usage=__doc__),
    "predict": functools.partial(model_commands.predict, usage=__doc__),
}


def main(arguments: Sequence[str]) -> int:
    """Runs the command that the first argument names, `submit` by default, and returns its exit code."""
    return cli.report_errors(lambda: _run(arguments)) or 0


def _run(arguments: Sequence[str]) -> int:
    command, own = "submit", list(arguments)
    if own and not own[0].startswith("-"):
        command = own.pop(0)
    if command not in _COMMANDS:
        raise ConfigError(f"{command!r} is not a command. Use one of {', '.join(_COMMANDS)}.")
    return _COMMANDS[command](own)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
