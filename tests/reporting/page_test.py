"""The page of a planted run: what it tells, that nothing in it becomes markup, and that it needs nothing else."""

import itertools
import re
import shutil

import pytest

from configs import default
from tests.reporting.html_reading import Page
from tests.reporting.planted import LINES, NUM_USERS, QUALITY, samples_of, write_run
from trainer.reporting import page
from trainer.reporting.comparing import MAX_RUNS, compare
from trainer.reporting.contents import gather

ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
WHERE_OTHERS_ARE = re.compile(r"(?i)url\s*\(|@import|@font-face|expression\(|javascript:|<script|<iframe|<link|<object")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("planted") / "the run")


@pytest.fixture(scope="module")
def html(workdir):
    return page.render_run(gather(workdir), samples_of(["A Film (1999)"]))


@pytest.fixture(scope="module")
def compared_html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    other = default.get_config()
    other.model.embedding_size = 32
    better = {**QUALITY, "catalogue": {**QUALITY["catalogue"], "model": 0.1}}
    return page.render_comparison(
        compare([write_run(folder / "a"), write_run(folder / "b", config=other, quality=better)])
    )


def test_the_sections_and_their_order(html):
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings == [
        *("Final metrics", "Learning curves", "By user activity and item popularity", "What is recommended"),
        *("Ten users", "Similar items", "Data", "Speed", "Config", "What it must not be used for"),
    ]
    read = Page(html)
    targets = [attributes["href"] for attributes in read.all("a")]
    assert {target[1:] for target in targets} <= read.ids and len(targets) == len(headings)


def test_the_numbers_of_the_run_are_in_the_page(html, workdir):
    contents = gather(workdir)
    text = " ".join(Page(html).text.split())
    found = contents.verdict.protocols["catalogue"]
    assert f"recommends better than popularity, the best baseline (catalogue ndcg@10 {found.model}" in text.replace(
        "\u00a0", " "
    )
    assert "Better than popularity" in text and "No better than the item mean" in text
    assert f"{found.difference.value:+.4f}" in text and f"p {found.difference.p_value:.4f}" in text
    for metrics in contents.protocols["rated"].values():
        assert all(str(mean) in text for mean in metrics.values())
    # The account of the data.
    for row in ("read 1,010", "used 1,000", "the rating is out of range 3", "same user and item 7"):
        assert row in text, row
    assert "test 97 60 3 1970-01-03 1970-01-11" in text
    assert "100 steps and 1,234 lists per second, with the mirrored strategy on 2 replicas." in text
    assert "model.embedding_size 128 chosen for the size of the data 0" in text
    assert "exported step, of 40" in text


def test_charts_are_described_for_those_who_do_not_see_them(html, workdir):
    charts = Page(html).all("svg")
    read = Page(html)
    # Two protocols with two metrics and a chart of differences each, three curves, two groups, three of what is
    # recommended.
    assert len(charts) == 2 * 3 + 3 + 2 + 3
    for chart in charts:
        assert chart["role"] == "img" and set(chart["aria-labelledby"].split()) <= read.ids
    mean = gather(workdir).protocols["catalogue"]["model"]["ndcg@10"]
    assert f"model {mean.value:.4f} ({mean.low:.4g} to {mean.high:.4g}); popularity" in html
    assert "catalogue ndcg@10: the model minus each baseline</title>" in html
    assert "2.5 at epoch 4" in html  # The validation loss.


def test_every_table_names_its_rows_and_columns(html, compared_html):
    for text in (html, compared_html):
        read = Page(text)
        assert read.all("html") == [{"lang": "en"}]
        assert all(attributes.get("scope") in ("row", "col") for attributes in read.all("th"))
        assert len(read.all("h1")) == 1
        levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h\d", tag)]
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_tags_match_and_ids_are_unique(html, compared_html):
    assert Page(html).errors == [] and Page(compared_html).errors == []


def test_nothing_outside_of_the_page_is_needed(html, compared_html):
    for text in (html, compared_html):
        assert not WHERE_OTHERS_ARE.search(text)
        for tag, attributes in Page(text).tags:
            assert not attributes.keys() & {"src", "srcset", "action", "data", "poster", "xlink:href"}, tag
            assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)
            assert not any(name.startswith("on") for name in attributes) and tag != "clippath"
        assert "default-src 'none'" in text


def test_what_comes_from_the_data_is_text(tmp_path):
    config = default.get_config()
    config.data.source = ATTACK
    run = gather(write_run(tmp_path / ATTACK.replace("/", "_"), config=config, source=ATTACK))
    samples = samples_of([ATTACK])
    item = samples.users[0].rated[0].__class__(ATTACK, "", (ATTACK,), 1, None)
    user = samples.users[0].__class__(ATTACK, 3, (item,), (item,))
    samples = samples.__class__((user, *samples.users[1:]), True, ((item, (samples.similar[0][1])),))
    read = Page(page.render_run(run, samples))
    assert read.errors == [] and not read.all("script") and not read.all("img")
    assert "<script>alert(1)</script>" in read.text
    titles = {attributes.get("title") for _, attributes in read.tags}
    assert not any("onerror" in name for _, attributes in read.tags for name in attributes) and titles


def test_the_page_stays_small_whatever_the_data(tmp_path):
    """10,000 long titles, thousands of log lines, and more metrics than anyone reads."""
    config = default.get_config()
    config.data.source = "é" * 5000
    config.eval.metrics = tuple(f"ndcg@{cutoff}" for cutoff in range(1, 41))
    lines = [{**LINES[i % 2], "step": i + 1, "epoch": (i + 1) / 10} for i in range(20_000)]
    run = write_run(tmp_path / "run", config=config, names=config.eval.metrics, lines=lines, source="é" * 5000)
    titles = [f"{number} " + "<&\"'é" * 2000 for number in range(10_000)]
    html = page.render_run(gather(run), samples_of(titles))
    assert len(html.encode()) < 1_000_000
    read = Page(html)
    assert read.errors == []
    hovers = [attributes["title"] for attributes in read.all("span") if "title" in attributes]
    assert any(hover.startswith('15 <&"') and len(hover) == 300 for hover in hovers)
    assert "ndcg@40" in read.text
    assert len(read.all("svg")) == 2 * (page.MAX_CHARTS + 1) + 3 + 2 + 3


def test_many_runs_fit_too(tmp_path):
    lines = [{**LINES[i % 2], "step": i + 1, "epoch": (i + 1) / 10} for i in range(2_000)]
    runs = [write_run(tmp_path / "run", lines=lines)]
    runs += [shutil.copytree(runs[0], str(tmp_path / f"run {number}")) for number in range(1, MAX_RUNS)]
    html = page.render_comparison(compare(runs))
    assert len(html.encode()) < 1_000_000 and Page(html).errors == []


def test_the_same_run_has_the_same_page(html, workdir):
    assert page.render_run(gather(workdir), samples_of(["A Film (1999)"])) == html


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        ({"split": None}, ["nothing is known about its quality", "Metrics of the training lists"], ["Paired"]),
        ({"quality": {"catalogue": QUALITY["catalogue"]}, "has_ratings": False}, ["events"], ["★", "Ordering rated"]),
        ({"quality": {"rated": QUALITY["rated"]}}, ["was not measured"], ["By user activity", "coverage@10"]),
        ({"lines": []}, ["Final metrics"], ["Learning curves"]),
        ({"split": "validation"}, ["on the validation ratings, which also chose"], []),
        ({"periods": {}}, ["Final metrics"], ["1970"]),
    ],
)
def test_what_was_not_measured_is_left_out(tmp_path, options, present, absent):
    html = page.render_run(gather(write_run(tmp_path / "run", **options)), samples_of([""]))
    read = Page(html)
    assert read.errors == []
    assert all(words in read.text for words in present)
    assert not any(words in read.text for words in absent if options.get("has_ratings", True) or words != "★")
    assert "item i8" in read.text  # An item without a title has its id.


def test_the_comparison_of_two_runs(compared_html):
    text = " ".join(Page(compared_html).text.replace("\u00a0", " ").split())
    assert "Comparison of 2 runs" in text
    assert "B recommends better than A (catalogue ndcg@10 " in text
    assert "orders rated items no better than" in text
    assert re.search(r"ndcg@10 \+0\.0500 \+0\.0\d+ to \+0\.0\d+, p 0\.0001", text) or "+0.0500" in text
    assert "model.embedding_size 128 128" not in text  # Both runs chose it.
    assert text.count("recommends better than popularity, the best baseline") == 2
    assert f"{NUM_USERS:,}" in text
