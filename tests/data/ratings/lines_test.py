"""Lines "user item item ..." are read as events, in their order."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settings.errors import ConfigError, DataError
from tests.conftest import SHARED_DATA
from tests.data.ratings.common import items_of, load, rows_of
from trainer.data.ratings import lines

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\v\f\r \ufeff"), min_size=1, max_size=3)
LINES = st.lists(st.lists(WORDS, max_size=4), max_size=12)


def pairs_of(ratings):
    return [(user, item) for user, item, _, _ in rows_of(ratings)]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_each_item_of_a_line_is_an_event_and_the_row_number_is_its_time(tmp_path, name):
    text = b"u1 b a\n\nnobody\nu2\ta  c \r\nu1 d\n007 a"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    ratings = load(tmp_path / name)
    assert rows_of(ratings) == [
        ("u1", "b", 1.0, 0),
        ("u1", "a", 1.0, 1),
        ("u2", "a", 1.0, 2),
        ("u2", "c", 1.0, 3),
        ("u1", "d", 1.0, 4),
        ("007", "a", 1.0, 5),
    ]
    assert (ratings.has_ratings, ratings.has_timestamps) == (False, False)
    assert ratings.report["read"] == ratings.report["used"] == 6
    assert items_of(ratings) == {item: (item, []) for item in "bacd"}


@given(
    LINES,
    st.sampled_from([" ", "\t", "  "]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.integers(1, 40),
)
@settings(deadline=None)
def test_words_are_split_as_python_splits_them(tmp_path_factory, words, separator, line_end, has_mark, block_bytes):
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    text = line_end.join(separator.join(line) for line in words)
    path.write_bytes(b"\xef\xbb\xbf" * has_mark + text.encode())
    expected = [(user, item) for user, *items in filter(None, words) for item in items]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", max(block_bytes, 3))
        if not expected:
            with pytest.raises(DataError, match=r"a\.txt has no line with a user and an item"):
                load(path, duplicates="count")
            return
        rows = lines.read(str(path), lines.files.open_file(str(path))).rows
    assert list(zip(*(column.to_pylist() for column in rows.columns), strict=True)) == expected


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("block_bytes", [3, 4, 5, 6, 7, 100])
def test_a_line_that_is_not_text_is_reported_with_its_number(tmp_path, monkeypatch, line_end, block_bytes):
    monkeypatch.setattr(lines, "BLOCK_BYTES", block_bytes)
    (tmp_path / "a.txt").write_bytes(line_end.join([b"1 2 3", b"", b"4 5", b"6 \xff\xfe", b"7 8"]))
    with pytest.raises(DataError, match=r"a\.txt has bytes in line 4 that are not UTF-8"):
        load(tmp_path / "a.txt")


def test_a_file_of_lines_has_no_features(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3\n")
    with pytest.raises(ConfigError, match=r"config\.data\.features\.item contains 'colour', which .*a\.txt"):
        load(tmp_path / "a.txt", features={"query": (), "item": ("colour",)})


def test_a_folder_is_never_read_as_lines(tmp_path):
    (tmp_path / "train.txt").write_text("1 2 3\n")
    with pytest.raises(DataError, match=r"found: train\.txt.*is only read if the source is its own path"):
        load(tmp_path)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"MovieLens may not be redistributed, and is not at {SHARED_DATA}")
def test_a_published_split_is_read_whole():
    ratings = load(SHARED_DATA / "published" / "ml-1m-lcf" / "train.txt")
    assert ratings.report["used"] == ratings.report["read"] == 796_244
    assert len(set(ratings.ratings["user_id"].to_pylist())) == 6022
    assert pairs_of(ratings)[:3] == [("0", "148"), ("0", "2800"), ("0", "2079")]
