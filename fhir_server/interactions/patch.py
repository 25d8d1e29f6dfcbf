"""patch: `PATCH /Type/id` and `PATCH /Type?query`, JSON Patch or FHIRPath Patch. https://hl7.org/fhir/R4/http.html#patch"""

from __future__ import annotations

from starlette.responses import Response

from fhir_server.formats.media_types import FHIR_JSON, FHIR_XML, parse_media_type
from fhir_server.interactions.body import json_body, raw_body
from fhir_server.interactions.operations import (
    Operation,
    check_identity,
    check_writable,
    parse_etag,
    parse_unmodified_since,
)
from fhir_server.interactions.responses import write_response
from fhir_server.interactions.unit_of_work import perform
from fhir_server.patching.merge_patch import MERGE_PATCH, parse_merge_patch
from fhir_server.patching.patch import JSON_PATCH, Patch, parse_patch
from fhir_server.server import Call
from foramen.kernel.errors import UnsupportedMediaTypeError
from foramen.kernel.http_edge import header

_ACCEPTED = f"{JSON_PATCH}, {MERGE_PATCH}, {FHIR_JSON}, {FHIR_XML}"
_PLAIN_JSON = "application/json"


async def patch(call: Call) -> Response:
    """Change parts of a resource; read, changed and written under the lock of its row."""
    check_writable(call.resource_type, "PATCH")
    operation = Operation(
        "PATCH",
        call.resource_type,
        call.logical_id or None,
        patch=await _patch_of(call),
        if_match=parse_etag(header(call.request, b"if-match")),
        unmodified_since=parse_unmodified_since(header(call.request, b"if-unmodified-since")),
        query=None if call.logical_id else call.request.url.query,
    )
    check_identity(operation)
    (result,) = await perform(call, [operation])
    call.entity = result.reference
    return write_response(call, result)


async def _patch_of(call: Call) -> Patch:
    """Read the patch in the body.

    Raises
    ------
    InteropError
        415 with `Accept-Patch` (RFC 5789 §3.1), 413 or 400.
    """
    name = parse_media_type(header(call.request, b"content-type") or "").name
    if name == JSON_PATCH:
        return parse_patch(await raw_body(call), call.server.limits, is_json_patch=True)
    if name in (MERGE_PATCH, _PLAIN_JSON):  # What `fhirpy` sends; R4 itself does not name it.
        return parse_merge_patch(await raw_body(call), call.server.limits)
    if name in (FHIR_JSON, FHIR_XML):
        return parse_patch(await json_body(call), call.server.limits, is_json_patch=False)
    raise UnsupportedMediaTypeError(f"A patch is one of {_ACCEPTED}", headers={"Accept-Patch": _ACCEPTED})
