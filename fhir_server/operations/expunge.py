"""`$expunge`: remove deleted resources and previous versions for good; for administrators.

Not of R4; parameters as HAPI FHIR has them, so that scripts written for it work:
https://hapifhir.io/hapi-fhir/docs/server_jpa/schema.html (deleting data), operation `$expunge`.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from fhir_server.audit.record import audit_record, encode
from fhir_server.operations.expunge_events import expunge_events, unless_overtaken
from fhir_server.operations.parameters import parameters_of, parameters_response
from fhir_server.route import Route
from fhir_server.search.hashing import resource_key
from fhir_server.server import Call
from fhir_server.store import expunging
from fhir_server.store.audit_chain import EVENT
from fhir_server.store.expunging import Removed
from fhir_server.store.writing import write_changes
from foramen.kernel.errors import InvalidRequestError, NotFoundError

_DEFAULT_LIMIT = 1000


async def expunge(call: Call) -> Response:
    """Remove rows and index entries; returns how many versions are gone. AuditEvents have a rule of their own."""
    parameters = await parameters_of(call)
    if call.resource_type == EVENT:
        return await expunge_events(call, parameters)
    parameters.check_known(("limit", "expungeDeletedResources", "expungePreviousVersions"))
    deleted = parameters.boolean("expungeDeletedResources")
    previous = parameters.boolean("expungePreviousVersions")
    if not deleted and not previous:
        text = "Say what to remove: expungeDeletedResources or expungePreviousVersions"
        raise InvalidRequestError(text, issue_code="required", expression=("Parameters.parameter",))
    most = call.server.limits.max_expunge
    limit = min(parameters.integer("limit", least=1) or _DEFAULT_LIMIT, most)
    key = resource_key(call.resource_type, call.logical_id) if call.logical_id else None

    async def remove(connection: Any) -> Removed:
        if key is not None and not await expunging.exists(connection, key):
            raise NotFoundError(f"{call.resource_type} not found")
        removed = await expunging.expunge(
            connection, call.resource_type, key, deleted=deleted, previous=previous, limit=limit
        )
        event = audit_record(
            interaction="operation",
            status=200,
            trace_id=call.trace_id,
            context=call.access.context,
            entity=call.entity if call.logical_id else None,
            written=removed.references,
        )
        await write_changes(connection, call.server.rows, [], call.server.own_url, (encode([event]), 1))
        return removed

    removed = await unless_overtaken(call, remove)
    call.audited = True
    return parameters_response([{"name": "count", "valueInteger": removed.versions}])


ROUTES: tuple[Route, ...] = tuple(
    Route("POST", path, expunge, "d", "operation", definition="$expunge", administrator=True)
    for path in ("{type}/{id}/$expunge", "{type}/$expunge")
)
