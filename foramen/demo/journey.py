"""`foramen demo --check`: the whole main job without a person, stage by stage, each timed; any failure counts.

Stages are those of docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import httpx
from pydicom import Dataset
from rich.console import Console
from rich.table import Table

from foramen.demo.decision import choose_bundle, verify_bundle
from foramen.demo.studies import DemoStudy
from foramen.demo.surgeon import Surgeon
from foramen.ingest.send import send_instances
from foramen.kernel.errors import InteropError
from foramen.kernel.fhir_client import FhirClient
from foramen.kernel.settings import Settings
from terminology import systems

Result = TypeVar("Result")
_POLL_S = 0.1
_REVIEW_SCOPE = (
    "launch openid fhirUser patient/*.rs user/*.rs user/Observation.u user/DiagnosticReport.u user/Provenance.c"
)
_PLAN_SCOPE = "launch openid fhirUser patient/*.rs user/*.rs user/CarePlan.cu user/Provenance.c"
_PORTAL_SCOPE = "openid fhirUser user/*.rs user/Task.ru"


class StageError(Exception):
    """A stage did not do what it must; the text is shown in the table."""


@dataclass
class Stage:
    """One line of the table."""

    name: str
    seconds: float
    good: bool
    note: str


@dataclass
class Journey:
    """Runs the stages and remembers what they gave."""

    settings: Settings
    token: str
    username: str
    password: str
    say: Callable[[str], None]
    stages: list[Stage] = field(default_factory=list)
    stored_at: float = 0.0

    async def run(self, main: DemoStudy, others: list[DemoStudy]) -> bool:
        """Do the whole job; True when every stage was good."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(headers=headers, timeout=60) as http:
            record = FhirClient(self.settings.fhir_base, http)
            try:
                await self._main(record, http, main)
            except (StageError, InteropError) as error:
                self.say(f"stopped: {error}")
            for study in others:
                await self._try(f"decline {study.name}", partial(self._declined, record, study))
        return all(stage.good for stage in self.stages)

    async def _main(self, record: FhirClient, http: httpx.AsyncClient, study: DemoStudy) -> None:
        await self._stage("1 receive", lambda: self._send(study))
        task = await self._stage("2-3 notify, register", lambda: self._registered(record, study))
        task = await self._stage("4 run", lambda: self._analysed(record, task["id"]))
        report = await self._stage("5-6 encode, publish", lambda: self._published(record, http, study, task))
        self.stages.append(
            Stage("stored to report", time.monotonic() - self.stored_at, True, "from the last instance, wait included")
        )
        surgeon = Surgeon(self.settings.origin, self.username, self.password)
        try:
            patient = task["for"]["reference"].removeprefix("Patient/")
            review = await self._stage("7 launch, review", lambda: self._launch(surgeon, patient))
            await self._stage("8 verify", lambda: self._verify(record, surgeon, review, report))
            await self._stage("8 decide", lambda: self._decide(record, surgeon, review, report, patient))
        finally:
            await surgeon.close()

    async def _stage(self, name: str, work: Callable[[], Awaitable[tuple[Result, str]]]) -> Result:
        """Time one stage; record it; let a failure through so that later stages are not pretended."""
        began = time.monotonic()
        try:
            result, note = await work()
        except (StageError, InteropError) as error:
            self.stages.append(Stage(name, time.monotonic() - began, False, str(error)))
            raise
        self.stages.append(Stage(name, time.monotonic() - began, True, note))
        self.say(f"  {name}: {note}")
        return result

    async def _try(self, name: str, work: Callable[[], Awaitable[tuple[Any, str]]]) -> None:
        try:
            await self._stage(name, work)
        except (StageError, InteropError) as error:
            self.say(f"  {name}: {error}")

    async def _send(self, study: DemoStudy) -> tuple[None, str]:
        await self._c_store(study.instances)
        return None, f"{len(study.instances)} instances by C-STORE"

    async def _c_store(self, instances: list[Dataset]) -> None:
        settings = self.settings
        outcomes = await asyncio.to_thread(
            send_instances, instances, settings.host, settings.dicom_port, settings.dicom_aet
        )
        refused = [outcome for outcome in outcomes if not outcome.stored]
        if refused:
            raise StageError(f"{len(refused)} of {len(outcomes)} instances were refused")
        self.stored_at = time.monotonic()

    async def _find_task(self, record: FhirClient, study: DemoStudy, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        value = f"urn:oid:{study.study_instance_uid}"
        while time.monotonic() < deadline:
            found = await record.search("ImagingStudy", [("identifier", f"{systems.DICOM_UID}|{value}")])
            if found:
                tasks = await record.search("Task", [("focus", f"ImagingStudy/{found[0]['id']}")])
                if tasks:
                    return tasks[0]
            await asyncio.sleep(_POLL_S)
        raise StageError(f"no ImagingStudy and Task after {timeout_s:.0f} s")

    async def _registered(self, record: FhirClient, study: DemoStudy) -> tuple[dict[str, Any], str]:
        task = await self._find_task(record, study, 60 + self.settings.stable_study_s)
        return task, f"ImagingStudy and Task, stable-study wait {self.settings.stable_study_s} s included"

    async def _ended(self, record: FhirClient, task_id: str, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            task = await record.read(f"Task/{task_id}")
            if task["status"] in ("completed", "failed", "rejected"):
                return task
            await asyncio.sleep(_POLL_S)
        raise StageError(f"the Task has not ended after {timeout_s:.0f} s")

    async def _analysed(self, record: FhirClient, task_id: str) -> tuple[dict[str, Any], str]:
        task = await self._ended(record, task_id, 120)
        if task["status"] != "completed":
            raise StageError(f"Task {task['status']}: {task.get('statusReason', {}).get('text', '')}")
        return task, "Task completed"

    async def _published(
        self, record: FhirClient, http: httpx.AsyncClient, study: DemoStudy, task: dict[str, Any]
    ) -> tuple[dict[str, Any], str]:
        references = [item.get("valueReference", {}).get("reference", "") for item in task.get("output", [])]
        reports = [await record.read(item) for item in references if item.startswith("DiagnosticReport/")]
        if not reports or reports[0]["status"] != "partial":
            raise StageError("no partial DiagnosticReport")
        response = await http.get(
            f"{self.settings.dicom_web_base}/studies/{study.study_instance_uid}/series",
            headers={"Accept": "application/dicom+json"},
        )
        modalities = (
            {item["00080060"]["Value"][0] for item in response.json()} if response.status_code == 200 else set()
        )
        if not {"SEG", "SR"} <= modalities:
            raise StageError(f"the study holds {sorted(modalities)}, SEG and SR are missing")
        return reports[0], f"SEG, SR, {len(reports[0]['result'])} findings"

    async def _launch(self, surgeon: Surgeon, patient: str) -> tuple[dict[str, Any], str]:
        portal = await surgeon.authorize("portal", f"{self.settings.origin}/", _PORTAL_SCOPE)
        review = await surgeon.launch(portal["access_token"], "result-review", patient, _REVIEW_SCOPE)
        plan = await surgeon.launch(portal["access_token"], "care-plan", patient, _PLAN_SCOPE)
        if review.get("patient") != patient or plan.get("patient") != patient:
            raise StageError("the launch context names another patient")
        return {"review": review, "plan": plan}, f"one sign-on, {surgeon.sign_ins} password prompt, two apps"

    async def _verify(
        self, record: FhirClient, surgeon: Surgeon, tokens: dict[str, Any], report: dict[str, Any]
    ) -> tuple[None, str]:
        report = await record.read(f"DiagnosticReport/{report['id']}")
        findings = [await record.read(item["reference"]) for item in report["result"]]
        practitioner = await self._practitioner(record)
        bundle = verify_bundle(report, findings, practitioner, "demo --check", _now())
        await surgeon.transaction(tokens["review"]["access_token"], bundle)
        signed = await record.read(f"DiagnosticReport/{report['id']}")
        if signed["status"] != "final":
            raise StageError(f"the report is {signed['status']} after the signature")
        return None, f"report and {len(findings)} findings final, signed by {practitioner}"

    async def _decide(
        self, record: FhirClient, surgeon: Surgeon, tokens: dict[str, Any], report: dict[str, Any], patient: str
    ) -> tuple[None, str]:
        drafts = await record.search("CarePlan", [("subject", f"Patient/{patient}"), ("status", "draft")])
        basis = {"reference": f"DiagnosticReport/{report['id']}"}
        options = [plan for plan in drafts if plan["intent"] == "option" and basis in plan["supportingInfo"]]
        if len(options) < 3:
            raise StageError(f"only {len(options)} options")
        chosen = next((plan for plan in options if _verdict(plan) == "eligible"), None)
        if chosen is None:
            raise StageError("no option is eligible")
        bundle = choose_bundle(chosen, await self._practitioner(record), "demo --check", _now())
        await surgeon.transaction(tokens["plan"]["access_token"], bundle)
        active = await record.search("CarePlan", [("subject", f"Patient/{patient}"), ("status", "active")])
        if not any(plan["intent"] == "plan" for plan in active):
            raise StageError("the chosen plan is not active")
        return None, f"{len(options)} options, chosen: {chosen['title']}"

    async def _practitioner(self, record: FhirClient) -> str:
        found = await record.search("Practitioner", [("_id", "demo-surgeon")])
        if not found:
            raise StageError("the demo practitioner is missing")
        return f"Practitioner/{found[0]['id']}"

    async def _declined(self, record: FhirClient, study: DemoStudy) -> tuple[None, str]:
        await self._c_store(study.instances)
        task = await self._find_task(record, study, 60 + self.settings.stable_study_s)
        task = await self._ended(record, task["id"], 120)
        reason = task.get("statusReason", {}).get("text", "")
        if task["status"] != "rejected" or not reason:
            raise StageError(f"expected a refusal with a reason, got {task['status']}")
        return None, f"{len(study.instances)} instances stored, declined: {reason}"


def _verdict(plan: dict[str, Any]) -> str | None:
    for extension in plan.get("extension", []):
        if extension["url"] == systems.EXTENSION_VERDICT:
            return str(extension["valueCode"])
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def print_table(stages: list[Stage]) -> None:
    """Print the stage table."""
    table = Table("stage", "seconds", "", "what happened", title="foramen demo --check")
    for stage in stages:
        mark = "[green]ok[/]" if stage.good else "[red]FAILED[/]"
        table.add_row(stage.name, f"{stage.seconds:.2f}", mark, stage.note)
    Console().print(table)
