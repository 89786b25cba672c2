"""Text files are read without losing or inventing a row, whatever the quotes, line breaks and block boundaries."""

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from settings.errors import DataError
from tests.data.ratings.common import WITH_ITEMS, items_of, load
from trainer.data.ratings import cleaning, delimited

TITLED = {"user_id": "user", "item_id": "item", "rating": "stars", "title": "name"}
HEADER = "user,item,stars,name\n"

PIECES = ['"', '""', "\n", "\r\n", "\r", ",", "1", "x", " ", "é", '"\n', '\n1,2,3,"', "1,2,3,t\n", '1,2,3,"t"\n']
RAGGED_TEXT = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
"""Text with stray, doubled and unclosed quotes, blank lines, and rows of any length."""

VALUES = st.text(st.sampled_from('ab1,"\r\n é'), max_size=12)
VALID_ROWS = st.lists(st.tuples(st.sampled_from("12"), st.sampled_from("34"), st.just("5"), VALUES), max_size=12)
BLOCK_BYTES = st.sampled_from([64, 100, 128, 1 << 20])


def one_line_break(text: str) -> str:
    """The text with "\r\n" as "\r": at a block boundary Arrow drops the "\n" of such a pair in a quoted value."""
    return text.replace("\r\n", "\r")


def read(text: str, block_bytes: int) -> cleaning.Part:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK_BYTES", block_bytes)
        return delimited.read("a.csv", pa.BufferReader(text.encode()), delimited.Format(","), columns=TITLED)


def expected_records(text: str) -> list[list[str]]:
    """The records after the header, as Python's csv module reads them."""
    _, *records = [record for record in csv.reader(io.StringIO(text, newline="")) if record]
    return records


@settings(deadline=None, max_examples=400)
@given(RAGGED_TEXT, st.integers(0, 3), st.integers(0, 8), BLOCK_BYTES)
@example('"', 0, 8, 64)
@example('1,"2,3,t\n1,2,3,t\n1,"2,3,t\n', 0, 8, 1 << 20)
@example('1,2,3,"t\n1,2,3,4\n1,2,3,"t"\n', 0, 8, 64)
def test_any_text_is_read_as_python_reads_it_or_refused(text, num_before, num_after, block_bytes):
    text = HEADER + '1,2,3,"a\n1,2,3,b"\n' * num_before + text + "5,6,1,z\n" * num_after
    try:
        part = read(text, block_bytes)
    except DataError as error:
        assert "a.csv" in str(error)
        return
    records = expected_records(text)
    assert part.rows.num_rows + len(part.malformed) == len(records)
    good = [record for record in records if len(record) == 4]
    for name, index in (("user_id", 0), ("item_id", 1), ("title", 3)):
        values = [one_line_break(value) for value in part.rows[name].to_pylist()]
        assert values == [one_line_break(record[index]) for record in good]


@settings(deadline=None, max_examples=200)
@given(VALID_ROWS, st.sampled_from([("\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_MINIMAL)]), BLOCK_BYTES)
def test_a_valid_file_is_read_whole(rows, style, block_bytes):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=style[0], quoting=style[1])
    writer.writerows([("user", "item", "stars", "name"), *rows])
    part = read(text.getvalue(), block_bytes)
    assert part.malformed == ()
    actual = [(row["user_id"], row["item_id"], one_line_break(row["title"])) for row in part.rows.to_pylist()]
    assert actual == [(user, item, one_line_break(title)) for user, item, _, title in rows]
    assert part.rows["rating"].to_pylist() == [5.0] * len(rows)


@pytest.mark.parametrize("max_bad_fraction", [0.0, 0.99])
@pytest.mark.parametrize(
    ("row", "line"),
    [
        # One quote that is never closed, and one that is closed in a later row by the quote of another value.
        ({101: '"1,101,4,5'}, 103),
        ({101: '1,"101,4,5'}, 103),
        ({101: '1,"101,4,5', 5000: '1,"5000,4,5'}, 103),
        ({9999: '1,9999,4,"5'}, 10_001),
    ],
)
def test_a_quote_that_swallows_rows_is_refused_with_its_line(tmp_path, monkeypatch, row, line, max_bad_fraction):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1 << 14)
    lines = ["user,item,stars,time", *(row.get(i, f"{i // 100},{i},4,{i}") for i in range(10_000)), "1,10000,4,5"]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=rf"a\.csv has a quote too many or too few in line {line}\."):
        load(tmp_path / "a.csv", max_bad_fraction=max_bad_fraction)


def test_a_small_file_with_an_unclosed_quote_is_refused(tmp_path):
    lines = ["user,item,stars,time", *(f"{i // 10},{i},4,{i}" for i in range(480))]
    lines[50] = lines[50].replace(",", ',"', 1)
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 51\. The quote that opens a value there is never closed"):
        load(tmp_path / "a.csv", max_bad_fraction=0.5)


def test_titles_with_lines_that_look_like_ratings_do_not_become_ratings(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1 << 14)
    title = '"Title\n{0},{0},5,{0},looks like a rating,A\nend"'
    rows = [f"{i // 10},{i},4,{i},{title.format(i)},A\n" for i in range(5000)]
    (tmp_path / "a.csv").write_text("user,item,stars,time,name,kinds\n" + "".join(rows))
    ratings = load(tmp_path / "a.csv", columns=WITH_ITEMS)
    assert ratings.report["read"] == ratings.report["used"] == 5000
    assert ratings.ratings["item_id"].to_pylist() == [str(i) for i in range(5000)]
    assert set(ratings.ratings["rating"].to_pylist()) == {4.0}


@pytest.mark.parametrize("rows", ['1,"2\n1,3,4,5\n1,4",4,5\n1,9,4,5\n', '1,3,"4,5\n1,4,4",5\n1,9,4,5\n'])
def test_rows_that_quotes_join_into_an_id_or_a_rating_are_refused(tmp_path, rows):
    (tmp_path / "a.csv").write_text("user,item,stars,time\n1,8,4,5\n" + rows)
    with pytest.raises(DataError, match=r"a\.csv has a line break in the (item_id|rating) of row 3"):
        load(tmp_path / "a.csv", max_bad_fraction=0.5)


def test_a_malformed_row_counts_as_all_its_lines(tmp_path):
    lost = '1,2,3,4,"' + "\n1,2,3,4" * 20 + '"\n'
    (tmp_path / "a.csv").write_text(
        "user,item,stars,time\n" + "".join(f"1,{i},4,5\n" for i in range(60)) + lost + "1,99,4,5\n"
    )
    # 1 of 62 rows, but 21 of 82 lines.
    with pytest.raises(DataError, match=r"1 of 62 rows in 21 lines are bad \(1 malformed_row\)"):
        load(tmp_path / "a.csv", max_bad_fraction=0.25)
    assert load(tmp_path / "a.csv", max_bad_fraction=0.26).report["malformed_row"] == 1


def test_quotes_inside_a_value_are_text(tmp_path):
    (tmp_path / "a.csv").write_text('user,item,stars,time,name,kinds\n1,2,4,5,7" single,A\n1,3,4,5,"Say ""hi""!",A\n')
    ratings = load(tmp_path / "a.csv", columns=WITH_ITEMS)
    assert items_of(ratings) == {"2": ('7" single', ["A"]), "3": ('Say "hi"!', ["A"])}


def test_quoted_values_may_contain_delimiters_and_line_breaks(tmp_path):
    (tmp_path / "a.csv").write_text('user,item,stars,time,name,kinds\n1,2,x,4,"One,\ntwo",A\n1,3,4,5,"a, b",A\n')
    ratings = load(tmp_path / "a.csv", columns=WITH_ITEMS, max_bad_fraction=0.5)
    assert items_of(ratings) == {"3": ("a, b", ["A"])}
    assert ratings.report["rating_not_a_number"] == 1


def test_a_quoted_line_break_may_be_at_a_block_boundary(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 100)
    rows = "".join(f'u,{item},3,{item},"Line\n{item} and more",A\n' for item in range(50))
    (tmp_path / "a.csv").write_text("user,item,stars,time,name,kinds\n" + rows)
    ratings = load(tmp_path / "a.csv", columns=WITH_ITEMS)
    assert items_of(ratings) == {str(item): (f"Line\n{item} and more", ["A"]) for item in range(50)}


def test_a_malformed_row_that_is_not_utf8_is_refused(tmp_path, capfd):
    """Arrow would print a traceback, because it cannot raise an error that happens while Python gets the row."""
    (tmp_path / "u.item").write_text("2|Film|1995||http://a|1\n")
    (tmp_path / "u.data").write_bytes(b"1\t2\t3\t4\n1\t\xff\n")
    with pytest.raises(DataError, match=r"u\.data is not UTF-8 text"):
        load(tmp_path, max_bad_fraction=0.5)
    assert capfd.readouterr().err == ""
