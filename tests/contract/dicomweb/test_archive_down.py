"""Orthanc down: 503 with Retry-After, nothing half-stored, and what was acknowledged is there when it is back."""

from __future__ import annotations

import pytest

from tests.builders.dicom import series
from tests.contract.dicomweb.conftest import Gateway

pytestmark = pytest.mark.system


async def test_archive_down_then_back_again(gateway: Gateway):
    kept, late = series(1, seed=91, patient_id="SYN-91")[0], series(1, seed=92, patient_id="SYN-92")[0]
    assert (await gateway.store(kept)).status_code == 200
    gateway.orthanc.kill()
    try:
        path = f"/studies/{kept.StudyInstanceUID}"
        for answer in (await gateway.store(late), await gateway.get(path)):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            assert answer.json()["issue"][0]["code"] == "transient"
        assert not await gateway.service.ready()
        # The index answers alone: search and metadata need no archive.
        assert (await gateway.get(f"{path}/metadata")).status_code == 200
        assert (await gateway.http.get("/studies?PatientID=SYN-92", headers=gateway.reader)).json() == []
    finally:
        gateway.orthanc.start()
    assert (await gateway.get(path)).status_code == 200
    assert (await gateway.store(late)).status_code == 200
    assert await gateway.service.ready()
