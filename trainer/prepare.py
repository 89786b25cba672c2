"""Reads and splits the ratings of a config once, so that runs open them in a moment and share the memory.

python -m trainer.prepare --config=configs/movielens_25m.py --output=data/movielens_25m
python -m trainer.main --config=configs/movielens_25m.py --config.data.source=data/movielens_25m --workdir=runs/mine
python -m trainer.prepare --verify=data/movielens_25m

On Apache Beam, with Beam's flags after --:

python -m trainer.prepare --config=configs/movielens_25m.py --output=data/movielens_25m --runner=DirectRunner -- \
    --direct_num_workers=4 --direct_running_mode=multi_processing
"""

import importlib.util
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from absl import flags
from ml_collections import config_flags
from rich.filesize import decimal

from configs import default
from settings import cli
from settings.errors import ConfigError, StorageError
from settings.trainer_config import load_trainer_config
from trainer import config as config_lib
from trainer import storage
from trainer.data.loading import load_source
from trainer.data.prepared.beam.job import DATAFLOW
from trainer.data.prepared.manifest import (
    Manifest,
    check_fields,
    check_sizes,
    data_fields,
    is_prepared,
    load_manifest,
    verify,
)
from trainer.data.prepared.writing import plan_dataset, write_prepared
from trainer.data.ratings import files, is_path
from trainer.data.summary import describe_columns, describe_rows


def main(beam_flags: Sequence[str]) -> int:
    """Prepares or verifies a data set, and prints what it has. Returns the exit code."""
    console = cli.build_console()
    output = (flags.FLAGS.output or "").rstrip("/")
    if bool(output) == bool(flags.FLAGS.verify):
        raise ConfigError(
            "Set --output to the folder to write, or --verify to the folder of a prepared data set to check."
        )
    runner = flags.FLAGS.runner
    if not runner and (beam_flags or flags.FLAGS.dry_run):
        raise ConfigError(
            f"{'--dry_run' if flags.FLAGS.dry_run else beam_flags[0]} is only used on Beam. Set --runner, for example "
            "to DirectRunner, or leave it out."
        )
    if folder := flags.FLAGS.verify:
        if not is_prepared(folder):
            raise ConfigError(f"--verify={folder} cannot be checked: {folder} holds no prepared data set.")
        console.print(f"All {len(verify(folder).files)} files in {folder} are as they were written.")
        return 0

    started = time.monotonic()
    arguments = config_lib.dataset_arguments(load_trainer_config(flags.FLAGS.config))
    source = arguments["source"]
    before = _check_output(output, arguments)
    if before and runner:
        raise ConfigError(
            f"--output={output} has a prepared data set already, and with --runner it is not compared with the source. "
            "Choose the name of a new folder, or leave out --runner to compare it on this machine."
        )
    is_dry_run_on_gs = flags.FLAGS.dry_run and "://" in source
    if is_path(source) and not is_dry_run_on_gs and is_prepared(source):
        raise ConfigError(
            f"config.data.source={source} is a prepared data set already. Set it to the source of its ratings."
        )
    if runner and flags.FLAGS.dry_run:
        for line in _beam().describe_job(arguments, output, runner=runner, flags=beam_flags):
            console.print(line, soft_wrap=True)
        return 0
    if runner:
        manifest = _beam().prepare_on_beam(
            arguments,
            output,
            runner=runner,
            flags=beam_flags,
            report=console.print,
            quiet=not flags.FLAGS.traceback,
        )
    else:
        dataset = load_source(**arguments)
        manifest = plan_dataset(dataset, arguments)
        if before:
            _check_same(output, before, manifest)
            console.print(f"{output} was prepared from the same ratings with the same config. There is nothing to do.")
            return 0
        manifest = write_prepared(dataset, output, manifest)
    for line in _account(manifest):
        console.print(line, soft_wrap=True)
    size = decimal(sum(facts["size"] for facts in manifest.files.values()))
    num_shards = len(manifest.shards)
    console.print(
        f"Wrote {size} in {num_shards} shard{'' if num_shards == 1 else 's'} to {output} in "
        f"{time.monotonic() - started:,.1f} s. Train with --config.data.source={output}",
        soft_wrap=True,
    )
    return 0


def _check_output(output: str, arguments: dict) -> Manifest | None:
    """Checks --output before anything slow. Returns the manifest if it has been prepared with this config.

    Raises:
      ConfigError: the folder cannot be used.
      StorageError: it cannot be written; or its manifest, or one of its files, cannot be read.
    """
    if flags.FLAGS.runner == DATAFLOW and not output.startswith("gs://"):
        raise ConfigError(
            f"--output={output} cannot be used with --runner={DATAFLOW}, whose workers write to Google Cloud Storage. "
            "Set it to a new folder on gs://."
        )
    if not is_path(output):
        raise ConfigError(
            f"--output={output} cannot be used: as config.data.source it is the name of other ratings. Choose another "
            "name."
        )
    if "://" in output:
        # A dry run needs no credentials.
        if not flags.FLAGS.dry_run and files.exists(output):
            raise ConfigError(f"--output={output} exists. Choose the name of a new folder.")
        return None
    if not storage.exists(output):
        parent = os.path.dirname(os.path.abspath(output))
        while not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        if not os.path.isdir(parent) or not os.access(parent, os.W_OK | os.X_OK):
            raise StorageError(
                f"--output={output} cannot be written: {parent} is not a folder that this user can write to. Choose "
                "another folder."
            )
        return None
    if not is_prepared(output):
        raise ConfigError(f"--output={output} exists and is no prepared data set. Choose the name of a new folder.")
    manifest = load_manifest(output)
    check_fields(output, manifest, data_fields(arguments))
    check_sizes(output, manifest)
    return manifest


def _beam() -> Any:
    """The module that runs Beam, which not every installation has."""
    if importlib.util.find_spec("apache_beam") is None:
        raise ConfigError(
            f"--runner={flags.FLAGS.runner} needs Apache Beam, which is not installed. It cannot be installed beside "
            "TensorFlow: make an environment of its own with `make setup-beam`, and start the same command with its "
            "Python."
        )
    from trainer.data.prepared.beam import running

    return running


def _check_same(output: str, before: Manifest, now: Manifest) -> None:
    """Raises ConfigError if the data in --output has not the ratings that would be written now."""
    # The fields are checked already. An earlier version of this project did not record the columns.
    before = replace(before, files={}, fields=now.fields, counts={"columns": now.counts["columns"], **before.counts})
    for name in sorted(before.counts.keys() | now.counts.keys()):
        if before.counts.get(name) != now.counts.get(name):
            raise ConfigError(
                f"--output={output} was prepared from other ratings: its {name} is {before.counts.get(name)!r}, and "
                f"now it would be {now.counts.get(name)!r}. Choose the name of a new folder."
            )
    if before != now:
        raise ConfigError(f"--output={output} was prepared from other ratings. Choose the name of a new folder.")


def _account(manifest: Manifest) -> list[str]:
    """What a data set has, a line each: its columns, its rows by what became of them, its users, items and splits."""
    counts = manifest.counts
    unknown = [f"{number:,} {name}" for name, number in counts["num_ratings_of_unknown_users"].items() if number]
    lines = [
        *describe_columns(counts),
        describe_rows(counts),
        f"{counts['num_users']:,} users, {counts['num_items']:,} items. Ratings: "
        + ", ".join(f"{number:,} {name}" for name, number in counts["num_ratings"].items())
        + ".",
    ]
    if unknown:
        lines.append(f"Left out, because their users have no training ratings: {', '.join(unknown)}.")
    return lines


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "The folder to write, local or gs://. It must not exist yet.")
    flags.DEFINE_string("verify", None, "A prepared data set whose files are compared with their checksums.")
    config_flags.DEFINE_config_file(
        "config", None, "The config whose ratings to prepare. (default: configs/default.py)"
    )
    flags.DEFINE_string("runner", None, "Prepare on Apache Beam, with this runner: DirectRunner, DataflowRunner, ...")
    flags.DEFINE_bool("dry_run", False, "With --runner: check the flags and print the job, without running it.")
    cli.run_launcher(
        main,
        default_config=default.__file__,
        way_out="--help lists the flags. With --runner, write Beam's own flags after --, as in "
        "`python -m trainer.prepare --output=data/mine --runner=DirectRunner -- --direct_num_workers=4`.",
    )
