"""`$validate`: would this resource be accepted? Everything that is wrong with it, and nothing is written.

https://hl7.org/fhir/R4/resource-operation-validate.html. 200 with an OperationOutcome whether or not the resource is
valid; 4xx means that it could not be validated.
"""

from __future__ import annotations

from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from fhir_server.interactions.operations import check_writable
from fhir_server.interactions.read import note_patient, visible
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.model.resource import LARGE_BYTES, Resource, parse_resource
from fhir_server.model.validation import check_size, issues_of, limit_issues
from fhir_server.operations.parameters import parameters_of
from fhir_server.route import Route
from fhir_server.rules.ai_signoff import check_deletion, check_signoff
from fhir_server.server import Call
from fhir_server.store import reading
from fhir_server.store.changes import Stored
from fhir_server.validation.check import profiles_of
from fhir_server.validation.profiles import profile_issues
from foramen.kernel.errors import ForbiddenError, InteropError, InvalidRequestError, Issue
from foramen.kernel.outcome import operation_outcome

_MODES = ("create", "update", "delete", "profile")
_ALL_OK = Issue("informational", "All OK", (), "information")
_DEFINITION = "http://hl7.org/fhir/OperationDefinition/Resource-validate"


async def validate(call: Call) -> Response:
    """Validate the resource in the request, or the stored one that the URL names."""
    parameters = await parameters_of(call)
    parameters.check_known(("resource", "mode", "profile"))
    mode = parameters.text("mode") or ""
    if mode and mode not in _MODES:
        raise _refusal(f"mode must be one of {', '.join(_MODES)}", "mode", "value")
    profiles = parameters.texts("profile")
    await _check_profiles_known(call, profiles)
    if mode == "profile" and not profiles:
        raise _refusal("mode profile needs a profile", "profile", "required")
    stored = await _stored(call) if call.logical_id else None
    if mode == "delete":
        if stored is None:
            raise InvalidRequestError("mode delete needs the URL of a resource", issue_code="required")
        return _answer(_writing_issues(call, mode, None, stored))
    sent = parameters.resource()
    resource = sent or (parse_resource(stored.content or b"{}", call.server.limits.max_depth) if stored else None)
    if resource is None:
        raise _refusal("There is no resource to validate", "resource", "required")
    if len(resource.body) > LARGE_BYTES:
        issues = await run_in_threadpool(_structure_issues, call, resource, mode)
    else:
        issues = _structure_issues(call, resource, mode)
    if any(issue.issue_code == "too-costly" for issue in issues):
        return _answer(issues)
    if not any(issue.severity == "error" and issue.issue_code == "structure" for issue in issues):
        issues += await profile_issues(resource.data, profiles_of(resource.data), call.server)
        if profiles:
            issues += await profile_issues(resource.data, profiles, call.server)
    else:
        issues.append(Issue("informational", "Profiles are checked once the structure is right", (), "information"))
    issues += _writing_issues(call, mode, resource, stored)
    return _answer(issues)


def _refusal(text: str, name: str, code: str) -> InvalidRequestError:
    where = f"Parameters.parameter.where(name='{name}')"
    return InvalidRequestError(text, issue_code=code, expression=(where,))


async def _check_profiles_known(call: Call, profiles: list[str]) -> None:
    await call.server.packages.refresh(now=True)
    for url in profiles:
        if await call.server.packages.profile(url) is None:
            raise _refusal("The profile is not known here, so nothing can be said", "profile", "not-found")


async def _stored(call: Call) -> Stored | None:
    """Return what the URL names; a new resource (mode create or update with a client's id) has nothing yet."""
    call.access.context.reach(call.resource_type, "r")
    compartment = call.access.compartment_key(call.resource_type, "r")
    async with call.server.connections.lend() as connection:
        found = await reading.read(connection, call.resource_type, call.logical_id)
        await call.access.learn(connection, found)
    stored = visible(found, call.resource_type, compartment, call.access)
    note_patient(call, stored)
    return stored


def _structure_issues(call: Call, resource: Resource, mode: str) -> list[Issue]:
    check_size(len(resource.body), resource.resource_type, call.server.limits)
    if too_much := limit_issues(resource.data, resource.resource_type, call.server.limits):
        return too_much
    if resource.resource_type != call.resource_type:
        text = "resourceType differs from the URL; the resource was checked as what it says it is"
        return [Issue("invalid", text, ("resourceType",)), *issues_of(resource, ignore_id=mode == "create")]
    return issues_of(resource, ignore_id=mode == "create")


def _writing_issues(call: Call, mode: str, resource: Resource | None, stored: Stored | None) -> list[Issue]:
    """What beside the content would refuse the write that `mode` names."""
    method = {"create": "POST", "update": "PUT", "delete": "DELETE"}.get(mode)
    if method is None:
        return []
    issues: list[Issue] = []
    try:
        check_writable(call.resource_type, method)
        call.access.context.reach(call.resource_type, {"POST": "c", "PUT": "u", "DELETE": "d"}[method])
    except InteropError as exc:
        issues += exc.issues
    if resource is None:
        try:
            check_deletion(stored.data() if stored is not None else {}, call.access.context)
        except InteropError as exc:
            issues += exc.issues
        return issues
    if mode == "update" and call.logical_id and resource.logical_id != call.logical_id:
        issues.append(Issue("value", "The id in the body differs from the URL", (f"{resource.resource_type}.id",)))
    if mode == "update" and resource.logical_id is None and not call.logical_id:
        issues.append(Issue("required", "An update needs the id in the body", (f"{resource.resource_type}.id",)))
    old: dict[str, Any] | None = orjson.loads(stored.content) if stored is not None and stored.content else None
    reference = f"{resource.resource_type}/{call.logical_id or resource.logical_id or ''}"
    try:
        check_signoff(old, resource.data, reference, call.access.context, ())
    except InteropError as exc:
        issues += exc.issues
    return issues


def _answer(issues: list[Issue]) -> Response:
    told = tuple(dict.fromkeys(issues)) or (_ALL_OK,)
    if all(issue.severity == "information" for issue in told) and _ALL_OK not in told:
        told = (_ALL_OK, *told)
    return Response(orjson.dumps(operation_outcome(told)), media_type=MEDIA_TYPE)


async def validate_sent(call: Call) -> Response:
    """Validate what a POST to the type sends: the token must reach the type in some way."""
    context = call.access.context
    for action in "curs":
        try:
            context.reach(call.resource_type, action)
        except ForbiddenError:
            continue
        return await validate(call)
    raise ForbiddenError(f"The token has no scope for {call.resource_type}")


ROUTES: tuple[Route, ...] = (
    Route("POST", "{type}/$validate", validate_sent, "", "operation", definition=_DEFINITION),
    Route("GET", "{type}/$validate", validate_sent, "", "operation", definition=_DEFINITION),
    Route("POST", "{type}/{id}/$validate", validate, "r", "operation", definition=_DEFINITION),
    Route("GET", "{type}/{id}/$validate", validate, "r", "operation", definition=_DEFINITION),
)
