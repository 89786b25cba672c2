"""The command line: see the docstring of this package."""

import multiprocessing
import pathlib
from collections.abc import Collection

from absl import flags

from benchmarks.quality import report
from benchmarks.quality.methods import METHODS
from benchmarks.quality.protocols import PROTOCOLS, Protocol
from benchmarks.quality.records import Records
from benchmarks.quality.run import run_method
from settings import cli
from settings.errors import ConfigError


def main() -> int:
    """Runs what is not yet in the output folder, prints the tables, and returns 1 if a method failed."""
    protocols = _chosen("protocols", flags.FLAGS.protocols, PROTOCOLS)
    methods = _chosen("methods", flags.FLAGS.methods, METHODS)
    data_dir, output = pathlib.Path(flags.FLAGS.data_dir), pathlib.Path(flags.FLAGS.output)
    failed = []
    if not flags.FLAGS.table_only:
        for name in protocols:
            for method in _methods_to_run(name, methods, data_dir):
                if not _run_in_process(name, method, data_dir, output):
                    failed.append(f"{name} {method}")
    tested = {name: report.load_rows(Records(output), name, PROTOCOLS[name]) for name in protocols}
    for write in (report.results, report.details):
        for name, rows in tested.items():
            if rows:
                print(f"\n{write(name, PROTOCOLS[name], rows)}")
    if failed:
        print(f"\nFailed, see the errors above: {', '.join(failed)}. The same command tries again.")
    return 1 if failed else 0


def _methods_to_run(name: str, methods: Collection[str], data_dir: pathlib.Path) -> list[str]:
    protocol: Protocol = PROTOCOLS[name]
    if protocol.folder and not (flags.FLAGS.data_dir and (data_dir / protocol.folder).is_dir()):
        print(f"{name} is skipped: --data_dir has no folder {protocol.folder}.")
        return []
    chosen = [method for method in protocol.methods if method in methods]
    if name == "gowalla" and "ease" in chosen and not flags.FLAGS.gowalla_ease:
        print(
            "gowalla ease is skipped: each trial inverts a matrix of 40,981 rows, which takes 7 GB and about a quarter "
            "of an hour on 2 cores. --gowalla_ease runs it."
        )
        chosen.remove("ease")
    return chosen


def _run_in_process(name: str, method: str, data_dir: pathlib.Path, output: pathlib.Path) -> bool:
    """Runs a method in a process of its own, so that its peak of memory is its own. Returns whether it succeeded."""
    process = multiprocessing.get_context("spawn").Process(
        target=run_method,
        args=(name, method),
        kwargs={"data_dir": data_dir, "output": output, "num_trials": flags.FLAGS.num_trials},
    )
    process.start()
    process.join()
    return process.exitcode == 0


def _chosen(flag: str, names: Collection[str], known: Collection[str]) -> list[str]:
    """The names of a flag; all if it is empty.

    Raises:
      ConfigError: A name is unknown.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"--{flag} contains {name!r}, which is unknown. Use one or more of {', '.join(known)}.")
    return list(names or known)


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", "", "The folder with ml-100k/ and published/. Empty: only the embedded ratings.")
    flags.DEFINE_string("output", None, "The folder of the results. The same folder resumes.", required=True)
    flags.DEFINE_list("protocols", [], f"Which of {', '.join(PROTOCOLS)}. Empty: all.")
    flags.DEFINE_list("methods", [], f"Which of {', '.join(METHODS)}. Empty: all.")
    flags.DEFINE_integer("num_trials", 30, "The number of trials of each method with hyperparameters.", lower_bound=1)
    flags.DEFINE_bool("gowalla_ease", False, "Run EASE on Gowalla too.")
    flags.DEFINE_bool("table_only", False, "Only print the tables of the results so far.")
    cli.run(main)
