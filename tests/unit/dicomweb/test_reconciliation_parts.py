"""Pure parts of reconciliation: what differs, whose name is right, what is laid over and taken off again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.patient_match import replaced_by
from dicomweb.reconciliation.comparison import Archived, Indexed, compare
from dicomweb.reconciliation.demographics import SYSTEM, as_stored, corrections, hash_of, laid_over
from dicomweb.reconciliation.levels import contradict
from terminology import systems

NAME, NUMBER, BIRTH, SEX, ORIGINALS = "00100010", "00100020", "00100030", "00100040", "04000561"
AT = datetime(2026, 1, 5, 12, tzinfo=UTC)
STORED = {
    NAME: {"vr": "PN", "Value": [{"Alphabetic": "Zhang^San"}]},
    NUMBER: {"vr": "LO", "Value": ["A-1"]},
    "00100021": {"vr": "LO", "Value": ["DEMO"]},
    BIRTH: {"vr": "DA"},
}


def patient(**changes: Any) -> dict[str, Any]:
    identifier = {"system": f"{systems.IDENTIFIER_PATIENT}/DEMO", "value": "A-1"}
    return {"resourceType": "Patient", "identifier": [identifier], **changes}


def test_each_difference_has_its_own_name():
    there = [Archived("a", "1", "f1"), Archived("b", "2", "f9"), Archived("c2", "3", "f3"), Archived("d", "4", "f4")]
    there += [Archived("e", "5", "f5"), Archived("e2", "5", "f6"), Archived("h", "8", "f8")]
    rows = [Indexed("a", "1", "f1"), Indexed("b", "2", "f2"), Indexed("c", "3", "f3"), Indexed("e2", "5", None)]
    rows += [Indexed("g", "7", "f7"), Indexed("h", "8", "f8")]
    plan = compare(there, rows, {"8"})
    assert [item.sop_instance_uid for item in plan.new] == ["4"]
    assert [item.orthanc_id for item in plan.rewritten] == ["b"]
    assert [item.orthanc_id for item in plan.renamed] == ["c2"]
    assert [item.orthanc_id for item in plan.unnoted] == ["e2"]  # The index's own of two stays.
    assert (plan.missing, plan.withdrawn, plan.duplicates) == (("7",), ("8",), ("5",))


UIDS = st.sampled_from("12345")


@given(st.sets(st.tuples(UIDS, UIDS)), st.dictionaries(UIDS, UIDS), st.sets(UIDS))
def test_what_was_compared_and_mended_is_in_line(
    there: set[tuple[str, str]], rows: dict[str, str], withdrawn: set[str]
) -> None:
    """Property: rows made as the plan says leave nothing to do but what waits for a person."""
    files = [Archived(f"{uid}/{name}", uid, name) for uid, name in there]
    known = [Indexed(f"{uid}/{name}", uid, None) for uid, name in rows.items()]
    plan = compare(files, known, withdrawn)
    kept = {row.sop_instance_uid: row for row in known if row.sop_instance_uid not in plan.withdrawn}
    for item in plan.new + plan.replaced + plan.unnoted:
        kept[item.sop_instance_uid] = Indexed(item.orthanc_id, item.sop_instance_uid, item.attachment)
    again = compare(files, kept.values(), withdrawn)
    assert (again.new, again.replaced, again.unnoted, again.withdrawn) == ((), (), (), ())
    assert (again.missing, again.duplicates) == (plan.missing, plan.duplicates)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, {}),
        ({"name": [{"family": "ZHANG", "given": ["San"]}]}, {}),
        ({"name": [{"family": "Li", "given": ["Si"]}]}, {NAME: [{"Alphabetic": "Li^Si"}]}),
        # Another script contradicts nothing, as long as nothing else does.
        ({"name": [{"text": "张三"}]}, {}),
        (
            {"name": [{"text": "李四"}], "birthDate": "1970-01-02"},
            {NAME: [{"Ideographic": "李四"}], BIRTH: ["19700102"]},
        ),
        ({"name": [{"use": "old", "family": "Li"}]}, {}),
        ({"birthDate": "1970-01", "gender": "unknown"}, {}),
        ({"gender": "female"}, {SEX: ["F"]}),
        ({"identifier": [{"system": f"{systems.IDENTIFIER_PATIENT}/DEMO", "value": "B-2"}]}, {NUMBER: ["B-2"]}),
        ({"identifier": [{"system": f"{systems.IDENTIFIER_PATIENT}/OTHER", "value": "B-2"}]}, {}),
    ],
)
def test_only_what_the_record_contradicts_is_corrected(changes: dict[str, Any], shown: dict[str, Any]):
    found = corrections(patient(**changes), STORED, None)
    assert {tag: one["Value"] for tag, one in found.items()} == shown
    assert (hash_of(found) is None) is (not shown)


def test_an_old_number_gives_way_to_the_valid_one():
    system = f"{systems.IDENTIFIER_PATIENT}/DEMO"
    numbers = [{"system": system, "value": "A-1", "use": "old"}, {"system": system, "value": "B-2"}]
    assert corrections(patient(identifier=numbers), STORED, None)[NUMBER]["Value"] == ["B-2"]


def test_a_chinese_name_in_the_first_group_is_the_same_name():
    stored = STORED | {NAME: {"vr": "PN", "Value": [{"Alphabetic": "张^三"}]}}
    assert corrections(patient(name=[{"text": "张三"}]), stored, None) == {}


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=8)
VALUES = st.fixed_dictionaries({"vr": st.just("LO"), "Value": st.lists(TEXTS, min_size=1, max_size=1)})
OTHERS = st.just({"04000563": {"vr": "LO", "Value": ["ANOTHER SYSTEM"]}})


@pytest.mark.requirement("PS3.3 C.12.1.1.9: Original Attributes Sequence keeps what stood there")
@given(
    st.dictionaries(st.sampled_from([NUMBER, SEX, "00081030"]), VALUES),
    st.dictionaries(st.sampled_from([NUMBER, SEX]), VALUES),
    st.dictionaries(st.sampled_from([NUMBER, SEX]), VALUES),
    st.lists(OTHERS, max_size=2),
)
def test_what_is_laid_over_can_be_taken_off_again(
    model: dict[str, Any], first: dict[str, Any], second: dict[str, Any], others: list[dict[str, Any]]
) -> None:
    stored = dict(model) | ({ORIGINALS: {"vr": "SQ", "Value": others}} if others else {})
    complete = {NUMBER: {"vr": "LO"}, SEX: {"vr": "CS"}} | stored
    shown = laid_over(laid_over(complete, first, AT), second, AT)
    assert as_stored(shown) == complete
    assert all(shown[tag]["Value"] == one["Value"] for tag, one in second.items())
    ours = [item for item in shown.get(ORIGINALS, {}).get("Value", []) if item["04000563"]["Value"] == [SYSTEM]]
    assert len(ours) == int(any(complete[tag].get("Value") != one["Value"] for tag, one in second.items()))


@pytest.mark.parametrize(
    ("identities", "expected"),
    [
        ([("1", "A")], False),
        ([("1", "A"), ("1", "")], False),
        ([("1", "A"), ("1", "B")], True),
        ([("1", ""), ("2", "")], True),
    ],
)
def test_an_absent_issuer_contradicts_none(identities: list[tuple[str, str]], expected: bool):
    assert contradict(identities) is expected


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ([], None),
        ([{"type": "seealso", "other": {"reference": "Patient/2"}}], None),
        ([{"type": "replaced-by", "other": {"reference": "Patient/2"}}], "Patient/2"),
        ([{"type": "replaced-by", "other": {"reference": "https://here/fhir/Patient/2/_history/3"}}], "Patient/2"),
        ([{"type": "replaced-by", "other": {"reference": "https://elsewhere/fhir/Patient/2"}}], "Patient/-"),
        ([{"type": "replaced-by", "other": {"reference": f"Patient/{one}"}} for one in "23"], "Patient/-"),
    ],
)
def test_a_merge_is_followed_here_alone(links: list[dict[str, Any]], expected: str | None):
    assert replaced_by({"link": links}, "https://here/fhir") == expected
