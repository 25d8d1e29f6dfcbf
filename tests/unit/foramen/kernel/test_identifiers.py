"""Derived UIDs repeat; new ids sort by time. RFC 9562, PS3.5 §B.2."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from foramen.kernel.identifiers import derived_uid, new_logical_id


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_a_derived_uid_is_valid_and_repeats(parts: list[str]) -> None:
    uid = derived_uid(*parts)
    assert uid == derived_uid(*parts)
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
    assert uid.removeprefix("2.25.").isdigit()


def test_parts_do_not_run_together() -> None:
    assert derived_uid("ab", "c") != derived_uid("a", "bc")


def test_new_ids_are_version_7_and_sort_by_time() -> None:
    import time

    ids = []
    for _ in range(5):
        ids.append(new_logical_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert {uuid.UUID(value).version for value in ids} == {7}
