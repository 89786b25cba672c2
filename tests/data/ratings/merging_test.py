"""Events, repeated rows, and several sources."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settings.errors import ConfigError, DataError
from tests.data.ratings.common import COLUMNS, load, rows_of

EVENTS = {**COLUMNS, "rating": ""}
REPEATED = "user,item,stars,time\n1,10,1,300\n1,10,2,100\n1,11,1,100\n2,11,5,100\n1,11,3,100\n1,11,9,50\n"


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("duplicates", "ratings", "report"),
    [("once", [1.0, 1.0, 1.0], {"duplicate": 3}), ("count", [2.0, 1.0, 3.0], {"duplicate": 0, "counted": 3})],
)
def test_repeated_events_count_once_or_by_their_number(tmp_path, duplicates, ratings, report):
    events = load(write(tmp_path / "a.csv", REPEATED), columns=EVENTS, duplicates=duplicates)
    # The last row of each pair by time, then by row, is kept. The "rating" of 9 is not read, so it is not bad.
    kept = [("1", "10", 300), ("2", "11", 100), ("1", "11", 100)]
    assert rows_of(events) == [(user, item, n, time) for (user, item, time), n in zip(kept, ratings, strict=True)]
    assert events.report == {**dict.fromkeys(events.report, 0), "read": 6, "used": 3, **report}
    assert (events.has_ratings, events.has_timestamps) == (False, True)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=30))
def test_the_counts_of_all_pairs_are_those_of_the_rows(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("events") / "a.csv"
    path.write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in pairs))
    events = load(path, columns={**EVENTS, "timestamp": ""}, duplicates="count")
    counts = Counter(pairs)
    assert {(user, item): n for user, item, n, _ in rows_of(events)} == counts
    assert events.report["read"] == len(pairs) == events.report["used"] + events.report["counted"]
    last_row = {pair: row for row, pair in enumerate(pairs)}
    assert [row[3] for row in rows_of(events)] == sorted(last_row.values())


def test_ratings_are_not_counted(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.data\.duplicates='count' cannot be used: .*a\.csv has ratings"):
        load(write(tmp_path / "a.csv", "user,item,stars,time\n1,2,3,4\n"), duplicates="count")


def test_any_source_can_be_read_as_events_without_times():
    ratings, events = load("synthetic"), load("synthetic", columns={**EVENTS, "timestamp": ""})
    assert (ratings.has_ratings, events.has_ratings, events.has_timestamps) == (True, False, False)
    assert [row[:2] for row in rows_of(events)] == [row[:2] for row in rows_of(ratings)]
    assert {row[2] for row in rows_of(events)} == {1.0}
    assert [row[3] for row in rows_of(events)] == list(range(100_000))


def test_sources_are_joined_in_order_and_duplicates_are_found_within_each(tmp_path):
    train = write(tmp_path / "a.txt", "u a b a\n")
    test = write(tmp_path / "b.txt", "u a c\nv a\n")
    joined = load(train, columns=EVENTS)
    assert rows_of(joined) == [("u", "b", 1.0, 1), ("u", "a", 1.0, 2)]
    joined = load(train, test)
    # The times go on after those of the first source, so its events stay the older ones.
    assert rows_of(joined) == [
        ("u", "b", 1.0, 1),
        ("u", "a", 1.0, 2),
        ("u", "a", 1.0, 3),
        ("u", "c", 1.0, 4),
        ("v", "a", 1.0, 5),
    ]
    assert joined.source_of_row.tolist() == [0, 0, 1, 1, 1]
    assert [(report["read"], report["used"], report["duplicate"]) for report in joined.reports] == [
        (3, 2, 1),
        (3, 3, 0),
    ]
    assert (joined.report["read"], joined.report["used"], joined.report["duplicate"]) == (6, 5, 1)
    assert joined.items["item_id"].to_pylist() == ["a", "b", "c"]


def test_ids_are_written_in_one_way_in_all_sources(tmp_path):
    train = write(tmp_path / "a.csv", "user,item,stars,time\n42.0,7.0,1,100\n")
    test = write(tmp_path / "b.csv", "user,item,stars,time\n42,7,5,50\n")
    assert rows_of(load(train, test)) == [("42", "7", 1.0, 100), ("42", "7", 5.0, 50)]
    test.write_text("user,item,stars,time\n42,7.5,5,50\n")
    assert rows_of(load(train, test)) == [("42", "7.0", 1.0, 100), ("42", "7.5", 5.0, 50)]


def test_bad_rows_are_judged_in_each_source(tmp_path):
    train = write(tmp_path / "a.csv", "user,item,stars,time\n" + "".join(f"1,{item},1,1\n" for item in range(50)))
    test = write(tmp_path / "b.csv", "user,item,stars,time\n1,2,99,1\n1,3,1,1\n")
    with pytest.raises(DataError, match=r"b\.csv: 1 of 2 rows are bad"):
        load(train, test, max_bad_fraction=0.1)


@pytest.mark.parametrize(
    ("text", "columns", "what"),
    [("1,2,3,4\n", EVENTS, "times"), ("1,2,3,4\n", {**COLUMNS, "timestamp": ""}, "ratings")],
)
def test_sources_must_agree_on_ratings_and_times(tmp_path, text, columns, what):
    train = write(tmp_path / "a.csv", "user,item,stars,time\n" + text)
    test = write(tmp_path / "b.txt", "1 2 3\n")
    with pytest.raises(DataError, match=rf"a\.csv has {what}, and .*b\.txt has none"):
        load(train, test, columns=columns)
    load(train, test, columns={**EVENTS, "timestamp": ""})


def test_a_missing_second_source_is_reported_as_one_of_the_split(tmp_path):
    train = write(tmp_path / "a.txt", "1 2 3\n")
    with pytest.raises(ConfigError, match=r"A source of config\.split is 'nowhere\.txt', and there is no such file"):
        load(train, "nowhere.txt")
