"""The report of a run, and the comparison of several runs: one HTML file that needs nothing else.

`contents.py` and `comparing.py` read the folders of finished runs into plain data, `samples.py` asks the exported model
for recommendations, `charts.py` draws, and `page.py` fills the templates.
"""

from collections.abc import Sequence

from trainer import storage
from trainer.workdir import Workdir

# The modules are imported where they are used. Matplotlib takes a part of a second, which the start of a run should not
# wait for. A comparison needs no TensorFlow.


def write_report(workdir: str, output: str | None = None) -> tuple[str, str]:
    """Writes the report of a finished run.

    Args:
      workdir: The folder of the run, local or gs://.
      output: The HTML file, local or gs://. None for report.html in the folder of the run.

    Returns:
      The path of the HTML file, and the verdict on the run in a sentence.

    Raises:
      ConfigError: The folder holds no finished run.
      StorageError: A file of the run cannot be read, or the report cannot be written.
    """
    from trainer.reporting import contents, page, samples

    path = output or Workdir(workdir).report
    run = contents.gather(workdir)
    storage.write_bytes(path, page.render_run(run, samples.draw(workdir, run)).encode())
    return path, run.verdict.sentence


def write_comparison(workdirs: Sequence[str], output: str) -> tuple[str, str]:
    """Writes the comparison of several finished runs. Their models are not needed.

    Args:
      workdirs: The folders of the runs, local or gs://.
      output: The HTML file, local or gs://.

    Returns:
      The path of the HTML file, and what the comparison tells in a sentence.

    Raises:
      ConfigError: A folder holds no finished run, there are too many runs, or their test sets differ.
      StorageError: A file of a run cannot be read, or the page cannot be written.
    """
    from trainer.reporting import comparing, page

    compared = comparing.compare(workdirs)
    storage.write_bytes(output, page.render_comparison(compared).encode())
    return output, compared.sentence
