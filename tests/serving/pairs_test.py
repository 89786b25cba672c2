"""trainer.recommend --pairs: the rows of a file with the scores and ranks of a planted model."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.errors import ConfigError, DataError, StorageError
from tests.serving.planted import ODD_USERS
from tests.serving.recommend_test import run
from trainer.serving import pairs as pairs_module
from trainer.serving import recommender as recommender_module
from trainer.serving.pairs import open_pairs, rank_within_groups
from trainer.serving.recommender import Recommender

COLUMNS = {"user_id": "user_id", "item_id": "item_id"}


@pytest.fixture(scope="module")
def candidates(history_run):
    """Pairs in random order: known and unknown users and items, an item twice, and a column of its own."""
    rng = np.random.default_rng(0)
    users = [ODD_USERS[2], "u20", "u17", "nobody", "no one"]
    rows = [(user, f"i{item}") for user in users for item in rng.choice(30, 9, replace=False)]
    rows += [("u17", "no such item"), ("u17", "neither"), ("nobody", "no such item"), ("u20", rows[9][1])]
    rows = [rows[row] for row in rng.permutation(len(rows))]
    assert len(rows) == 49
    columns = zip(*rows, strict=True)
    return pa.table([*map(pa.array, columns), pa.array(range(49))], names=["user_id", "item_id", "request"])


def expected_rows(planted, rows):
    """Each row with its score, and its rank by sorting the rows of each user."""
    popularity = planted.vocabulary.items["num_ratings"].to_numpy()
    scored = []
    for position, row in enumerate(rows):
        user = planted.user_index(row["user_id"])
        item = int(planted.vocabulary.item_indices(pa.array([row["item_id"]]))[0])
        score = planted.scores[user, item] if user else float(popularity[item])
        known = user != 0 and item != 0
        scored.append((row, item, None if item == 0 else score, known, position))
    result = []
    for row, item, score, known, position in scored:
        key = (score is None, -(score or 0), item, position)
        others = [
            (other_score is None, -(other_score or 0), other_item, other_position)
            for other, other_item, other_score, _, other_position in scored
            if other["user_id"] == row["user_id"]
        ]
        result.append({**row, "rank": 1 + sum(other < key for other in others), "score": score, "known": known})
    return result


def assert_rows(found, expected):
    for row, wanted in zip(found, expected, strict=True):
        assert row == wanted | {"score": row["score"]}
        if wanted["score"] is None:
            assert row["score"] is None
        else:
            assert row["score"] == pytest.approx(wanted["score"], rel=1e-4, abs=1e-5)


def score_file(planted, path, output):
    assert run(f"--workdir={planted.workdir}", f"--pairs={path}", f"--output={output}") == 0


@pytest.mark.parametrize("run_name", ["planted_run", "history_run"])
def test_every_row_keeps_its_place_and_gets_score_rank_and_known(
    request, run_name, candidates, tmp_path, capsys, monkeypatch
):
    planted = request.getfixturevalue(run_name)
    path, output = tmp_path / "candidates.parquet", tmp_path / "scored.parquet"
    pq.write_table(candidates, path)
    expected = expected_rows(planted, candidates.to_pylist())
    capsys.readouterr()
    score_file(planted, path, output)
    assert capsys.readouterr().out.splitlines() == [
        f"Wrote 49 pairs of 5 users to {output}",
        "3 of 49 pairs have an item that training has not seen. They have no score, and the last ranks.",
        "18 of 49 pairs have a user who has no training ratings. Their score is the number of ratings of the item.",
    ]
    found = pq.read_table(output)
    assert found.schema.names == ["user_id", "item_id", "request", "rank", "score", "known"]
    assert [field.type for field in found.schema][3:] == [pa.int32(), pa.float32(), pa.bool_()]
    assert_rows(found.to_pylist(), expected)

    # In chunks of the file and of the users.
    monkeypatch.setattr(pairs_module, "_PAIRS_PER_CHUNK", 10)
    monkeypatch.setattr(recommender_module, "QUERIES_PER_CHUNK", 2)
    score_file(planted, path, output)
    assert_rows(pq.read_table(output).to_pylist(), expected)


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_text_files_give_the_same_rows(planted_run, candidates, tmp_path, ending, suffix):
    path, output = tmp_path / f"candidates.{ending}", tmp_path / f"scored.{suffix}"
    delimiter = "\t" if ending == "tsv" else ","
    with gzip.open(path, "wb") if ending.endswith("gz") else open(path, "wb") as file:
        pa.csv.write_csv(candidates, file, pa.csv.WriteOptions(delimiter=delimiter))
    expected = expected_rows(planted_run, candidates.to_pylist())
    score_file(planted_run, path, output)
    if suffix == "jsonl":
        found = [json.loads(line) for line in output.read_text().split("\n")[:-1]]
        # The values of a text file stay text.
        assert_rows(found, [row | {"request": str(row["request"])} for row in expected])
    else:
        found = pa.csv.read_csv(output, parse_options=pa.csv.ParseOptions(newlines_in_values=True)).to_pylist()
        assert_rows(found, expected)


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.string()), pa.list_(pa.int64())])
@pytest.mark.parametrize("lists_per_chunk", [2, 1 << 10])
def test_a_row_with_a_list_becomes_a_row_for_each_item_ranked_in_its_list(
    planted_run, tmp_path, capsys, monkeypatch, kind, lists_per_chunk
):
    """Two lists of one user are ranked apart. Null and empty lists are counted."""
    monkeypatch.setattr(pairs_module, "_LISTS_PER_CHUNK", lists_per_chunk)
    is_text = kind.value_type == pa.string()
    lists = [["i3", "i4", "i5"], None, ["i4", "i9"], [], ["no such item", "i1"]]
    if not is_text:
        lists = [[3, 4, 5], None, [4, 9], [], [1000, 1]]
    users = ["u17", "u17", "u17", "u20", "u20"]
    path, output = tmp_path / "lists.parquet", tmp_path / "scored.parquet"
    pq.write_table(pa.table({"user_id": users, "item_id": pa.array(lists, kind), "request": list("abcde")}), path)
    capsys.readouterr()
    score_file(planted_run, path, output)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"Wrote 7 pairs of 3 lists to {output}"
    assert printed[-1] == "2 of 5 lists have no item."
    found = pq.read_table(output)
    assert found["request"].to_pylist() == list("aaaccee")
    if not is_text:  # None of the items has a name like this.
        assert found["item_id"].to_pylist() == [3, 4, 5, 4, 9, 1000, 1]
        assert found["rank"].to_pylist() == [1, 2, 3, 1, 2, 1, 2]
        assert found["score"].null_count == 7
        return
    expected = []
    for request in "ace":
        rows = [{**row, "request": request} for row in found.select(["user_id", "item_id", "request"]).to_pylist()]
        rows = [row for row, at in zip(rows, found["request"].to_pylist(), strict=True) if at == request]
        expected += expected_rows(planted_run, rows)
    assert_rows(found.to_pylist(), expected)
    assert [row["rank"] for row in expected[-2:]] == [2, 1]


def test_numbers_and_dictionaries_are_ids_and_the_columns_of_the_config_come_first(tmp_path):
    ids = pa.array(["7", None, "7"]).dictionary_encode()
    table = pa.table({"userId": [1.0, 2.0, None], "item_id": ids, "user_id": ["a", "b", "c"]})
    path = tmp_path / "pairs.parquet"
    pq.write_table(table, path)
    pairs = open_pairs(str(path), columns={"user_id": "userId", "item_id": "movieId"})
    assert (pairs.user_column, pairs.item_column, pairs.has_lists, pairs.num_rows) == ("userId", "item_id", False, 3)
    (chunk,) = pairs.chunks()
    assert chunk.user_ids.to_pylist() == ["1", "2", None]
    assert chunk.item_ids.to_pylist() == ["7", None, "7"]


def test_a_missing_id_is_unknown(planted_run, tmp_path):
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"user_id": ["u17", None, None, ""], "item_id": [None, "i1", "i2", "i1"]}), path)
    pairs = open_pairs(str(path), columns=COLUMNS)
    found = Recommender(planted_run.workdir).score_pairs(pairs)
    assert found.known.tolist() == [False] * 4
    assert np.isnan(found.scores).tolist() == [True, False, False, False]
    assert found.num_groups == 3


def test_a_file_that_changes_while_it_is_scored_is_refused(planted_run, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("user_id,item_id\nu17,i1\nu17,i2\n")
    pairs = open_pairs(str(path), columns=COLUMNS)
    found = Recommender(planted_run.workdir).score_pairs(pairs)
    for text in ("user_id,item_id\nu17,i1\n", "user_id,item_id\nu17,i1\nu17,i2\nu17,i3\n"):
        path.write_text(text)
        with pytest.raises(StorageError, match="has changed while it was scored: it had 2 pairs"):
            list(pairs.with_scores(found))


def test_columns_are_recognized_as_in_the_training_data(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("Product,Customer,price\ni1,u1,3\n")
    pairs = open_pairs(str(path), columns={"user_id": "auto", "item_id": "auto"})
    assert (pairs.user_column, pairs.item_column) == ("Customer", "Product")


@pytest.mark.parametrize(
    ("name", "text", "error", "named"),
    [
        ("pairs.json", "{}", ConfigError, r"pairs are read from files that end in \.parquet, \.csv"),
        ("missing.csv", None, ConfigError, "there is no such file"),
        ("pairs.csv", "who,item_id\na,b\n", DataError, "has no column with a usual name for the ids of the users; its"),
        ("pairs.csv", "user_id,item_id,score\na,b,1\n", DataError, "Rename the column .* 'previous_score'"),
        ("pairs.csv", "user_id,item_id,user_id\na,b,c\n", DataError, "2 columns with the name 'user_id'"),
        ("pairs.csv", "user_id,item_id\na\n", DataError, "cannot be read"),
        ("pairs.csv", "", DataError, "cannot be read"),
        ("pairs.parquet", "no parquet", DataError, "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_before_the_model_is_loaded(
    planted_run, tmp_path, monkeypatch, name, text, error, named
):
    monkeypatch.setattr(recommender_module, "load_export", lambda *_: pytest.fail("The model was loaded."))
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=named):
        score_file(planted_run, tmp_path / name, tmp_path / "scored.csv")
    assert not (tmp_path / "scored.csv").exists()


def test_a_csv_cannot_hold_other_columns_with_lists(planted_run, tmp_path):
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"user_id": ["a"], "item_id": [["b"]], "genres": [["c"]]}), path)
    with pytest.raises(ConfigError, match="CSV cannot hold the column 'genres'"):
        score_file(planted_run, path, tmp_path / "scored.csv")


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1.0, 2.0, np.nan]), st.integers(0, 3))))
def test_ranks_are_those_of_sorting_each_group(entries):
    columns = zip(*entries, strict=True) if entries else [[]] * 3
    groups, scores, items = (np.array(column) for column in columns)
    ranks = rank_within_groups(groups, scores, items)
    for group in set(groups.tolist()):
        rows = [row for row, (of, *_) in enumerate(entries) if of == group]
        in_order = sorted(rows, key=lambda row: (np.isnan(scores[row]), -np.nan_to_num(scores[row]), items[row], row))
        assert ranks[in_order].tolist() == list(range(1, len(rows) + 1))
