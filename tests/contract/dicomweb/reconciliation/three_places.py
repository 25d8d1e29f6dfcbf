"""One truth of a study in QIDO-RS, in FHIR ImagingStudy and in Orthanc, whatever changed and wherever.

Here: images sent, put in or taken away behind the gateway's back, and what the three places say of a study then.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from pydicom import Dataset

from foramen.kernel.access_context import AccessContext
from tests.builders.dicom import Orthanc, encoded
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway

TRACE = "5" * 32
WHO = AccessContext("archivist", "foramen-cli", ())
NAME, NUMBER, ORIGINALS = "00100010", "00100020", "04000561"


def storescu(gateway: Gateway, folder: Path, *datasets: Dataset) -> None:
    """Send by dcmtk's own sender."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, dataset in enumerate(datasets):
        files.append(folder / f"{number}.dcm")
        files[-1].write_bytes(encoded(dataset))
    settings = gateway.orthanc.settings
    command = ["storescu", "-aec", settings.dicom_aet, "127.0.0.1", str(settings.dicom_port), *map(str, files)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def in_orthanc(gateway: Gateway, *datasets: Dataset) -> None:
    """Store in Orthanc behind the gateway's back."""
    with gateway.orthanc.client() as client:
        for dataset in datasets:
            assert client.post("/instances", content=encoded(dataset)).json()["Status"] == "Success"


def gone_from_orthanc(gateway: Gateway, *datasets: Dataset) -> None:
    with gateway.orthanc.client() as client:
        for dataset in datasets:
            for found in client.post("/tools/lookup", content=str(dataset.SOPInstanceUID)).json():
                assert client.delete(f"/instances/{found['ID']}").status_code == 200


async def truth(gateway: Gateway, study: str) -> dict[str, Any]:
    """What the three say of a study: of each how many instances, of which series, and what description."""
    (found,) = (await gateway.get(f"/studies?StudyInstanceUID={study}&includefield=StudyDescription")).json()
    (resource,) = await gateway.imaging_studies(study)
    with gateway.orthanc.client() as client:
        ids = [item["ID"] for item in client.post("/tools/lookup", content=study).json() if item["Type"] == "Study"]
        stored = [row for one in ids for row in client.get(f"/studies/{one}/instances").json()]
        tags = client.get(f"/studies/{ids[0]}").json()["MainDicomTags"]
    return {
        "counts": (found["00201208"]["Value"][0], resource["numberOfInstances"], len(stored)),
        "descriptions": {found["00081030"]["Value"][0], resource["description"], tags["StudyDescription"]},
        "patient": found[NUMBER]["Value"][0],
        "subject": resource["subject"]["reference"],
        "status": resource["status"],
        "version": resource["meta"]["versionId"],
    }


async def kinds(rows: Any, study: str) -> dict[str, str]:
    found = await rows.fetch("SELECT kind, state FROM dicomweb.drift WHERE study_instance_uid = $1 ORDER BY id", study)
    return {row[0]: row[1] for row in found}


async def drift_id(rows: Any, study: str, kind: str) -> int:
    query = "SELECT id FROM dicomweb.drift WHERE study_instance_uid = $1 AND kind = $2 AND state = 'open'"
    return int(await rows.fetchval(query, study, kind))


def announced(orthanc: Orthanc) -> bool:
    """Whether Orthanc has nothing more to tell: studies are stable, and its plug-in has delivered what it noticed."""
    folder = orthanc.settings.home / "orthanc" / "outbox"
    with orthanc.client() as client:
        if not all(study["IsStable"] for study in client.get("/studies?expand").json()):
            return False
        last = client.get("/changes?last").json()["Last"]
    swept = json.loads((folder / "checkpoint.json").read_text())["swept"]
    return swept >= last and not list(folder.glob("[0-9]*.json"))


async def quiet(gateway: Gateway, rows: Any) -> None:
    """Wait until the intake has nothing left to do, and nothing more will be announced."""

    async def done() -> bool:
        if not await asyncio.to_thread(announced, gateway.orthanc):
            return False
        return not await rows.fetchval("SELECT count(*) FROM dicomweb.arrival")

    await gateway.until(done)


async def seen_by(gateway: Gateway, study: str, patient: str) -> int:
    headers = bearer("patient/ImagingStudy.rs", patient=patient)
    return (await gateway.http.get(f"/studies/{study}/metadata", headers=headers)).status_code
