"""What a Consent hides as ImagingStudy, an AE neither finds nor gets: C-FIND, C-GET, C-MOVE. SYNTHETIC images."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from pydicom import Dataset, dcmread

from dicomweb.recently_read import MAX_AGE_S
from terminology import systems
from tests.builders.dicom import series
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.test_consents import actor, consent
from tests.contract.dimse.conftest import Dimse, storescp


@pytest.fixture(scope="module")
def institutions() -> Iterator[str]:
    """No walls; the record applies Consents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_FHIR_CONSENT", "true")
        yield "shared"


@pytest.fixture(scope="module")
async def study(gateway: Gateway, dimse: Dimse) -> Dataset:
    dataset = series(1, seed=81, patient_id="SYN-881")[0]
    await gateway.add_patient(dataset.PatientID, "refuses")
    assert (await gateway.store(dataset)).status_code == 200
    await gateway.register(dataset.StudyInstanceUID)
    dimse.account("INSIDE", institution="a")
    dimse.account("OUTSIDE", institution="b")
    return dataset


async def found(dimse: Dimse, study: Dataset, title: str) -> list[str]:
    keys = ("QueryRetrieveLevel=STUDY", f"PatientID={study.PatientID}", "StudyInstanceUID")
    answers, said = await dimse.find(*keys, title=title)
    assert "Success" in said, said
    return [one.StudyInstanceUID for one in answers]


async def got(dimse: Dimse, study: Dataset, title: str) -> list[str]:
    target = dimse.folder / f"got-{title}-{len(list(dimse.folder.iterdir()))}"
    target.mkdir()
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.StudyInstanceUID}")
    await dimse.tool("getscu", "-S", "-od", str(target), *keys, "127.0.0.1", str(dimse.port), title=title)
    return [dcmread(path).SOPInstanceUID for path in target.iterdir()]


async def moved(dimse: Dimse, study: Dataset, title: str) -> list[str]:
    with storescp(dimse.folder) as (port, target):
        dimse.account("DEST", frozenset(), port=port, every_institution=True)
        keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.StudyInstanceUID}")
        await dimse.tool("movescu", "-S", "-aem", "DEST", *keys, "127.0.0.1", str(dimse.port), title=title)
        return [dcmread(path).SOPInstanceUID for path in target.iterdir()]


@pytest.mark.requirement("PS3.4 C.4.1: C-FIND finds what the caller may see")
@pytest.mark.requirement("PS3.4 C.4.2: C-MOVE sends what the caller may see")
@pytest.mark.requirement("PS3.4 C.4.3: C-GET sends what the caller may see")
async def test_a_closed_study_is_neither_found_nor_sent(gateway: Gateway, dimse: Dimse, study: Dataset) -> None:
    said = consent("refuses", "co", actor=[actor("Organization/b")])
    for status, closed in (("active", True), ("inactive", False)):
        await gateway.record.update({**said, "status": status})
        await asyncio.sleep(MAX_AGE_S)
        for title in ("INSIDE", "OUTSIDE"):
            hidden = closed and title == "OUTSIDE"
            assert await found(dimse, study, title) == ([] if hidden else [study.StudyInstanceUID])
            for way in (got, moved):
                assert await way(dimse, study, title) == ([] if hidden else [study.SOPInstanceUID]), way.__name__


async def test_the_worklist_leaves_out_whose_record_is_closed_to_the_caller(
    gateway: Gateway, dimse: Dimse, study: Dataset
) -> None:
    """An order tells of a person, and of a study that is to be (ADR 0040)."""
    order = {
        "resourceType": "ServiceRequest", "id": "closed-order", "status": "active", "intent": "order",
        "subject": {"reference": "Patient/refuses"}, "occurrenceDateTime": "2026-12-01T08:00:00+08:00",
        "code": {"text": "SYNTHETIC"}, "orderDetail": [{"coding": [{"system": systems.DCM, "code": "MR"}]}],
    }  # fmt: skip
    await gateway.record.update(order)
    said = consent("refuses", "co-order", actor=[actor("Organization/b")])
    keys = ("PatientID=SYN-881", "ScheduledProcedureStepSequence[0].Modality")
    for status, closed in (("active", True), ("inactive", False)):
        await gateway.record.update({**said, "status": status})
        await asyncio.sleep(MAX_AGE_S)
        for title in ("INSIDE", "OUTSIDE"):
            answers, told = await dimse.find(*keys, title=title, model="-W")
            assert "Success" in told, told
            assert len(answers) == (0 if closed and title == "OUTSIDE" else 1), (status, title)
