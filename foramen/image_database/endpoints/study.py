"""`/apps/images/studies/{study}`: its series, header summary, labels, and the way into the review app."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import urlencode

import orjson
from sqlalchemy import Connection
from starlette.responses import Response

from foramen.identity.audit_outbox import record as record_event
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.oauth.clients import find_client
from foramen.identity.oauth.launches import Launch, create_launch
from foramen.identity.parameters import client_address
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.image_database.attributes import header_lines, number_of, text_of
from foramen.image_database.labels import LONGEST, MOST, label_of, labels_of, meta_parameters
from foramen.image_database.layout import done, render
from foramen.image_database.page import Call
from foramen.image_database.record import Record, imaging_study, record_of
from foramen.image_database.studies import add_record, line_of
from foramen.kernel.errors import ForbiddenError, InvalidRequestError, NotFoundError

REVIEW_APP = "result-review"
_WITHOUT_PICTURE = frozenset(("SR", "PR", "KO", "REG", "M3D", "DOC", "SEG", "RWV", "AU", "ECG", "RTSTRUCT"))
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_UID = 64


async def study_page(call: Call) -> Response:
    """Show a study."""
    return await shown(call)


async def shown(call: Call, *, status: int = 200, problem: str = "") -> Response:
    """Show a study, above it what went wrong."""
    study = uid_of(call, "study")
    async with record_of(call) as record:
        found, series = await asyncio.gather(
            record.found("/studies", [("StudyInstanceUID", study)]), record.found(f"/studies/{study}/series", [])
        )
        if not found:
            raise NotFoundError("There is no such study")
        line = line_of(found[0])
        await add_record(record, [line])
    return render(
        call,
        "study.html",
        status=status,
        problem=problem,
        line=line,
        series=sorted(map(_series, series), key=lambda item: (item["number"], item["uid"])),
        longest=LONGEST,
        can_review=bool(line.patient) and call.account.practitioner is not None,
    )


def _series(attributes: dict[str, Any]) -> dict[str, Any]:
    modality = text_of(attributes, "Modality")
    return {
        "uid": text_of(attributes, "SeriesInstanceUID"),
        "number": number_of(attributes, "SeriesNumber"),
        "modality": modality,
        "description": text_of(attributes, "SeriesDescription"),
        "body_part": text_of(attributes, "BodyPartExamined"),
        "protocol": text_of(attributes, "ProtocolName"),
        "device": " ".join(filter(None, (text_of(attributes, n) for n in ("Manufacturer", "ManufacturerModelName")))),
        "instances": number_of(attributes, "NumberOfSeriesRelatedInstances"),
        "picture": modality not in _WITHOUT_PICTURE,
    }


async def series_page(call: Call) -> Response:
    """Show the header of the first instance of a series."""
    study, series = uid_of(call, "study"), uid_of(call, "series")
    path = f"/studies/{study}/series/{series}"
    async with record_of(call) as record:
        instances = await record.found(f"{path}/instances", [("limit", "1")])
        if not instances:
            raise NotFoundError("There is no such series")
        uid = text_of(instances[0], "SOPInstanceUID")
        answer = await record.dicom(f"{path}/instances/{uid}/metadata", accept="application/dicom+json")
    attributes = orjson.loads(answer.content)[0]
    return render(call, "series.html", study=study, line=_series(attributes), lines=header_lines(attributes))


async def add_label(call: Call) -> Response:
    """Add a label."""
    return await _change_label(call, "$meta-add", "label_added")


async def remove_label(call: Call) -> Response:
    """Remove a label."""
    return await _change_label(call, "$meta-delete", "label_removed")


async def _change_label(call: Call, operation: str, word: str) -> Response:
    study = uid_of(call, "study")
    try:
        label = label_of(call.form.get("label", ""))
        async with record_of(call) as record:
            resource = await imaging_study(record, study)
            if operation == "$meta-add" and len(labels_of(resource)) >= MOST:
                raise InvalidRequestError(f"A study has at most {MOST} labels")
            await record.operation(f"ImagingStudy/{resource['id']}/{operation}", meta_parameters(label))
    except InvalidRequestError as error:
        return await shown(call, status=400, problem=error.message)
    return done(f"/studies/{study}", word)


async def open_review(call: Call) -> Response:
    """Open the review app for the study's patient, by EHR launch.

    https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch
    """
    account = call.account
    if account.practitioner is None:
        raise ForbiddenError("Only a practitioner may launch apps for a patient")
    async with record_of(call) as record:
        patient = await _patient(record, uid_of(call, "study"))

    def work(connection: Connection) -> str:
        app = find_client(connection, REVIEW_APP)
        if app is None or app.launch_url is None:
            raise NotFoundError("The review app is not there")
        token = create_launch(connection, Launch(REVIEW_APP, account.name, patient))
        event = SecurityEvent(
            what="launch",
            outcome=SUCCESS,
            account=account.name,
            client_id=app.client_id,
            fhir_user=account.fhir_user,
            patient=patient,
            address=client_address(call.request),
        )
        record_event(connection, event)
        return f"{app.launch_url}?{urlencode({'iss': call.env.settings.fhir_base, 'launch': token})}"

    return redirect(await call.env.database.run(work))


async def _patient(record: Record, study: str) -> str:
    resource = await imaging_study(record, study)
    patient = str(resource.get("subject", {}).get("reference", "")).rpartition("Patient/")[2]
    if not patient:
        raise NotFoundError("The study has no patient yet")
    return patient


def uid_of(call: Call, name: str) -> str:
    """Return a UID of the path.

    Raises
    ------
    NotFoundError
        It is none, and so not there.
    """
    uid = call.part(name)
    if len(uid) > _LONGEST_UID or not _UID.fullmatch(uid):
        raise NotFoundError("There is no such study")
    return uid
