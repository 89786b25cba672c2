"""Write the report of a finished run, or the comparison of several, as one HTML file.

python -m trainer.report runs/mine                                    writes runs/mine/report.html
python -m trainer.report runs/mine --output=mine.html
python -m trainer.report runs/mine runs/other --output=compared.html
"""

from collections.abc import Sequence

from absl import flags

from settings import cli
from settings.errors import ConfigError
from trainer.reporting import write_comparison, write_report


def main(workdirs: Sequence[str], *, output: str | None) -> int:
    """Writes the report and prints its path and the verdict. Returns the exit code."""
    if not workdirs:
        raise ConfigError("Name the workdir of a finished run, as in `python -m trainer.report runs/mine`.")
    if len(set(workdirs)) < len(workdirs):
        raise ConfigError("A workdir is named twice. Name each run once.")
    if output is not None and not output.endswith((".html", ".htm")):
        raise ConfigError(f"--output={output} cannot be used: the report is HTML. Choose a name that ends in .html.")
    if len(workdirs) == 1:
        path, verdict = write_report(workdirs[0], output)
    elif output is not None:
        path, verdict = write_comparison(workdirs, output)
    else:
        raise ConfigError(
            "Set --output=FILE.html. The comparison of several runs belongs to no run alone, so it has no default name."
        )
    console = cli.build_console()
    console.print(f"Wrote {path}", soft_wrap=True)
    console.print(verdict, soft_wrap=True)
    return 0


def _run(workdirs: Sequence[str]) -> int:
    return main(workdirs, output=flags.FLAGS.output)


if __name__ == "__main__":
    # Defined only here, because other entry points define a flag of this name and a test may import them all.
    flags.DEFINE_string(
        "output", None, "The HTML file, local or gs://. Without it: report.html in the folder of the run."
    )
    cli.run_on_arguments(_run)
