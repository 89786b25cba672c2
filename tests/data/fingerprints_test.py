"""Digests of long lists against that of their whole JSON."""

import hashlib
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data import fingerprints
from trainer.data.fingerprints import digest_of_lists

VALUES = st.lists(st.text(max_size=3) | st.integers(0, 99) | st.floats(allow_nan=False, width=32), max_size=9)


@given(st.lists(VALUES, max_size=4), st.integers(1, 4))
def test_a_digest_is_that_of_the_json(lists, values_per_chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprints, "_VALUES_PER_CHUNK", values_per_chunk)
        assert digest_of_lists(lists) == hashlib.sha256(json.dumps(lists).encode()).hexdigest()


def test_a_column_is_the_list_of_its_values(monkeypatch):
    monkeypatch.setattr(fingerprints, "_VALUES_PER_CHUNK", 2)
    texts = ["a", "é", '"', "", "b"]
    expected = digest_of_lists([texts, [1, 2, 3]])
    assert digest_of_lists([pa.array(texts), pa.array([1, 2, 3])]) == expected
    assert digest_of_lists([pa.chunked_array([texts[:1], [], texts[1:]]), [1, 2, 3]]) == expected
    assert digest_of_lists([["a", "é"], ['"', "", "b", 1, 2, 3]]) != expected
