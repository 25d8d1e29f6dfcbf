"""Reading url-encoded parameters."""

from __future__ import annotations

import pytest

from foramen.identity.parameters import parse
from foramen.kernel.errors import InvalidRequestError


def test_empty_values_count_as_absent_and_text_is_decoded():
    assert parse("a=1&b=&c=%E4%B8%AD+x") == {"a": "1", "c": "中 x"}


@pytest.mark.parametrize(
    "encoded", ["a=1&a=2", "a=%ff", "a=%00", "a=x%0d%0aSet-Cookie:y", "&".join(f"k{n}=v" for n in range(70))]
)
def test_faulty_parameters_are_refused(encoded: str):
    with pytest.raises(InvalidRequestError):
        parse(encoded)
