"""`$meta`, `$meta-add`, `$meta-delete`: profiles, tags and security labels apart from the resource's content.

https://hl7.org/fhir/R4/resource-operation-meta.html, -meta-add, -meta-delete. R4 allows these elements to change
without a new version; here each change is a version, so that `If-Match` and the history see it. No change, no version.
"""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from fhir_server.interactions.operations import Operation, check_writable
from fhir_server.interactions.read import note_patient, visible
from fhir_server.interactions.unit_of_work import perform
from fhir_server.model.resource import Resource, compose, raw_members
from fhir_server.model.validation import validate
from fhir_server.operations.parameters import parameters_of, parameters_response
from fhir_server.route import Route
from fhir_server.search.conditions import AnyPosting, Selection
from fhir_server.search.parameters import resource_types, type_base
from fhir_server.server import Call
from fhir_server.store import gathering, reading
from fhir_server.store.changes import Stored
from foramen.kernel.errors import ConflictError, ForbiddenError, InvalidRequestError, PreconditionError

_LISTS = ("profile", "security", "tag")
_ATTEMPTS = 5
_MAX_DIGITS = 9


async def meta(call: Call) -> Response:
    """Return the meta of a resource, of one version, or what labels a type or the whole record uses."""
    (await parameters_of(call)).check_known(())
    if call.logical_id:
        return _answer((await _stored(call)).data().get("meta", {}))
    if call.resource_type:
        return _answer(await _in_use(call, [call.resource_type]))
    types = [name for name in sorted(resource_types()) if call.access.may(name, "s")]
    if not types:
        raise ForbiddenError("The token has no scope for a search")
    return _answer(await _in_use(call, types))


async def meta_add(call: Call) -> Response:
    """Add profiles, tags and labels that the resource does not have yet."""
    return await _change(call, _added)


async def meta_delete(call: Call) -> Response:
    """Take profiles, tags and labels away; those that are not there are no error."""
    return await _change(call, _taken_away)


def _answer(found: dict[str, Any]) -> Response:
    return parameters_response([{"name": "return", "valueMeta": found}])


async def _stored(call: Call) -> Stored:
    compartment = call.access.compartment_key(call.resource_type, "r")
    async with call.server.connections.lend() as connection:
        version = call.version_id
        if not version:
            found = await reading.read(connection, call.resource_type, call.logical_id)
        elif version.isascii() and version.isdecimal() and len(version) <= _MAX_DIGITS:
            found = await reading.vread(connection, call.resource_type, call.logical_id, int(version))
        else:
            found = None
        await call.access.learn(connection, found)
    stored = visible(found, call.resource_type, compartment, call.access)
    note_patient(call, stored)
    return stored


async def _in_use(call: Call, types: list[str]) -> dict[str, list[Any]]:
    """Labels of everything the caller may see; refused when more has to be read than the limit."""
    rest = call.server.limits.max_meta_scan
    texts: set[tuple[str, str]] = set()
    async with call.server.connections.lend() as connection:
        present = await gathering.present(connection, [type_base(name) for name in types])
        for name in types:
            if type_base(name) not in present:
                continue
            bound = call.access.condition(name, "s")
            conditions = (AnyPosting((type_base(name),)), *((bound,) if bound is not None else ()))
            found = await gathering.labels(connection, Selection(name, conditions), limit=rest)
            if found is None:
                text = "Too many resources to gather the labels of; ask for one type or one resource"
                raise InvalidRequestError(text, issue_code="too-costly")
            count, labels = found
            rest -= count
            texts.update(labels)
    used: dict[str, list[Any]] = {}
    for name, text in sorted(texts):
        value = orjson.loads(text)
        if all(_identity(value) != _identity(other) for other in used.get(name, ())):
            used.setdefault(name, []).append(value)
    return used


def _identity(value: Any) -> Any:
    """What makes a label the same: a profile's URL, a tag's system and code (version and display do not count)."""
    return (value.get("system"), value.get("code")) if isinstance(value, dict) else value


def _added(present: list[Any], sent: list[Any]) -> list[Any]:
    known = {_identity(value) for value in present}
    result = list(present)
    for value in sent:
        if _identity(value) not in known:
            known.add(_identity(value))
            result.append(value)
    return result


def _taken_away(present: list[Any], sent: list[Any]) -> list[Any]:
    gone = {_identity(value) for value in sent}
    return [value for value in present if _identity(value) not in gone]


async def _change(call: Call, edit: Any) -> Response:
    check_writable(call.resource_type, "PUT")
    parameters = await parameters_of(call, single="meta")
    parameters.check_known(("meta",))
    sent = parameters.element("meta", "valueMeta")
    if sent is None:
        raise InvalidRequestError("meta is required", issue_code="required", expression=("Parameters.parameter",))
    lists = {name: _list(sent, name) for name in _LISTS}
    call.access.context.reach(call.resource_type, "r")
    for _ in range(_ATTEMPTS):
        stored = await _stored(call)
        resource = _edited(stored, lists, edit)
        if resource is None:
            return _answer(stored.data().get("meta", {}))
        operation = Operation("PUT", call.resource_type, call.logical_id, resource=resource, if_match=stored.version)
        try:
            (result,) = await perform(call, [operation])
        except PreconditionError:
            continue  # Somebody else wrote in between: decide again on what now stands.
        return _answer(orjson.loads(result.content or b"{}").get("meta", {}))
    raise ConflictError("Other writers keep changing this resource; try again")


def _list(sent: dict[str, Any], name: str) -> list[Any]:
    found = sent.get(name, [])
    wanted: type = str if name == "profile" else dict
    if not isinstance(found, list) or not all(isinstance(value, wanted) for value in found):
        raise InvalidRequestError(f"meta.{name} is not a list of the right type", issue_code="structure")
    return found


def _edited(stored: Stored, lists: dict[str, list[Any]], edit: Any) -> Resource | None:
    """Return the resource with its labels edited, every other byte as it was; None when nothing changes."""
    members = raw_members(stored.content or b"{}")
    own = raw_members(members["meta"])
    changed = False
    for name, values in lists.items():
        before = orjson.loads(own.get(name, b"[]"))
        after = edit(before, values)
        if after == before:
            continue
        changed = True
        if after:
            own[name] = orjson.dumps(after)
        else:
            own.pop(name, None)
    if not changed:
        return None
    members["meta"] = compose(own)
    body = compose(members)
    resource = Resource(stored.resource_type, body, orjson.loads(body))
    validate(resource)
    return resource


_BASE = "http://hl7.org/fhir/OperationDefinition/Resource-"
ROUTES: tuple[Route, ...] = (
    *(
        Route(method, path, meta, action, "operation", definition=f"{_BASE}meta")
        for method in ("GET", "POST")
        for path, action in (
            ("$meta", ""),
            ("{type}/$meta", "s"),
            ("{type}/{id}/$meta", "r"),
            ("{type}/{id}/_history/{version}/$meta", "r"),
        )
    ),
    Route("POST", "{type}/{id}/$meta-add", meta_add, "u", "operation", definition=f"{_BASE}meta-add"),
    Route("POST", "{type}/{id}/$meta-delete", meta_delete, "u", "operation", definition=f"{_BASE}meta-delete"),
)
