"""Pure parts of DIMSE: identifiers, wildcard matching, accounts, admission, worklist items. SYNTHETIC values."""

from __future__ import annotations

import os
import select
import time
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import MODE_ACCEPTOR
from pynetdicom.dsutils import decode, encode
from pynetdicom.sop_class import MRImageStorage

from dicomweb.dimse.admission import is_certified, is_from
from dicomweb.dimse.application_entity import (
    ApplicationEntity,
    require_ae_title,
    require_fingerprint,
    require_institution,
    require_rights,
)
from dicomweb.dimse.contexts import classes_of, contexts_for
from dicomweb.dimse.identifier import IdentifierError, asked, charset_for, unique_keys
from dicomweb.dimse.matching import is_like, matches
from dicomweb.dimse.prefetching import prior_query
from dicomweb.dimse.procedure import procedure_of
from dicomweb.dimse.store_request import StoreRequest, answer_to, file_head, fragments_of, request_of
from dicomweb.dimse.transport import ServedAssociation
from dicomweb.dimse.upper_layer import UpperLayer
from dicomweb.dimse.worklist import scheduled_step
from foramen.kernel.errors import ForbiddenError, InvalidRequestError
from terminology import systems


def _query(**values: object) -> Dataset:
    query = Dataset()
    for keyword, value in values.items():
        setattr(query, keyword, value)
    return query


@pytest.mark.requirement("PS3.4 C.2.2.2.4: wildcard matching")
@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("*", "", True),
        ("A?C", "ABC", True),
        ("A?C", "AC", False),
        ("*SPINE*", "L SPINE 1", True),
        ("A*B*C", "AxxByyC", True),
        ("A*B*C", "AxxByy", False),
        ("", "A", False),
        ("[A]", "A", False),
        (".", "A", False),
    ],
)
def test_wildcards(pattern: str, value: str, fits: bool) -> None:
    assert is_like(pattern, value) is fits


def test_a_hostile_pattern_costs_little() -> None:
    began = time.process_time()
    assert not is_like("*a" * 32 + "b", "a" * 10_000)
    assert time.process_time() - began < 2


@given(st.text("ab", max_size=8))
def test_every_text_is_like_itself_and_like_everything(text: str) -> None:
    assert is_like(text, text)
    assert is_like(f"*{text}*", f"b{text}a")


@pytest.mark.requirement("PS3.4 C.2.2.2.5: range matching")
def test_ranges_and_names() -> None:
    found = _query(PatientName="SYNTHETIC^One", StudyDate="20260105", StudyTime="101530")
    assert matches(_query(PatientName="synthetic^*"), found)
    assert matches(_query(StudyDate="20260101-20260131"), found)
    assert matches(_query(StudyDate="-20260105", StudyTime="1015-"), found)
    assert not matches(_query(StudyDate="20260106-"), found)
    assert not matches(_query(StudyDate="20260101-", PatientID="X"), found)


@pytest.mark.requirement("PS3.4 C.4.1.3.1: unique keys of the levels above")
def test_unique_keys() -> None:
    with pytest.raises(IdentifierError):
        asked(_query(QueryRetrieveLevel="PATIENT"), "STUDY")
    with pytest.raises(IdentifierError):
        asked(_query(QueryRetrieveLevel="IMAGE", StudyInstanceUID="1.2"), "STUDY")
    with pytest.raises(IdentifierError):
        asked(_query(QueryRetrieveLevel="STUDY", PatientID="SYN*"), "PATIENT")
    with pytest.raises(IdentifierError):
        unique_keys(_query(QueryRetrieveLevel="STUDY", StudyInstanceUID=""), "STUDY")
    with pytest.raises(IdentifierError):
        unique_keys(
            _query(QueryRetrieveLevel="SERIES", StudyInstanceUID=["1.2", "1.3"], SeriesInstanceUID="1.4"), "STUDY"
        )
    level, keys = unique_keys(_query(QueryRetrieveLevel="STUDY", StudyInstanceUID=["1.2", "1.3"]), "STUDY")
    assert (level, keys) == ("STUDY", {"STUDY": ["1.2", "1.3"]})


def test_keys_that_cannot_be_matched_are_named() -> None:
    query = _query(QueryRetrieveLevel="STUDY", PatientID="SYN-1", StudyDate="*", SpecificCharacterSet="GB18030")
    query.add_new(0x00111001, "LO", "private")
    found = asked(query, "STUDY")
    assert found.matching == (("PatientID", "SYN-1"),)
    assert set(found.wanted) == {"PatientID", "StudyDate"}
    assert found.ignored == ("00111001",)
    assert charset_for(query) == "GB18030"


def test_accounts_are_checked() -> None:
    assert require_ae_title(" CT1 ") == "CT1"
    for bad in ("", "A\\B", "A" * 17, "名", "A\nB"):
        with pytest.raises(InvalidRequestError):
            require_ae_title(bad)
    assert require_rights("find, get") == {"find", "get"}
    with pytest.raises(InvalidRequestError):
        require_rights("find,all")
    assert require_fingerprint("AB:" * 31 + "AB") == "ab" * 32
    with pytest.raises(InvalidRequestError):
        require_fingerprint("abcd")
    with pytest.raises(InvalidRequestError):
        require_institution("a/b")


def test_an_account_without_a_right_is_granted_nothing() -> None:
    account = ApplicationEntity("X", frozenset({"find"}), institution="inst-a")
    assert account.context.is_bounded_by_institution
    account.context.reach("ImagingStudy", "s")
    with pytest.raises(ForbiddenError):
        account.context.reach("ImagingStudy", "r")
    assert len(classes_of(contexts_for(frozenset()))) == 1


def test_admission() -> None:
    here = ApplicationEntity("X", frozenset(), host="127.0.0.1")
    assert is_from(here, "127.0.0.1")
    assert is_from(here, "::ffff:127.0.0.1")
    assert not is_from(here, "127.0.0.2")
    assert not is_from(ApplicationEntity("X", frozenset()), "127.0.0.1")
    assert is_from(ApplicationEntity("X", frozenset(), any_address=True), "192.0.2.9")
    assert is_certified(here, None)
    assert not is_certified(ApplicationEntity("X", frozenset(), tls_fingerprint="ab" * 32), None)


@pytest.mark.requirement("PS3.4 K.6: worklist attributes")
def test_orders_without_a_modality_are_none() -> None:
    request = {"id": "r1", "subject": {"reference": "Patient/p"}, "occurrencePeriod": {"start": "2026-12-01"}}
    patient = {"name": [{"text": "合成 SYNTHETIC"}], "birthDate": "1980-02", "gender": "female"}
    assert scheduled_step(request, patient) is None
    request["orderDetail"] = [{"coding": [{"system": systems.DCM, "code": "MR"}]}]  # type: ignore[assignment]
    item = scheduled_step(request, patient)
    assert item is not None
    assert (item.PatientBirthDate, item.PatientSex) == ("", "F")
    assert item.PatientName.ideographic == "合成 SYNTHETIC"
    step = item.ScheduledProcedureStepSequence[0]
    assert (step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime) == ("20261201", "")
    again = scheduled_step(request, patient)
    assert again is not None
    assert again.StudyInstanceUID == item.StudyInstanceUID


def test_a_discontinued_step_is_a_stopped_procedure() -> None:
    attributes = {
        "00080060": {"vr": "CS", "Value": ["MR"]},
        "00400244": {"vr": "DA", "Value": ["20260105"]},
        "00400281": {"vr": "SQ", "Value": [{"00080104": {"vr": "LO", "Value": ["SYNTHETIC reason"]}}]},
    }
    procedure = procedure_of("1.2.3", "DISCONTINUED", attributes, "Patient/p", ["o1"])
    assert procedure["status"] == "stopped"
    assert procedure["statusReason"] == {"text": "SYNTHETIC reason"}
    assert procedure["basedOn"] == [{"reference": "ServiceRequest/o1"}]
    assert procedure["performedPeriod"] == {"start": "2026-01-05"}


def test_priors_are_asked_for_by_patient_and_years() -> None:
    query = prior_query("SYN-1", "20260105", 5)
    assert query.StudyDate == "20210105-20260105"
    assert query.PatientID == "SYN-1"


def _command(**changes: Any) -> bytes:
    """The PDU body of a C-STORE request, as pynetdicom encodes it, and without what `changes` sets to None."""
    values: dict[str, Any] = {
        "AffectedSOPClassUID": str(MRImageStorage),
        "CommandField": 1,
        "MessageID": 7,
        "Priority": 0,
        "CommandDataSetType": 1,
        "AffectedSOPInstanceUID": "1.2.3.45",
    }
    command = Dataset()
    for keyword, value in (values | changes).items():
        if value is not None:
            setattr(command, keyword, value)
    encoded = encode(command, is_implicit_vr=True, is_little_endian=True) or b""
    return (len(encoded) + 2).to_bytes(4, "big") + b"\x05\x03" + encoded


def _request(body: bytes) -> StoreRequest | None:
    first, *_ = fragments_of(memoryview(body))
    return request_of(first, memoryview(body))


def test_a_store_request_and_its_answer_are_those_of_the_standard() -> None:
    request = _request(_command())
    assert request == StoreRequest(5, 7, str(MRImageStorage), "1.2.3.45")
    pdu = answer_to(request, 0xA700)
    assert pdu[0] == 4
    assert int.from_bytes(pdu[2:6], "big") == len(pdu) - 6
    (only,) = fragments_of(memoryview(pdu)[6:])
    assert (only.context_id, only.control) == (5, 3)
    answer = decode(BytesIO(pdu[12:]), is_implicit_vr=True, is_little_endian=True)
    assert (answer.CommandField, answer.MessageIDBeingRespondedTo, answer.Status) == (0x8001, 7, 0xA700)
    assert (answer.CommandDataSetType, answer.AffectedSOPInstanceUID) == (0x0101, "1.2.3.45")
    assert answer.CommandGroupLength == len(pdu) - 12 - 12
    meta = dcmread(BytesIO(file_head(request, str(ExplicitVRLittleEndian)))).file_meta
    assert (meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == ("1.2.3.45", ExplicitVRLittleEndian)
    assert meta.FileMetaInformationGroupLength == len(file_head(request, str(ExplicitVRLittleEndian))) - 144


@pytest.mark.parametrize(
    "changes",
    [
        {"CommandField": 0x21},
        {"CommandDataSetType": 0x0101},
        {"MessageID": None},
        {"Priority": None},
        {"AffectedSOPInstanceUID": None},
    ],
)
def test_what_is_no_whole_store_request_is_left_to_the_library(changes: dict[str, Any]) -> None:
    assert _request(_command(**changes)) is None


@given(body=st.binary(max_size=80) | st.binary(max_size=8).map(lambda junk: _command()[:-4] + junk))
def test_any_bytes_of_a_pdu_are_a_request_or_none(body: bytes) -> None:
    try:
        found = [request_of(one, memoryview(body)) for one in fragments_of(memoryview(body))]
    except ValueError:
        return
    assert all(one is None or isinstance(one, StoreRequest) for one in found)


def test_an_association_may_end_while_its_connection_is_over() -> None:
    """The reactor tells the upper layer to stop, which has just ended by itself: nothing is left to wake."""
    association = ServedAssociation(AE(), MODE_ACCEPTOR)
    upper = UpperLayer(association)
    upper.kill_dul()
    upper.run_reactor()
    opened, beside = os.pipe()  # takes the number that the ended one has given back
    try:
        upper.stop_dul()
        upper.kill_dul()
        assert not select.select([opened], [], [], 0)[0]
    finally:
        os.close(opened)
        os.close(beside)
