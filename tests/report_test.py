"""trainer.report from end to end, and what it refuses."""

import subprocess
import sys

import pytest

from settings.errors import ConfigError
from tests.conftest import train
from tests.reporting.html_reading import Page
from tests.reporting.planted import write_run
from trainer import report
from trainer.reporting import write_report
from trainer.workdir import Workdir


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    return [write_run(folder / name) for name in ("a", "b")]


def test_a_run_ends_with_its_report_and_its_verdict(tiny_config, tmp_path, capsys):
    tiny_config.history.encoder = "pooled"
    tiny_config.candidates.method = "catalogue"
    tiny_config.model.query_embedding = False
    tiny_config.train.num_epochs = 2
    workdir = tmp_path / "run"
    assert train(tiny_config, workdir, report_fn=write_report) == 0
    *_, where, verdict = capsys.readouterr().out.splitlines()
    result = Workdir(str(workdir)).load_result()
    assert verdict == result["verdict"]["sentence"] and verdict.startswith("Verdict: recommends ")
    assert list(result["verdict"]["protocols"]) == ["rated", "catalogue"]
    assert f"the report is {workdir}/report.html" in where
    html = (workdir / "report.html").read_text()
    read = Page(html)
    assert read.errors == [] and verdict.removeprefix("Verdict: ") in read.text.replace("\u00a0", " ")
    # Ten users with their ratings and recommendations, and eight items with similar ones.
    assert html.count('class="person"') == 10 and "Film 7" in read.text and "★" in read.text
    assert read.text.count("User u") == 10
    assert "1970-01-01" in read.text

    # A finished run is left as it is. A report that is missing is written again, and is the same.
    (workdir / "report.html").unlink()
    assert train(tiny_config, workdir, report_fn=write_report) == 0
    printed = capsys.readouterr().out
    assert "nothing left to do" in printed and printed.splitlines()[-1] == verdict
    assert (workdir / "report.html").read_text() == html
    output = tmp_path / "mine.html"
    assert report.main([str(workdir)], output=str(output)) == 0
    assert capsys.readouterr().out.splitlines() == [f"Wrote {output}", verdict]
    assert output.read_text() == html


def test_nothing_is_known_of_a_run_that_held_out_nothing(tiny_config, tmp_path, capsys):
    """This model has no history, so its users are shown by what they have seen."""
    tiny_config.split.method = "none"
    tiny_config.train.num_epochs = 1
    assert train(tiny_config, tmp_path, report_fn=write_report) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "Verdict: no ratings were held out, so nothing is known about its quality."
    )
    text = Page((tmp_path / "report.html").read_text()).text
    assert "some items that the user has rated" in text and "★" not in text
    assert "Do not use it for new users: it knows 40 users by their ids." in text


def test_the_command_line(planted, tmp_path):
    """Comparing needs no TensorFlow, and nothing needs pyplot."""
    program = (
        "import runpy, sys; sys.argv = ['report', *sys.argv[1:]]\n"
        "try: runpy.run_module('trainer.report', run_name='__main__')\n"
        "finally: assert not {'tensorflow', 'matplotlib.pyplot'} & sys.modules.keys()\n"
    )

    def call(*arguments):
        return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)

    output = tmp_path / "compared.html"
    done = call(*planted, f"--output={output}")
    assert (done.returncode, done.stderr) == (0, "")
    wrote, verdict = done.stdout.splitlines()
    assert wrote == f"Wrote {output}" and verdict.startswith(f"Verdict: {planted[0]} recommends no better than")
    assert Page(output.read_text()).errors == []
    wrong = call(*planted)
    assert wrong.returncode == ConfigError.exit_code and "--output=FILE.html" in wrong.stderr


def test_what_cannot_be_reported_is_refused(planted, tmp_path):
    with pytest.raises(ConfigError, match="Name the workdir of a finished run"):
        report.main([], output=None)
    with pytest.raises(ConfigError, match="named twice"):
        report.main([planted[0]] * 2, output="x.html")
    with pytest.raises(ConfigError, match=r"belongs to no run alone"):
        report.main(planted, output=None)
    with pytest.raises(ConfigError, match=r"report\.pdf cannot be used: the report is HTML"):
        report.main(planted[:1], output=f"{tmp_path}/report.pdf")
    with pytest.raises(ConfigError, match=r"does not contain a run: it has no config\.json"):
        report.main([str(tmp_path / "none")], output=None)
    other = write_run(tmp_path / "other", test_set="2")
    with pytest.raises(ConfigError, match="cannot be compared, because their test sets differ in"):
        report.main([planted[0], other], output=f"{tmp_path}/x.html")
    with pytest.raises(ConfigError, match="21 runs are too many for one page"):
        report.main([f"{planted[0]}/{number}" for number in range(21)], output=f"{tmp_path}/x.html")
    unfinished = Workdir(write_run(tmp_path / "unfinished"))
    (tmp_path / "unfinished" / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"has no report yet: it has no result\.json"):
        report.main([unfinished.path], output=None)
    assert not list(tmp_path.glob("*.html"))
