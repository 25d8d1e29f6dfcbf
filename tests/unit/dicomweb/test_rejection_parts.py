"""What follows from a rejection, and what a note says: pure parts of dicomweb/rejection."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread

from dicomweb.rejection.codes import RejectionCode, rejection_code
from dicomweb.rejection.note import Reference, read_note, write_note
from dicomweb.rejection.own_results import standing_on
from foramen.kernel.errors import InvalidRequestError

STUDY = {
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "SYNTHETIC^ONE", "Ideographic": "合成^一"}]},
    "00100020": {"vr": "LO", "Value": ["SYN-1"]},
}
REFERENCES = [Reference("1.2.3.1", f"1.2.3.1.{n}", "1.2.840.10008.5.1.4.1.1.4") for n in (2, 1)]


def written(code: RejectionCode = RejectionCode.QUALITY) -> Dataset:
    return dcmread(BytesIO(write_note(STUDY, REFERENCES, code, "模糊", datetime.now(UTC)).content))


def test_results_that_stand_on_results_go_too_and_others_stay():
    results = {"seg": {"image-1"}, "report": {"seg"}, "summary": {"report", "x"}, "other": {"image-2"}}
    assert standing_on({"image-1"}, results) == {"seg", "report", "summary"}
    assert standing_on({"image-3"}, results) == set()
    assert standing_on({"seg"}, results) == {"report", "summary"}


@pytest.mark.parametrize("code", RejectionCode)
def test_a_note_says_what_was_written_into_it(code: RejectionCode):
    note = written(code)
    found = read_note(note)
    assert found is not None
    assert (found.code, found.text, found.foreign) == (code, "模糊", False)
    assert found.references == tuple(sorted(REFERENCES))
    assert str(note.PatientName) == "SYNTHETIC^ONE=合成^一"


def test_another_key_object_selection_is_no_note_and_one_that_names_nothing_is_refused():
    note = written()
    note.ConceptNameCodeSequence[0].CodeValue = "113000"
    assert read_note(note) is None
    note = written()
    note.ConceptNameCodeSequence[0].CodingSchemeDesignator = "99X"
    assert read_note(note) is None
    note = written()
    note.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    assert read_note(note) is None
    note = written()
    del note.CurrentRequestedProcedureEvidenceSequence
    with pytest.raises(ValueError, match="at least one"):
        read_note(note)


@pytest.mark.parametrize("text", ["", "113001", "113001^", "113001^SCT", "113000^DCM", "^DCM", "113001^DCM^x"])
def test_only_the_four_codes_are_reasons(text: str):
    with pytest.raises(InvalidRequestError):
        rejection_code(text)
