"""PyPI's dicomweb-client, written by others against the standard, does its calls on our gateway."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset

from tests.builders.dicom import series
from tests.builders.tokens import token
from tests.contract.dicomweb.conftest import READ, WRITE, Gateway


def client_of(gateway: Gateway, scope: str = f"{READ} {WRITE}") -> DICOMwebClient:
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {token(scope)}"
    client = DICOMwebClient(f"{gateway.orthanc.settings.internal_origin}/dicom-web", session=session)
    client.set_http_retry_params(retry=False)
    return client


async def test_it_stores_searches_and_retrieves(gateway: Gateway):
    datasets = series(3, seed=81, patient_id="SYN-81")
    client = client_of(gateway)
    study, one = datasets[0].StudyInstanceUID, datasets[0].SeriesInstanceUID

    def work() -> None:
        answer = client.store_instances(datasets, study_instance_uid=study)
        assert len(answer.ReferencedSOPSequence) == 3
        assert "FailedSOPSequence" not in answer
        (found,) = client.search_for_studies(search_filters={"PatientID": "SYN-81"}, fields=["StudyDescription"])
        assert Dataset.from_json(found).StudyInstanceUID == study
        (entry,) = client.search_for_series(study)
        assert Dataset.from_json(entry).SeriesInstanceUID == one
        instances = client.search_for_instances(study, one, limit=2, offset=1)
        assert [Dataset.from_json(item).InstanceNumber for item in instances] == [2, 3]
        assert len(list(client.retrieve_study(study))) == 3
        whole = list(client.retrieve_series(study, one, media_types=(("application/dicom", "*"),)))
        assert {item.SOPInstanceUID for item in whole} == {item.SOPInstanceUID for item in datasets}
        metadata = client.retrieve_series_metadata(study, one)
        read = [Dataset.from_json(item, bulk_data_uri_handler=lambda *_: None) for item in metadata]
        assert [item.ImagePositionPatient for item in read] == [item.ImagePositionPatient for item in datasets]
        uid = datasets[1].SOPInstanceUID
        back = client.retrieve_instance(study, one, uid)
        assert np.array_equal(back.pixel_array, datasets[1].pixel_array)
        (frame,) = client.retrieve_instance_frames(study, one, uid, [1])
        assert frame == datasets[1].PixelData
        assert client.retrieve_instance_rendered(study, one, uid, media_types=("image/png",)).startswith(b"\x89PNG")
        bulk = client.retrieve_bulkdata(
            f"{gateway.orthanc.settings.internal_origin}/dicom-web/studies/{study}/series/{one}/instances/{uid}/bulkdata/7FE00010"
        )
        assert bulk[0] == datasets[1].PixelData

    await asyncio.to_thread(work)


async def test_what_the_worker_expects_of_an_unknown_study(gateway: Gateway):
    client = client_of(gateway)

    def work() -> None:
        assert client.search_for_instances("1.2.3", "1.2.3") == []
        with pytest.raises(requests.HTTPError) as fault:
            client.retrieve_series_metadata("1.2.3", "1.2.3")
        assert fault.value.response.status_code == 404

    await asyncio.to_thread(work)
