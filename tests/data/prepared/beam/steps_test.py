"""What the steps of the pipeline write is what one machine writes, byte for byte. No Beam is needed for this."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settings.errors import ConfigError, DataError
from tests.data.prepared.beam.common import (
    NO_FEATURES,
    SHARD_BYTES,
    all_cases,
    arguments_for,
    files_of,
    run_steps,
    written_by_one_machine,
)
from trainer.data.prepared import writing
from trainer.data.prepared.beam import buckets, parts, times
from trainer.data.prepared.beam.blocks import SPLIT
from trainer.data.prepared.beam.job import build_job
from trainer.data.splits import held_out_ranks
from trainer.schema import SPLITS


@pytest.mark.parametrize("case", all_cases())
def test_the_steps_write_the_bytes_of_one_machine(tmp_path, monkeypatch, case):
    monkeypatch.setattr(writing, "SHARD_BYTES", SHARD_BYTES)
    arguments = arguments_for(tmp_path, case)
    expected = written_by_one_machine(tmp_path / "one", arguments)
    assert len([name for name in expected if name.startswith("shards/")]) > 20
    for num_buckets in (1, 7, 40):
        written = run_steps(arguments, tmp_path / str(num_buckets), num_buckets=num_buckets, seed=num_buckets)
        assert written.keys() == expected.keys()
        assert [name for name in expected if written[name] != expected[name]] == []


def test_the_files_have_what_the_cases_are_about(tmp_path):
    """Or the test above would not see an error in these parts."""
    arguments = arguments_for(tmp_path, "features in files")
    manifest = written_by_one_machine(tmp_path / "one", arguments)["manifest.json"]
    job = build_job(arguments, str(tmp_path / "beam"))
    read = [parts.read_part(job, name) for name in parts.list_parts(job)]
    totals = parts.join_parts(job, [part.account for part in read])
    assert len(read) == 5 and totals.without_points == ("user_id", "item_id")
    assert totals.reports[0]["rating_out_of_range"] > 10 and b'"duplicate": 3' in manifest
    users = [set().union(*(rows["user_id"].to_pylist() for rows in part.blocks.values())) for part in read]
    kinds = [str(part.account.features.field("feature:age").type) for part in read]
    assert "double" in kinds and len({*kinds}) == 2
    assert "7.0" in users[0] and "7" in users[2]
    assert parts.bucket_of("7", 1000) == parts.bucket_of("7.0", 1000) != parts.bucket_of("7.5", 1000)
    titles = [title for part in read for table in part.items for title in table.items["title"].to_pylist()]
    assert None in titles and any(titles)


def test_a_test_rating_of_an_unknown_item_is_in_no_other_split():
    rows = [(1, 3, "train"), (1, 3, "test"), (1, 0, "validation"), (1, 0, "test"), (2, 3, "test"), (2, 5, "validation")]
    users, items, splits = zip(*rows, (2, 5, "test"), (5, 1, "train"), strict=True)
    split = np.array([SPLITS.index(name) for name in splits], np.int8)
    table = pa.table({buckets.USER: np.array(users, np.int32), buckets.ITEM: np.array(items, np.int32), SPLIT: split})
    assert buckets.num_test_pairs_in_train(table, num_items=6) == 2
    assert buckets.num_test_pairs_in_train(table.slice(1, 1), num_items=6) == 0


times_of_ratings = st.lists(
    st.one_of(st.integers(0, 5), st.integers(65_530, 65_540), st.integers(0, 4_102_444_799)), min_size=1, max_size=60
)
fractions = st.sampled_from([0.0, 0.1, 0.25, 0.4])


@given(times_of_ratings, fractions, fractions, st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_the_cuts_are_the_times_of_the_ratings_with_the_ranks(stamps, validation_fraction, test_fraction, num_buckets):
    ranks = held_out_ranks(len(stamps), validation_fraction=validation_fraction, test_fraction=test_fraction)
    shares = [np.array(stamps[bucket::num_buckets], np.int64) for bucket in range(num_buckets)]
    periods = times.find_periods(sum(times.count_periods(share) for share in shares), ranks)
    cuts = times.find_cuts(sum(times.count_seconds(share, periods) for share in shares), periods)
    assert cuts == [None if rank is None else sorted(stamps)[rank] for rank in ranks]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"source": "movielens/100k"}, "config.data.source='movielens/100k' cannot be prepared on Beam"),
        ({"test_source": "movielens/1m"}, "config.split.test_source='movielens/1m' cannot"),
        ({"features": {**NO_FEATURES, "example": ("place",)}}, r"config.data.features.example=\('place',\) cannot"),
    ],
)
def test_what_beam_cannot_prepare_is_refused(tmp_path, changed, says):
    arguments = arguments_for(tmp_path, "row order", **{"test_source": "", "validation_source": "", **changed})
    with pytest.raises(ConfigError, match=says):
        build_job(arguments, str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("case", "changed", "says"),
    [
        ("row order", {"features": {**NO_FEATURES, "query": ("where",)}}, "no such column"),
        ("row order", {"features": {**NO_FEATURES, "query": ("history",)}}, "the name of something else in a batch"),
        ("files", {"max_bad_fraction": 0.001}, "rows are bad .*more than config.data.max_bad_fraction=0.001 allows"),
        ("row order", {"duplicates": "count"}, "config.data.duplicates='count' cannot be used"),
        ("cut in time", {"test_fraction": 0.00001}, "The test split of .* ratings is empty"),
        ("row order", {"columns": {"user_id": "user_id", "item_id": "nothing"}}, "no column 'nothing' for item_id"),
    ],
)
def test_the_steps_refuse_what_one_machine_refuses(tmp_path, case, changed, says):
    arguments = arguments_for(tmp_path, case, **changed)
    if case == "row order":
        table = pq.read_table(arguments["source"])
        pq.write_table(table.append_column("history", table["age"]), arguments["source"])
    assert_refused_by_both(arguments, tmp_path, says)


def test_a_split_of_unknown_users_alone_is_refused(tmp_path):
    arguments = arguments_for(tmp_path, "cut in time", validation_fraction=0.0, test_fraction=0.2)
    table = pq.read_table(arguments["source"]).slice(0, 10)
    users = pa.array(["early"] * 8 + ["late"] * 2)
    table = table.set_column(0, "user_id", users).set_column(3, "timestamp", pa.array(range(10)))
    pq.write_table(table, arguments["source"])
    assert_refused_by_both(arguments, tmp_path, "All 2 ratings of the test split are from users without training")


def assert_refused_by_both(arguments, tmp_path, says):
    messages = []
    for run in (
        lambda: written_by_one_machine(tmp_path / "one", arguments),
        lambda: run_steps(arguments, tmp_path / "beam", num_buckets=5, seed=0),
    ):
        with pytest.raises((ConfigError, DataError), match=says) as caught:
            run()
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and not files_of(tmp_path / "beam")
