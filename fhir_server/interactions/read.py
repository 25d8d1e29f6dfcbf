"""read: `GET /Type/id`. https://hl7.org/fhir/R4/http.html#read"""

from __future__ import annotations

from starlette.responses import Response

from fhir_server.access.policy import Access
from fhir_server.interactions import binary
from fhir_server.interactions.responses import content_response, not_modified, version_headers
from fhir_server.interactions.subset import subset_of_query
from fhir_server.server import Call
from fhir_server.store.changes import Stored
from foramen.kernel.errors import DeletedError, NotFoundError


async def read(call: Call) -> Response:
    """Return the current version; what lies outside the reader's compartment does not exist for them."""
    compartment = call.access.compartment_key(call.resource_type, "r")
    found = await call.server.current.read(call.resource_type, call.logical_id)
    if call.access.wall is not None:
        async with call.server.connections.lend() as connection:
            await call.access.learn(connection, found)
    stored = visible(found, call.resource_type, compartment, call.access)
    note_patient(call, stored)
    if not_modified(call.request, stored.version, stored.updated):
        return Response(status_code=304, headers=version_headers(stored.version, stored.updated))
    if stored.resource_type == "Binary" and (answer := binary.content_response(call, stored)) is not None:
        return answer
    content = subset_of_query(call.request, stored.content or b"")
    return content_response(content, stored.version, stored.updated)


def visible(found: Stored | None, resource_type: str, compartment: int | None, access: Access) -> Stored:
    """Return what the reader may see.

    Raises
    ------
    NotFoundError
        Missing, outside the compartment, or hidden by a Consent: the answers are the same.
    DeletedError
        Was deleted.
    """
    if found is None or (compartment is not None and compartment not in found.patients):
        raise NotFoundError(f"{resource_type} not found")
    if access.hides(found):
        raise NotFoundError(f"{resource_type} not found")
    if found.is_deleted:
        raise DeletedError(f"{resource_type} was deleted", headers=version_headers(found.version, found.updated))
    return found


def note_patient(call: Call, stored: Stored) -> None:
    """Tell the audit whose record was read, when the token does not say it already."""
    if call.access.context.patient is not None:
        call.patient = f"Patient/{call.access.context.patient}"
    elif stored.resource_type == "Patient":
        call.patient = stored.reference
