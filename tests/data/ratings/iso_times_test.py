"""Times as text are read as Python's datetime reads them."""

import datetime
import math
import re
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from settings.errors import DataError
from tests.data.ratings.common import load, rows_of
from trainer.data.ratings.iso_times import seconds_since_1970

UTC = datetime.timezone.utc
MOMENTS = st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30))
OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59)
ZONES = st.sampled_from(["", "Z", "z", " UTC", "{sign}{hours:02}:{minutes:02}", "{sign}{hours:02}{minutes:02}"])
DIGITS = st.text("0123456789", min_size=1, max_size=9)

ALMOST_TIMES = st.lists(st.sampled_from(["20", "24", "-", "02", "30", "29", ":", "T", " ", "Z", "+", ".5", "0"])).map(
    "".join
)


FORM = re.compile(r"\d{4}-\d{2}-\d{2}( \d{2}:\d{2}(:\d{2})?([+-]\d{2}:\d{2})?)?", re.ASCII)


def read(*texts):
    return seconds_since_1970(pa.chunked_array([pa.array(texts, pa.string())])).tolist()


@given(MOMENTS, OFFSETS, ZONES, st.sampled_from("Tt "), st.none() | DIGITS)
@settings(max_examples=300, deadline=None)
def test_a_time_is_read_as_python_reads_it(moment, offset, zone, separator, fraction):
    moment = moment.replace(microsecond=0)
    sign, minutes = ("-" if offset < 0 else "+"), abs(offset)
    written_zone = zone.format(sign=sign, hours=minutes // 60, minutes=minutes % 60)
    text = f"{moment:%Y-%m-%d}{separator}{moment:%H:%M:%S}" + (f".{fraction}" if fraction else "") + written_zone
    # Years below 1000 are padded by hand, because strftime does not on every system.
    text = f"{moment.year:04}{text[text.index('-') :]}"
    behind = datetime.timedelta(minutes=offset if "{" in zone else 0)
    expected = (moment - behind - datetime.datetime(1970, 1, 1)) // datetime.timedelta(seconds=1)
    assert read(text) == [expected]
    if zone in ("", "Z") and separator in "T " and fraction is None:
        of_python = datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).replace(tzinfo=UTC)
        assert of_python.timestamp() == expected


@given(st.dates(datetime.date(1, 1, 1)))
def test_a_date_is_its_first_second(date):
    expected = (date - datetime.date(1970, 1, 1)).days * 86400
    assert read(date.isoformat(), f"{date.isoformat()}T00:00") == [expected, expected]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python reads few forms of ISO 8601 before 3.11")
@given(st.one_of(ALMOST_TIMES, st.from_regex(FORM, fullmatch=True)))
@example("2023-02-29")
@example("2024-02-29")
@example("2024-04-31")
@example("2024-05-01T24:00:00")
@example("2024-05-01T12:60:00")
@example("2024-05-01T12:30:60")
@example("0000-01-01")
@example("2024-05-01T12:30:00+24:00")
@example("2024-05-01T12:30:00 +02:00")
@settings(max_examples=300, deadline=None)
def test_a_text_that_python_refuses_is_no_time(text):
    (seconds,) = read(text)
    try:
        expected = datetime.datetime.fromisoformat(text)
    except ValueError:
        # Beside the standard, a space before the zone is read.
        if re.sub(r"(?<=\d) (?=Z|UTC|[+-])", "", text) == text:
            assert math.isnan(seconds)
        return
    if not math.isnan(seconds):  # Python also reads forms such as 20240501.
        if expected.tzinfo is None:
            expected = expected.replace(tzinfo=UTC)
        assert seconds == math.floor(expected.timestamp())
    else:
        assert not re.fullmatch(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?)?", text)


def test_nulls_and_other_texts_are_no_times():
    values = read(None, "", "yesterday", "2024/05/01", "05/01/2024", "2024-5-1", "2024-05-01T", "１２３４-05-01")
    assert np.isnan(values).all() and len(values) == 8
    assert seconds_since_1970(pa.chunked_array([], pa.string())).tolist() == []
    two_chunks = pa.chunked_array([["1970-01-01"], ["1970-01-02", None]])
    np.testing.assert_array_equal(seconds_since_1970(two_chunks), [0, 86400, np.nan])


TIMES = ["2024-05-01", "2024-05-01T12:30:00Z", "2024-05-01 14:30:00.75+02:00", "1714566601", " 2024-05-01T12:30:02 "]
SECONDS = [1714521600, 1714566600, 1714566600, 1714566601, 1714566602]


@pytest.mark.parametrize("kind", ["csv", "parquet", "dictionary"])
def test_files_may_have_times_of_all_forms(tmp_path, kind):
    if kind == "csv":
        path = tmp_path / "a.csv"
        path.write_text("user,item,stars,time\n" + "".join(f"u,{row},4,{text}\n" for row, text in enumerate(TIMES)))
    else:
        path = tmp_path / "a.parquet"
        texts = pa.array(TIMES, pa.large_string())
        columns = {"user": ["u"] * 5, "item": range(5), "stars": [4.0] * 5}
        table = pa.table({**columns, "time": texts.dictionary_encode() if kind == "dictionary" else texts})
        pyarrow.parquet.write_table(table, path)
    assert [row[3] for row in rows_of(load(path))] == SECONDS


def test_other_times_are_counted_beside_them(tmp_path):
    path = tmp_path / "a.csv"
    lines = ["1,1,4,2024-05-01", "1,2,4,2024-02-30", "1,3,4,1969-12-31T23:59:59Z", "1,4,4,2100-01-01", "1,5,4,1"]
    path.write_text("\n".join(["user,item,stars,time", *lines]))
    ratings = load(path, max_bad_fraction=0.9)
    assert [row[3] for row in rows_of(ratings)] == [1714521600, 1]
    assert ratings.report["timestamp_not_seconds"] == 3
    with pytest.raises(DataError, match=r"row 3 of .*: timestamp_not_seconds, timestamp '2024-02-30'\. Times must be"):
        load(path)


@pytest.mark.parametrize(
    ("time", "hint"),
    [
        ("1714566600000", ", which looks like milliseconds: divide by 1000. "),
        ("1714566600000000", ", which looks like microseconds: divide by 1000000. "),
        ("1714566600000000000", ", which looks like nanoseconds: divide by 1000000000. "),
        ("4102444799000", "milliseconds"),
        ("-5", "timestamp -5. "),
        ("1e30", "timestamp '1e30'. "),
    ],
)
def test_a_number_of_another_unit_is_refused_with_what_it_probably_is(tmp_path, time, hint):
    (tmp_path / "a.csv").write_text(f"user,item,stars,time\n1,2,3,{time}\n")
    with pytest.raises(DataError, match="timestamp_not_seconds") as refused:
        load(tmp_path / "a.csv")
    assert hint in str(refused.value)
