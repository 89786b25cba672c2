"""The command line of trainer.recommend: what it prints, writes and refuses."""

import contextlib
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from absl import flags
from absl.testing import flagsaver

from settings.errors import ConfigError, UserError
from tests.conftest import NUM_ITEMS, NUM_USERS, REPOSITORY
from tests.serving.planted import ODD_USERS, odd_title
from trainer.recommend import __main__ as recommend
from trainer.schema import ITEM_ID, TITLE, USER_ID
from trainer.serving.recommender import RECOMMENDATIONS_SCHEMA, Recommender


@contextlib.contextmanager
def workdir_flag():
    """Defines --workdir, which each entry point defines only when it runs."""
    if "workdir" in flags.FLAGS:
        yield
        return
    flags.DEFINE_string("workdir", None, "As the entry point defines it.")
    try:
        yield
    finally:
        delattr(flags.FLAGS, "workdir")


def run(*arguments):
    """Runs the command line and returns its exit code."""
    with workdir_flag(), flagsaver.flagsaver():
        flags.FLAGS(["recommend", *arguments])
        return recommend.main()


@pytest.fixture
def ask(planted_run, capsys):
    """Returns what the command line prints for the given arguments."""

    def ask(*arguments):
        capsys.readouterr()
        assert run(f"--workdir={planted_run.workdir}", *arguments) == 0
        return capsys.readouterr().out

    return ask


def json_rows(ask, *arguments):
    return json.loads(ask(*arguments, "--format=json"))["recommendations"]


@pytest.mark.parametrize("user_id", [*ODD_USERS, "u17"])
def test_json_lists_the_best_items(ask, planted_run, user_id):
    answer = json.loads(ask(f"--user_id={user_id}", "--k=6", "--include_seen", "--format=json"))
    assert (answer["user_id"], answer["source"]) == (user_id, "model")
    user = planted_run.user_index(user_id)
    best = planted_run.best_items(user)[:6]
    item_ids = planted_run.item_ids(best)
    assert [{name: value for name, value in row.items() if name != "score"} for row in answer["recommendations"]] == [
        {ITEM_ID: item, TITLE: odd_title(item), "rank": rank} for rank, item in enumerate(item_ids, start=1)
    ]
    scores = [row["score"] for row in answer["recommendations"]]
    assert scores == pytest.approx(planted_run.scores[user, best].tolist(), rel=1e-5)


@pytest.mark.parametrize("user_id", ["[bold]x[/bold]", "two\nlines", "u17"])
def test_the_table_shows_the_same_without_markup(ask, user_id):
    rows = json_rows(ask, f"--user_id={user_id}", "--k=3")
    printed = ask(f"--user_id={user_id}", "--k=3")
    before, table = printed.split("Top 3 for user {}\n".format(user_id.replace("\n", "\\n")))
    lines = [line.split() for line in table.splitlines()]
    assert before == ""
    assert lines[0] == ["rank", "item_id", "title", "score"]
    assert lines[1:] == [[str(row["rank"]), row[ITEM_ID], *row[TITLE].split(), f"{row['score']:.3f}"] for row in rows]


@pytest.mark.parametrize("user_id", [*ODD_USERS[:2], "u17"])
def test_every_rated_item_is_left_out_unless_seen_items_are_included(ask, planted_run, user_id):
    user = planted_run.user_index(user_id)
    new = planted_run.item_ids(planted_run.best_items(user, excluded=planted_run.seen[user]))
    for seen in ([], ["--exclude_seen"], ["--noinclude_seen"]):
        assert [row[ITEM_ID] for row in json_rows(ask, f"--user_id={user_id}", "--k=1000", *seen)] == new
    for seen in (["--include_seen"], ["--noexclude_seen"]):
        assert len(json_rows(ask, f"--user_id={user_id}", "--k=1000", *seen)) == NUM_ITEMS


@pytest.mark.parametrize("user_id", ["nobody", "U17", ""])
def test_an_unknown_user_is_an_error(planted_run, user_id):
    with pytest.raises(UserError) as refused:
        run(f"--workdir={planted_run.workdir}", f"--user_id={user_id}")
    assert refused.value.exit_code == 1
    assert f"--user_id={user_id!r} is unknown" in str(refused.value)
    assert "--unknown=popular" in str(refused.value)


def test_an_unknown_user_may_get_the_most_popular_items(ask, planted_run):
    items = planted_run.vocabulary.items.to_pylist()[1:]
    most = sorted((-item["num_ratings"], item[ITEM_ID]) for item in items)[:4]

    answer = json.loads(ask("--user_id=nobody", "--k=4", "--unknown=popular", "--format=json"))
    assert (answer["user_id"], answer["source"]) == ("nobody", "popular")
    assert answer["recommendations"] == [
        {ITEM_ID: item, TITLE: odd_title(item), "rank": rank, "score": -count}
        for rank, (count, item) in enumerate(most, start=1)
    ]

    printed = ask("--user_id=[red]nobody", "--k=4", "--unknown=popular").splitlines()
    assert printed[0] == "User [red]nobody is unknown. The 4 most popular items"
    assert printed[1].split() == ["rank", "item_id", "title", "ratings"]
    assert [line.split()[-1] for line in printed[2:]] == [str(-count) for count, _ in most]

    assert len(json_rows(ask, "--user_id=nobody", "--k=99", "--unknown=popular")) == NUM_ITEMS
    assert json.loads(ask("--user_id=u17", "--unknown=popular", "--format=json"))["source"] == "model"


@pytest.mark.parametrize("include_seen", [False, True])
def test_all_users_are_written_to_the_output(planted_run, tmp_path, capsys, include_seen):
    path = f"{tmp_path}/[bold]all.parquet"
    capsys.readouterr()
    seen = ["--include_seen"] if include_seen else []
    assert run(f"--workdir={planted_run.workdir}", "--all_users", "--k=2", f"--output={path}", *seen) == 0
    assert capsys.readouterr().out == f"Wrote 80 recommendations for 40 users to {path}\n"
    table = pq.read_table(path)
    assert table.schema.equals(RECOMMENDATIONS_SCHEMA)
    user_ids = planted_run.vocabulary.users[USER_ID].to_pylist()[1:]
    assert table[USER_ID].to_pylist() == [user_id for user_id in user_ids for _ in range(2)]
    excluded = [set()] * (NUM_USERS + 1) if include_seen else planted_run.seen
    best = [planted_run.best_items(user, excluded=excluded[user])[:2] for user in range(1, NUM_USERS + 1)]
    assert table[ITEM_ID].to_pylist() == planted_run.item_ids([item for items in best for item in items])


@pytest.mark.parametrize("user_id", [ODD_USERS[1], "nobody"])
def test_one_user_can_be_written_in_any_format(ask, tmp_path, user_id):
    """An unknown user keeps the id of the request."""
    arguments = (f"--user_id={user_id}", "--unknown=popular", "--k=3")
    rows = [{USER_ID: user_id, **row} for row in json_rows(ask, *arguments)]
    for suffix, read in (
        ("parquet", lambda path: pq.read_table(path).to_pylist()),
        ("csv", lambda path: pa.csv.read_csv(path).to_pylist()),
        ("jsonl", lambda path: [json.loads(line) for line in path.read_text().splitlines()]),
    ):
        path = tmp_path / f"one.{suffix}"
        assert ask(*arguments, f"--output={path}") == f"Wrote 3 recommendations for 1 user to {path}\n"
        found = read(path)
        scores = [row.pop("score") for row in found]
        assert scores == pytest.approx([row["score"] for row in rows], rel=1e-6)
        assert found == [{name: value for name, value in row.items() if name != "score"} for row in rows]


def test_similar_items_are_printed_and_written(ask, planted_run, tmp_path):
    recommender = Recommender(planted_run.workdir)
    item = int(recommender.vocabulary.item_indices(pa.array(["i4"]))[0])
    found = recommender.similar_items(np.array([item], np.int32), 3)
    answer = json.loads(ask("--item_id=i4", "--k=3", "--format=json"))
    assert answer == {
        "item_id": "i4",
        "title": odd_title("i4"),
        "similar_items": [
            {"item_id": row["similar_item_id"], "title": row["similar_title"], "rank": rank, "score": row["score"]}
            for rank, row in enumerate(found.to_pylist(), start=1)
        ],
    }
    printed = ask("--item_id=i4", "--k=3").splitlines()
    assert printed[0] == f"The 3 items most similar to i4, {odd_title('i4')}"
    assert printed[1].split() == ["rank", "item_id", "title", "cosine"]
    assert [line.split()[1] for line in printed[2:]] == found["similar_item_id"].to_pylist()
    path = tmp_path / "similar.parquet"
    assert ask("--item_id=i4", "--k=3", f"--output={path}") == f"Wrote 3 items that are similar to i4 to {path}\n"
    assert pq.read_table(path).equals(found)


def test_an_unknown_item_is_an_error(planted_run):
    with pytest.raises(UserError, match=r"--item_id='I4' is unknown: .* 30 items are known") as refused:
        run(f"--workdir={planted_run.workdir}", "--item_id=I4")
    assert refused.value.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "set one of --user_id=ID, --all_users, --ratings=FILE, --pairs=FILE and --item_id=ID"),
        (["--user_id=u1", "--all_users", "--output=x.parquet"], "set one of --user_id=ID"),
        (["--user_id=u1", "--ratings=mine.csv"], "set one of --user_id=ID"),
        (["--all_users"], "--all_users needs --output=FILE"),
        (["--pairs=x.csv"], "--pairs needs --output=FILE"),
        (["--all_users", "--output=x.parquet", "--format=json"], "--format cannot be used with --all_users"),
        (["--ratings=x.csv", "--output=x.parquet", "--format=json"], "--format cannot be used with --output"),
        (["--pairs=x.csv", "--output=x.csv", "--k=3"], "--k cannot be used with --pairs"),
        (["--pairs=x.csv", "--output=x.csv", "--exclude_seen"], "--exclude_seen cannot be used with --pairs"),
        (["--ratings=x.csv", "--include_seen"], "--include_seen cannot be used with --ratings"),
        (["--item_id=x", "--unknown=popular"], "--unknown cannot be used with --item_id"),
        (["--user_id=u1", "--include_seen", "--exclude_seen"], "contradict each other"),
        (["--user_id=u1", "--noinclude_seen", "--noexclude_seen"], "contradict each other"),
        (["--all_users", "--output=x.json"], r"--output=x.json cannot .* \.parquet .* \.csv .* or \.jsonl"),
        (["--item_id=u1", "--output=x.csv.gz"], r"--output=x.csv.gz cannot be used: the suffix"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(tmp_path, arguments, named):
    """Before the workdir is read, which here holds no run."""
    with pytest.raises(ConfigError, match=named) as refused:
        run(f"--workdir={tmp_path}", *arguments)
    assert refused.value.exit_code == 78


def test_wrong_flags_are_refused_before_tensorflow_is_imported():
    code = (
        "import sys; from absl import flags; from trainer.recommend import __main__ as recommend\n"
        "flags.FLAGS(['recommend'])\n"
        "try: recommend.main()\n"
        "except Exception as error: print(type(error).__name__, 'tensorflow' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert printed.stdout == "ConfigError False\n"


def test_a_workdir_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path} does not contain a run"):
        run(f"--workdir={tmp_path}", "--user_id=u1")


def test_a_user_who_has_seen_everything_gets_an_error(planted_run, monkeypatch):
    monkeypatch.setattr(Recommender, "recommend", lambda *_, **__: RECOMMENDATIONS_SCHEMA.empty_table())
    with pytest.raises(UserError, match="nothing to recommend to the user 'u17', who has seen every item") as refused:
        run(f"--workdir={planted_run.workdir}", "--user_id=u17")
    assert refused.value.exit_code == 1
