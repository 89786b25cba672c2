"""From a run to recommendations: the command line, its answers, and what it refuses."""

import contextlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from absl import flags
from absl.testing import flagsaver

from configs import default
from settings.errors import ConfigError, UserError
from tests.conftest import NUM_ITEMS, NUM_USERS, planted_ratings
from trainer import recommend
from trainer.config import dataset_arguments
from trainer.data.dataset import load_dataset
from trainer.recommend import RECOMMENDATIONS_SCHEMA, Recommender
from trainer.schema import ITEM_ID, TITLE, USER_ID
from trainer.serving import export
from trainer.training import run as training_run

# In place of u0, u1, ...: ids that quoting, markup, JSON or a terminal could spoil.
ODD_USERS = ["Zoë 🎬", 'it\'s "quoted"', "two\nlines", "[bold]x[/bold]", "[/]", "a\\b", " "]


def odd_title(item_id):
    return f"[bold]Film[/bold] [/] :smile: «{item_id}»"


def number(item_id):
    return int(item_id[1:])


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The planted ratings of conftest, with odd ids and titles, and its tiny config."""
    ratings = planted_ratings()
    users = [ODD_USERS[int(u[1:])] if int(u[1:]) < len(ODD_USERS) else u for u in ratings[USER_ID].to_pylist()]
    ratings = ratings.set_column(0, USER_ID, pa.array(users))
    titles = pa.array([odd_title(item) for item in ratings[ITEM_ID].to_pylist()])
    path = tmp_path_factory.mktemp("ratings") / "ratings.parquet"
    pq.write_table(ratings.set_column(4, TITLE, titles), path)

    config = default.get_config()
    config.data.source = str(path)
    config.data.columns.title = "title"
    config.list_size = 12
    config.model.embedding_size = 8
    config.train.global_batch_size = 8
    config.train.num_epochs = 4
    config.train.steps_per_execution = 5
    config.optimizer.learning_rate = 0.5
    config.eval.metrics = ("ndcg@5", "mrr")
    config.eval.best_metric = "ndcg@5"
    config.eval.num_catalogue_users = 0
    # The last checkpoint is exported, not the best on the few validation ratings that there would be.
    config.split.validation_fraction = 0.0
    return config


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """A finished run."""
    path = str(tmp_path_factory.mktemp("recommend") / "run")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(export, "_verify", lambda *_: None)
        training_run.train_and_evaluate(config, strategy_name="default", workdir=path)
    return path


@pytest.fixture(scope="module")
def dataset(config):
    return load_dataset(**dataset_arguments(config))


@contextlib.contextmanager
def workdir_flag():
    """--workdir, which is a flag of whichever entry point runs."""
    if "workdir" in flags.FLAGS:
        yield
        return
    flags.DEFINE_string("workdir", None, "As the entry point defines it.")
    try:
        yield
    finally:
        delattr(flags.FLAGS, "workdir")


def run(*arguments):
    """The exit code of the command line."""
    with workdir_flag(), flagsaver.flagsaver():
        flags.FLAGS(["recommend", *arguments])
        return recommend.main()


@pytest.fixture
def ask(workdir, capsys):
    """What the command line prints for these arguments."""

    def ask(*arguments):
        capsys.readouterr()
        assert run(f"--workdir={workdir}", *arguments) == 0
        return capsys.readouterr().out

    return ask


@pytest.fixture(scope="module")
def parquet(workdir, tmp_path_factory):
    """Everybody's recommendations, by whether what they have seen is left out."""
    tables = {}
    for seen in ("", "no"):
        path = str(tmp_path_factory.mktemp("output") / "recommendations.parquet")
        run(f"--workdir={workdir}", "--all_users", "--k=7", f"--{seen}exclude_seen", f"--output={path}")
        tables[seen == ""] = pq.read_table(path)
    return tables


def seen_by(dataset, user_id):
    """The ids of the user's training items."""
    (user,) = dataset.vocabulary.user_indices(pa.array([user_id]))
    users, items, _ = dataset.ratings["train"]
    return set(dataset.vocabulary.items[ITEM_ID].take(items[users == user]).to_pylist())


@pytest.mark.parametrize("user_id", [*ODD_USERS, "u17"])
def test_json_names_the_planted_best_first(ask, user_id):
    answer = json.loads(ask(f"--user_id={user_id}", "--k=6", "--format=json"))
    assert (answer["user_id"], answer["source"]) == (user_id, "model")
    rows = answer["recommendations"]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {number(row[ITEM_ID]) % 5 for row in rows} == {4}
    assert [row[TITLE] for row in rows] == [odd_title(row[ITEM_ID]) for row in rows]
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert set(rows[0]) == {ITEM_ID, TITLE, "rank", "score"}


@pytest.mark.parametrize("user_id", ["[bold]x[/bold]", "two\nlines", "u17"])
def test_the_table_says_the_same_to_people_letter_by_letter(ask, user_id):
    rows = json.loads(ask(f"--user_id={user_id}", "--k=3", "--format=json"))["recommendations"]
    printed = ask(f"--user_id={user_id}", "--k=3")
    heading, table = printed.split(f"Top 3 for user {user_id}\n")
    lines = [line.split() for line in table.splitlines()]
    assert heading == ""
    assert lines[0] == ["rank", "item_id", "title", "score"]
    assert lines[1:] == [[str(row["rank"]), row[ITEM_ID], *row[TITLE].split(), f"{row['score']:.3f}"] for row in rows]


def test_what_the_user_has_seen_is_left_out_and_nothing_else(ask, dataset):
    for user_id in (*ODD_USERS[:2], "u17"):
        answer = json.loads(ask(f"--user_id={user_id}", "--k=1000", "--format=json", "--exclude_seen"))
        found = [row[ITEM_ID] for row in answer["recommendations"]]
        catalogue = {f"i{item}" for item in range(NUM_ITEMS)}
        assert sorted(found) == sorted(catalogue - seen_by(dataset, user_id))
        all_of_it = json.loads(ask(f"--user_id={user_id}", "--k=1000", "--format=json"))["recommendations"]
        assert found == [row[ITEM_ID] for row in all_of_it if row[ITEM_ID] not in seen_by(dataset, user_id)]
        assert len(all_of_it) == NUM_ITEMS


def test_a_k_past_int32_is_the_whole_catalogue(ask):
    answer = json.loads(ask("--user_id=u17", f"--k={10**12}", "--format=json"))
    assert len(answer["recommendations"]) == NUM_ITEMS


def test_all_users_get_a_row_for_each_rank(parquet, dataset):
    for exclude_seen, table in parquet.items():
        assert table.schema.equals(RECOMMENDATIONS_SCHEMA)
        user_ids = dataset.vocabulary.users[USER_ID].to_pylist()[1:]
        assert len(user_ids) == NUM_USERS
        assert table[USER_ID].to_pylist() == [user_id for user_id in user_ids for _ in range(7)]
        assert table["rank"].to_pylist() == [1, 2, 3, 4, 5, 6, 7] * NUM_USERS
        assert (np.diff(table["score"].to_numpy().reshape([NUM_USERS, 7]), axis=1) <= 0).all()
        pairs = set(zip(table[USER_ID].to_pylist(), table[ITEM_ID].to_pylist(), strict=True))
        assert len(pairs) == table.num_rows
        seen = {(user_id, item) for user_id in user_ids for item in seen_by(dataset, user_id)}
        assert bool(pairs & seen) is not exclude_seen


def test_all_users_at_once_get_what_each_gets_alone(parquet, ask):
    for exclude_seen, table in parquet.items():
        for user_id in (ODD_USERS[0], "u17", "u39"):
            alone = json.loads(ask(f"--user_id={user_id}", "--k=7", "--format=json", f"--exclude_seen={exclude_seen}"))[
                "recommendations"
            ]
            together = table.filter(pc.equal(table[USER_ID], user_id)).drop_columns([USER_ID]).to_pylist()
            scores = [row.pop("score") for row in (*together, *alone)]
            assert together == alone
            np.testing.assert_allclose(scores[:7], scores[7:], rtol=1e-5)


def test_users_are_taken_some_at_a_time(workdir, monkeypatch):
    recommender = recommend.Recommender(workdir)
    (whole,) = recommender.recommend_all(3, exclude_seen=True)
    monkeypatch.setattr(recommend, "_USERS_A_CALL", 13)
    parts = list(recommender.recommend_all(3, exclude_seen=True))
    assert [part.num_rows // 3 for part in parts] == [13, 13, 13, 1]
    joined = pa.concat_tables(parts)
    assert joined.drop_columns(["score"]).combine_chunks().equals(whole.drop_columns(["score"]).combine_chunks())


@pytest.mark.parametrize("user_id", ["nobody", "U17", ""])
def test_an_unknown_user_is_an_error_that_names_the_id(workdir, user_id):
    with pytest.raises(UserError) as refused:
        run(f"--workdir={workdir}", f"--user_id={user_id}")
    assert refused.value.exit_code == 1
    assert repr(user_id) in str(refused.value)
    assert "--unknown=popular" in str(refused.value)


def test_an_unknown_user_may_get_the_most_rated(ask, dataset):
    _, items, _ = dataset.ratings["train"]
    ids, counts = np.unique(dataset.vocabulary.items[ITEM_ID].take(items).to_pylist(), return_counts=True)
    most = sorted(zip(-counts, ids.tolist(), strict=True))[:4]

    answer = json.loads(ask("--user_id=nobody", "--k=4", "--unknown=popular", "--format=json"))
    assert (answer["user_id"], answer["source"]) == ("nobody", "popular")
    assert [(-row["score"], row[ITEM_ID]) for row in answer["recommendations"]] == most
    assert [row["rank"] for row in answer["recommendations"]] == [1, 2, 3, 4]
    assert [row[TITLE] for row in answer["recommendations"]] == [odd_title(item) for _, item in most]

    printed = ask("--user_id=[red]nobody", "--k=4", "--unknown=popular").splitlines()
    assert printed[0] == "User [red]nobody is unknown: the most popular"
    assert printed[1].split() == ["rank", "item_id", "title", "ratings"]
    assert [line.split()[-1] for line in printed[2:]] == [str(-count) for count, _ in most]

    everything = json.loads(ask("--user_id=nobody", "--k=99", "--unknown=popular", "--format=json"))
    assert len(everything["recommendations"]) == NUM_ITEMS
    known = json.loads(ask("--user_id=u17", "--unknown=popular", "--format=json"))
    assert known["source"] == "model"


def test_the_output_is_named_as_it_is(workdir, tmp_path, capsys):
    path = f"{tmp_path}/[bold]all.parquet"
    capsys.readouterr()
    run(f"--workdir={workdir}", "--all_users", "--k=2", f"--output={path}")
    assert capsys.readouterr().out == f"80 recommendations for 40 users in {path}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--user_id"),
        (["--user_id=u1", "--all_users", "--output=x.parquet"], "--all_users"),
        (["--user_id=u1", "--output=x.parquet"], "--output"),
        (["--all_users"], "--output"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, arguments, named):
    with pytest.raises(ConfigError, match=named) as refused:
        run(f"--workdir={tmp_path}", *arguments)
    assert refused.value.exit_code == 78
    assert "holds no finished run" not in str(refused.value)


def test_a_workdir_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path} holds no finished run"):
        run(f"--workdir={tmp_path}", "--user_id=u1")


def test_a_user_who_has_seen_everything_is_told(workdir, monkeypatch):
    monkeypatch.setattr(Recommender, "recommend", lambda *_, **__: RECOMMENDATIONS_SCHEMA.empty_table())
    with pytest.raises(UserError, match="'u17', who has seen every item") as refused:
        run(f"--workdir={workdir}", "--user_id=u17", "--exclude_seen")
    assert refused.value.exit_code == 1
