"""trainer.recommend --ratings: recommendations for the users of a file."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from settings.errors import ConfigError, StorageError, UserError
from tests.serving.planted import ODD_USERS
from tests.serving.recommend_test import run
from trainer.schema import ITEM_ID, TITLE, USER_ID
from trainer.serving import recommender as recommender_module
from trainer.serving.recommender import RECOMMENDATIONS_SCHEMA
from trainer.workdir import Workdir


@pytest.fixture
def ask(history_run, capsys):
    """Returns what the command line prints for the given arguments."""

    def ask(*arguments):
        capsys.readouterr()
        assert run(f"--workdir={history_run.workdir}", *arguments) == 0
        return capsys.readouterr().out

    return ask


def write(path, table):
    pa.csv.write_csv(table, path)
    return f"--ratings={path}"


def without_users(table):
    return table.drop_columns([USER_ID])


@pytest.mark.parametrize("user_id", ["u17", ODD_USERS[1]])
def test_the_rows_of_a_known_user_give_what_the_model_gives_to_the_user(ask, history_run, tmp_path, user_id):
    """The file has more items than the 15 of a history, and all of them are left out."""
    mine = write(tmp_path / "mine.csv", history_run.ratings_of(user_id))
    answer = json.loads(ask(mine, "--k=30", "--format=json"))
    user = history_run.user_index(user_id)
    best = history_run.best_items(user, excluded=history_run.seen[user])
    assert len(history_run.seen[user]) > 15 and len(best) > 3
    assert [row[ITEM_ID] for row in answer["recommendations"]] == history_run.item_ids(best)
    scores = [row["score"] for row in answer["recommendations"]]
    assert scores == pytest.approx(history_run.scores[user, best].tolist(), rel=1e-4, abs=1e-5)
    by_id = json.loads(ask(f"--user_id={user_id}", "--k=30", "--format=json"))["recommendations"]
    assert [row["score"] for row in by_id] == pytest.approx(scores, rel=1e-5)
    del answer["recommendations"]
    assert answer == {
        "user_id": user_id,
        "source": "history",
        "num_ratings": len(history_run.seen[user]),
        "num_unknown_items": 0,
        "missing_columns": [],
    }


def test_a_file_without_users_and_times_is_one_user_in_order(ask, history_run, tmp_path):
    rows = history_run.ratings_of("u17")
    named = json.loads(ask(write(tmp_path / "a.csv", rows), "--format=json"))
    mine = write(tmp_path / "b.csv", rows.drop_columns([USER_ID, "timestamp"]))
    answer = json.loads(ask(mine, "--format=json"))
    assert answer["recommendations"] == named["recommendations"]
    assert (answer["user_id"], answer["missing_columns"]) == ("-", ["user_id", "timestamp"])
    printed = ask(mine, "--k=3").splitlines()
    assert printed[0] == f"Top 3 for user -, from {rows.num_rows} ratings"
    assert printed[1].split() == ["rank", "item_id", "title", "score"]
    assert [line.split()[1] for line in printed[2:5]] == [row[ITEM_ID] for row in answer["recommendations"][:3]]
    assert printed[5:] == ["The file has no column 'user_id', 'timestamp'."]


def test_ratings_of_unknown_items_are_counted_and_left_out(ask, history_run, tmp_path):
    rows = without_users(history_run.ratings_of("u17"))
    strange = pa.table([["nope"], [5.0], [10**9]], names=rows.column_names).cast(rows.schema)
    mine = write(tmp_path / "mine.csv", pa.concat_tables([rows, strange]))
    answer = json.loads(ask(mine, "--format=json"))
    assert (answer["num_ratings"], answer["num_unknown_items"]) == (rows.num_rows + 1, 1)
    alone = json.loads(ask(write(tmp_path / "alone.csv", rows), "--format=json"))
    assert answer["recommendations"] == alone["recommendations"]
    printed = ask(mine).splitlines()
    assert f"1 of {rows.num_rows + 1} ratings were left out: training has not seen their items." in printed


def test_all_users_of_a_file_are_written_to_the_output(ask, history_run, tmp_path, monkeypatch):
    user_ids = ["u20", "u9", "u30", "[bold]x[/bold]"]
    mine = write(tmp_path / "mine.csv", history_run.ratings_of(*user_ids))
    output = f"{tmp_path}/all.parquet"
    printed = ask(mine, "--k=2", f"--output={output}")
    assert printed == f"Wrote 8 recommendations for 4 users to {output}\n"
    table = pq.read_table(output)
    assert table.schema.equals(RECOMMENDATIONS_SCHEMA)
    in_order = table[USER_ID].to_pylist()[::2]
    assert sorted(in_order) == sorted(user_ids)
    users = [history_run.user_index(user_id) for user_id in in_order]
    best = [history_run.best_items(user, excluded=history_run.seen[user])[:2] for user in users]
    assert table[ITEM_ID].to_pylist() == history_run.item_ids([item for items in best for item in items])

    monkeypatch.setattr(recommender_module, "QUERIES_PER_CHUNK", 3)
    ask(mine, "--k=2", f"--output={output}")
    chunked = pq.read_table(output)
    assert chunked.drop_columns(["score"]).equals(table.drop_columns(["score"]))
    np.testing.assert_allclose(chunked["score"], table["score"], rtol=1e-5)


def test_more_than_one_user_needs_an_output(history_run, tmp_path):
    mine = write(tmp_path / "mine.csv", history_run.ratings_of("u20", "u9"))
    with pytest.raises(ConfigError, match=r"has 2 users\. Set --output=FILE.parquet"):
        run(f"--workdir={history_run.workdir}", mine)


def test_users_without_a_known_item_are_an_error_or_get_the_most_popular_items(ask, history_run, tmp_path):
    rows = history_run.ratings_of("u20")
    strange = pa.table([["new"], ["nope"], [5.0], [1]], names=rows.column_names).cast(rows.schema)
    alone = write(tmp_path / "alone.csv", strange)
    with pytest.raises(UserError, match="cannot be used for 1 of 1 users, for instance 'new'") as refused:
        run(f"--workdir={history_run.workdir}", alone)
    assert refused.value.exit_code == 1 and "--unknown=popular" in str(refused.value)

    items = history_run.vocabulary.items.slice(1, 4).select([ITEM_ID, TITLE, "num_ratings"]).to_pylist()
    answer = json.loads(ask(alone, "--unknown=popular", "--k=4", "--format=json"))
    assert answer["source"] == "popular"
    assert [(row[ITEM_ID], row["score"]) for row in answer["recommendations"]] == [
        (item[ITEM_ID], item["num_ratings"]) for item in items
    ]
    printed = ask(alone, "--unknown=popular", "--k=4").splitlines()
    assert printed[0] == "The 4 most popular items"
    assert printed[1].split()[-1] == "ratings"

    both = write(tmp_path / "both.csv", pa.concat_tables([rows, strange]))
    output = f"{tmp_path}/both.parquet"
    with pytest.raises(UserError, match="cannot be used for 1 of 2 users"):
        run(f"--workdir={history_run.workdir}", both, f"--output={output}")
    assert ask(both, f"--output={output}", "--unknown=popular", "--k=1").splitlines() == [
        f"Wrote 2 recommendations for 2 users to {output}",
        f"1 of {rows.num_rows + 1} ratings were left out: training has not seen their items.",
        "1 of 2 users have no other ratings, and get the most popular items.",
    ]
    user = history_run.user_index("u20")
    best = history_run.best_items(user, excluded=history_run.seen[user])[:1]
    table = pq.read_table(output)
    assert table[ITEM_ID].to_pylist() == [*history_run.item_ids(best), items[0][ITEM_ID]]
    # The score of a popular item is its number of ratings, and not what a model without a history would give.
    assert table["score"].to_pylist()[1] == items[0]["num_ratings"]


def test_a_file_with_every_item_leaves_nothing_to_recommend(history_run, tmp_path):
    item_ids = history_run.vocabulary.items[ITEM_ID].to_pylist()[1:]
    mine = write(tmp_path / "mine.csv", pa.table({ITEM_ID: item_ids, "rating": [3.0] * len(item_ids)}))
    with pytest.raises(UserError, match=r"nothing to recommend to the user '-': --ratings=.* has every item"):
        run(f"--workdir={history_run.workdir}", mine)


def test_a_model_without_a_history_is_refused(planted_run, tmp_path):
    mine = write(tmp_path / "mine.csv", planted_run.ratings_of("u17"))
    with pytest.raises(ConfigError, match=r"knows users only by their ids \(config.history.encoder='none'\)"):
        run(f"--workdir={planted_run.workdir}", mine)


def test_a_run_that_has_lost_its_account_of_the_data_is_refused(history_run, tmp_path):
    paths = Workdir(str(shutil.copytree(history_run.workdir, tmp_path / "run")))
    mine = write(tmp_path / "mine.csv", history_run.ratings_of("u17"))
    paths.save_json(paths.data, {})
    with pytest.raises(StorageError, match=r"data.json cannot be read"):
        run(f"--workdir={paths.path}", mine)


def test_a_wrong_file_is_refused_before_the_model_is_loaded(history_run, tmp_path, monkeypatch):
    monkeypatch.setattr(recommender_module, "load_export", lambda *_: pytest.fail("The model was loaded."))
    with pytest.raises(ConfigError, match="no such file"):
        run(f"--workdir={history_run.workdir}", f"--ratings={tmp_path}/missing.csv")
