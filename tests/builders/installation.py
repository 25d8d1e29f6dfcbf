"""Record, identity, DICOMweb and Orthanc on free ports, without a worker: what a worker meets in the real system."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydicom.dataset import Dataset

from foramen.app import migrate
from foramen.identity.oauth.operator_token import operator_token
from foramen.kernel.identifiers import derived_uid, new_trace_id
from foramen.kernel.settings import Settings
from foramen.supervisor.ports import free_port
from terminology import systems
from terminology.codes import RECOMMEND_OPTIONS
from tests.builders.dicom import MULTIPART, Orthanc, multipart, private_orthanc
from tests.builders.patience import patience
from tests.builders.prediction import source_datasets

ISSUER = "DEMO"
Found = TypeVar("Found")
_numbers = itertools.count(1)


def wait_for(look: Callable[[], Found | None], timeout_s: float = 30.0, what: str = "") -> Found:
    """Look until something is found; fail in words when it is not."""
    deadline = time.monotonic() + patience(timeout_s)
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not found within {timeout_s:.0f} s: {what or look}")


@dataclass
class Installation:
    """One running installation without a worker."""

    settings: Settings
    database_url: str
    orthanc: Orthanc
    web: subprocess.Popen[bytes] | None = None
    http: httpx.Client = field(default_factory=httpx.Client)
    _in_record: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a process of this installation."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FORAMEN_")}
        values = self.settings.model_dump(exclude_none=True, mode="json")
        return {**inherited, **{f"FORAMEN_{key.upper()}": str(value) for key, value in values.items()}}

    def start_web(self) -> None:
        """Start the web process and wait until it is ready."""
        with (self.settings.home / "web.log").open("ab") as log:
            self.web = subprocess.Popen(
                [sys.executable, "-m", "foramen", "serve"], env=self.environment, stdout=log, stderr=log
            )
        wait_for(self._ready, 60, "web ready")

    def _ready(self) -> bool:
        assert self.web is not None
        assert self.web.poll() is None, (self.settings.home / "web.log").read_text(encoding="utf-8")[-3000:]
        try:
            return httpx.get(f"{self.settings.origin}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def stop_web(self) -> None:
        """SIGTERM and wait."""
        if self.web is not None:
            self.web.terminate()
            self.web.wait(30)
            self.web = None

    def sign_in(self) -> None:
        """Take an operator's token for everything."""
        token = operator_token(self.settings, self.database_url, "system/*.cruds")
        self.http = httpx.Client(
            base_url=self.settings.origin, headers={"Authorization": f"Bearer {token}"}, timeout=30
        )

    def search(self, query: str) -> list[dict[str, Any]]:
        """Resources of a FHIR search that fits on one page."""
        response = self.http.get(f"/fhir/{query}")
        assert response.status_code == 200, response.text
        return [entry["resource"] for entry in response.json().get("entry", [])]

    def new_patient(self) -> str:
        """Make a SYNTHETIC patient; returns the DICOM Patient ID."""
        patient_id = f"SYN-{next(_numbers):04d}"
        identifier = {"system": f"{systems.IDENTIFIER_PATIENT}/{ISSUER}", "value": patient_id}
        patient = {"resourceType": "Patient", "identifier": [identifier], "birthDate": "1970-01-01", "gender": "male"}
        response = self.http.post("/fhir/Patient", json=patient, headers={"Content-Type": "application/fhir+json"})
        assert response.status_code == 201, response.text
        return patient_id

    def store(self, datasets: list[Dataset]) -> None:
        """Store instances by STOW-RS."""
        parts = []
        for dataset in datasets:
            buffer = BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            parts.append(buffer.getvalue())
        response = self.http.post("/dicom-web/studies", content=multipart(*parts), headers={"Content-Type": MULTIPART})
        assert response.status_code == 200, response.text

    def new_study(self, slices: int = 5) -> str:
        """Send a SYNTHETIC lumbar study of a new patient; returns its Study Instance UID."""
        patient_id = self.new_patient()
        study = derived_uid("test", new_trace_id())
        self.store(source_datasets(slices, study_instance_uid=study, patient_id=patient_id))
        return study

    def tasks(self, study: str) -> list[dict[str, Any]]:
        """Tasks of a study."""
        if study not in self._in_record:
            found = self.search(f"ImagingStudy?identifier={systems.DICOM_UID}|urn:oid:{study}")
            if not found:
                return []
            self._in_record[study] = found[0]["id"]  # asked ten times a second until something happens
        return self.search(f"Task?focus=ImagingStudy/{self._in_record[study]}")

    def task(self, study: str) -> dict[str, Any]:
        """The Task of a study, waiting until it is registered."""
        return wait_for(lambda: self.tasks(study), 30, "the Task of the study")[0]

    def cancel(self, study: str) -> None:
        """End the Task of a study as a person would: no worker takes it up."""
        task = self.task(study)
        response = self.http.put(
            f"/fhir/Task/{task['id']}",
            json={**task, "status": "cancelled"},
            headers={"Content-Type": "application/fhir+json"},
        )
        assert response.status_code == 200, response.text

    def ended_task(self, study: str, timeout_s: float = 60) -> dict[str, Any]:
        """The Task of a study once it has been answered."""

        def look() -> dict[str, Any] | None:
            ended = [task for task in self.tasks(study) if task["status"] in ("completed", "failed", "rejected")]
            return ended[0] if ended else None

        return wait_for(look, timeout_s, "an answered Task")

    def results(self, study: str) -> dict[str, int]:
        """How many resources of each type the patient of a study has, and how many result objects the archive."""
        patient = self.task(study)["for"]["reference"]
        counts = {}
        for kind in ("Observation", "DiagnosticReport", "CarePlan", "RequestGroup", "GuidanceResponse"):
            response = self.http.get(f"/fhir/{kind}?subject={patient}&_summary=count").json()
            counts[kind] = int(response["total"])
        reports = ",".join(
            f"DiagnosticReport/{item['id']}" for item in self.search(f"DiagnosticReport?subject={patient}")
        )
        counts["Provenance"] = len(self.search(f"Provenance?target={reports}")) if reports else 0
        objects = self.http.get(
            f"/dicom-web/studies/{study}/series", headers={"Accept": "application/dicom+json"}
        ).json()
        modalities = [item["00080060"]["Value"][0] for item in objects]
        return {**counts, **{kind: modalities.count(kind) for kind in ("SEG", "PR", "SR", "KO")}}

    def ask_for_options(self, report: dict[str, Any]) -> str:
        """Make a `recommend-options` Task, as the care-plan app does; returns its id."""
        task = {
            "resourceType": "Task",
            "status": "requested",
            "intent": "order",
            "code": RECOMMEND_OPTIONS.concept(),
            "focus": {"reference": f"DiagnosticReport/{report['id']}"},
            "for": report["subject"],
            "authoredOn": "2026-11-22T09:00:00Z",
        }
        response = self.http.post("/fhir/Task", json=task, headers={"Content-Type": "application/fhir+json"})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])


@contextmanager
def installation(home: Path, database_url: str) -> Iterator[Installation]:
    """Run an installation for a while."""
    with private_orthanc(
        home, port=free_port(), database_url=database_url, default_patient_id_issuer=ISSUER
    ) as orthanc:
        settings = orthanc.settings.model_copy(update={"worker_poll_s": 0.2})
        migrate(settings)
        running = Installation(settings, database_url, orthanc)
        running.start_web()
        try:
            running.sign_in()
            yield running
        finally:
            running.stop_web()
