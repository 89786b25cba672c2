"""The page in a browser: no error, no need for a network, no horizontal overflow, and pages when it is printed."""

import html
import re
import shutil
import subprocess

import pytest

from tests.reporting.planted import samples_of, write_run
from trainer.reporting import page
from trainer.reporting.comparing import compare
from trainer.reporting.contents import gather

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
WIDTHS = (1280, 390)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="needs Chromium, which is not installed"),
]

# A frame has the width of a phone, which the window of a browser cannot have.
FRAMES = """<!DOCTYPE html><body>{frames}<script>
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const root = frame.contentDocument.documentElement;
    const beyond = [...root.querySelectorAll("body *")].filter(element =>
      !element.closest(".scroll") && element.getBoundingClientRect().right > root.clientWidth + 1);
    const overflow = root.scrollWidth - root.clientWidth;
    return [frame.width, root.querySelectorAll("svg").length, overflow, beyond.length].join(":");
  }});
  document.body.textContent = "FOUND " + found.join(" ");
}});
</script>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page with long words, and a comparison."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [write_run(folder / name, names=("ndcg@10", "mrr", "recall@20", "arp")) for name in ("a" * 150, "b")]
    titles = ["A Film (1999)", "Longwordwithoutanyspace" * 20, "漢字" * 200]
    return {
        "run": page.render_run(gather(runs[0]), samples_of(titles)),
        "comparison": page.render_comparison(compare(runs)),
    }


def browse(tmp_path, *arguments):
    """Runs the browser without a network. Returns what it prints."""
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path}/profile", *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_the_page_fits_a_window_and_a_phone_without_an_error(pages, tmp_path, name):
    frames = [f'<iframe width="{width}" srcdoc="{html.escape(pages[name])}"></iframe>' for width in WIDTHS]
    path = tmp_path / "frames.html"
    path.write_text(FRAMES.format(frames="".join(frames)))
    printed, errors = browse(tmp_path, "--dump-dom", path.as_uri())
    assert errors == []
    num_charts = pages[name].count("<svg")
    found = re.search(r"FOUND ([\d: ]+)", printed)[1].split()
    assert found == [f"{width}:{num_charts}:0:0" for width in WIDTHS] and num_charts > 5


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_it_can_be_printed(pages, tmp_path, name):
    path, printed = tmp_path / "page.html", tmp_path / "page.pdf"
    path.write_text(pages[name])
    _, errors = browse(tmp_path, f"--print-to-pdf={printed}", "--no-pdf-header-footer", path.as_uri())
    assert errors == []
    assert max(int(number) for number in re.findall(rb"/Count (\d+)", printed.read_bytes())) > 1
