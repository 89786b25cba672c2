"""Times as text: a date, or a date and a time, of ISO 8601."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EXAMPLE = "2024-05-01T12:30:00Z"

_PATTERN = (
    r"^(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
    r"(?:[Tt ](?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]\d+)?)?"
    r" ?(?:[Zz]|UTC|(?P<sign>[+-])(?P<zone_hour>\d{2})(?::?(?P<zone_minute>\d{2}))?)?)?$"
)


def seconds_since_1970(texts: pa.ChunkedArray) -> np.ndarray:
    """Converts dates and times of ISO 8601 to seconds since 1970.

    These are read: 2024-05-01, 2024-05-01T12:30, 2024-05-01 12:30:00.25, and times with Z, UTC, +02, +0200 or +02:00
    at the end. A time without one of these is in UTC, and a date is its first second in UTC. Fractions of a second are
    left out.

    Args:
      texts: strings [num_rows], without white space at their ends.

    Returns:
      float64 [num_rows], NaN for a null and for any other text.
    """
    # A chunk at a time, because the parts of a time take more memory than its text.
    chunks = [_of_chunk(chunk) for chunk in texts.chunks]
    return np.concatenate(chunks) if chunks else np.zeros(0)


def _of_chunk(texts: pa.Array) -> np.ndarray:
    fields = pc.extract_regex(texts, _PATTERN)
    matches = pc.is_valid(fields).to_numpy(zero_copy_only=False)
    # Invalid and missing parts are zeros, and are ruled out at the end.
    year, month, day, hour, minute, second, zone_hour, zone_minute = (
        _integers(pc.struct_field(fields, name))
        for name in ("year", "month", "day", "hour", "minute", "second", "zone_hour", "zone_minute")
    )
    first_month = (year - 1970) * 12 + (month - 1)
    first_day = first_month.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    next_month = (first_month + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    is_behind_utc = pc.equal(pc.struct_field(fields, "sign"), "-").fill_null(False).to_numpy(zero_copy_only=False)
    offset = np.where(is_behind_utc, -1, 1) * (zone_hour * 60 + zone_minute) * 60
    seconds = (((first_day + day - 1) * 24 + hour) * 60 + minute) * 60 + second - offset
    is_valid = matches & (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= next_month - first_day)
    is_valid &= (hour <= 23) & (minute <= 59) & (second <= 59) & (zone_hour <= 23) & (zone_minute <= 59)
    return np.where(is_valid, seconds, np.nan)


def _integers(texts: pa.Array) -> np.ndarray:
    """Numbers as int64 [num_rows]; 0 for a null and for an empty text."""
    return pc.if_else(pc.equal(texts, ""), "0", texts).fill_null("0").cast(pa.int64()).to_numpy()
