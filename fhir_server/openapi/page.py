"""Build the OpenAPI 3.1 description of the FHIR API from its routes, and serve it without a token, as metadata is.

https://spec.openapis.org/oas/v3.1.1
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

from fhir_server.formats.media_types import FHIR_JSON, FHIR_XML
from fhir_server.openapi.parameters import parameters
from fhir_server.patching.merge_patch import MERGE_PATCH
from fhir_server.patching.patch import JSON_PATCH
from fhir_server.search.parameters import resource_types
from fhir_server.server import Call

if TYPE_CHECKING:
    from fhir_server.route import Route

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_REFUSALS = {
    "400": "The request is malformed, or a parameter is not known",
    "401": "No token, or one that is not valid",
    "403": "The token has no scope for this",
    "404": "Does not exist, or lies outside what the caller may see",
    "405": "Not offered here",
    "406": "No representation the client accepts",
    "409": "Other writers keep changing it",
    "410": "Was deleted",
    "412": "A condition of the request does not hold",
    "413": "The body is larger than the limit",
    "415": "The body is of no known media type",
    "422": "The resource breaks the rules of R4 or of a profile",
    "429": "Too many requests",
    "503": "The database does not answer, or the query took too long",
}
_SUCCESS: dict[str, dict[str, str]] = {
    "create": {"201": "Created", "200": "A match of If-None-Exist exists already"},
    "update": {"200": "A new version", "201": "Created under the client's id"},
    "patch": {"200": "A new version", "201": "Created"},
    "delete": {"204": "Deleted, or there was nothing", "200": "Deleted, with an OperationOutcome"},
    "read": {"200": "The resource", "304": "Not changed"},
    "vread": {"200": "The version", "304": "Not changed"},
}
_ASYNC = {"202": "Accepted: the answer comes from the URL in Content-Location"}
_PATCH_TYPES = (JSON_PATCH, MERGE_PATCH, FHIR_JSON, FHIR_XML)
_FORM = "application/x-www-form-urlencoded"


async def openapi(call: Call) -> Response:
    """Return the OpenAPI page."""
    from fhir_server.routes import ROUTES

    return Response(page(call.server.own_url, ROUTES), media_type="application/json")


@lru_cache(maxsize=4)
def page(own_url: str, routes: tuple[Route, ...]) -> bytes:
    """Build the page as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(f"/{route.path}", {})[route.method.lower()] = _operation(route)
    return orjson.dumps(
        {
            "openapi": "3.1.1",
            "info": {
                "title": "Foramen FHIR API",
                "version": version("foramen"),
                "description": "FHIR R4 (4.0.1). The search parameters of each type are in the CapabilityStatement.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": own_url}],
            "security": [{"bearer": []}],
            "paths": paths,
            "components": _components(),
        }
    )


def _operation(route: Route) -> dict[str, Any]:
    name = f"${route.operation}" if route.operation else route.capability or route.audit
    described = {
        "operationId": f"{route.method.lower()}:{route.path or 'base'}",
        "summary": _summary(route),
        "tags": [name],
        "parameters": [
            *({"$ref": f"#/components/parameters/{place}"} for place in _PLACEHOLDER.findall(route.path)),
            *parameters(route.path, route.method, route.capability, route.operation),
        ],
        "responses": _responses(route),
    }
    body = _body(route)
    if body is not None:
        described["requestBody"] = body
    if ":" in route.definition:
        described["externalDocs"] = {"url": route.definition}
    if route.anonymous:
        described["security"] = []
    return described


def _summary(route: Route) -> str:
    text = (route.handler.__doc__ or route.audit).strip().split("\n")[0]
    return f"{text} (administrators)" if route.administrator else text


def _responses(route: Route) -> dict[str, Any]:
    good = _SUCCESS.get(route.capability) or {"200": "The answer"}
    if route.operation:
        good = {**good, **_ASYNC, "204": "Nothing to say", "206": "A part of a file", "304": "Not changed"}
    elif not route.anonymous:
        good = {**good, **_ASYNC}
    answers: dict[str, Any] = {status: _answer(route, status, text) for status, text in good.items()}
    answers.update({status: {"$ref": f"#/components/responses/{status}"} for status in _REFUSALS})
    return answers


def _answer(route: Route, status: str, text: str) -> dict[str, Any]:
    if status in ("204", "304"):
        return {"description": text}
    if route.path == "openapi.json":
        return {"description": text, "content": {"application/json": {"schema": {"type": "object"}}}}
    content: dict[str, Any] = {name: {"schema": {"$ref": "#/components/schemas/Resource"}} for name in (FHIR_JSON,)}
    content[FHIR_XML] = {"schema": {"type": "string"}}
    if route.operation or route.capability in ("read", "vread"):
        content["*/*"] = {"schema": {}}  # Files of an operation, content of a Binary.
    return {"description": text, "content": content}


def _body(route: Route) -> dict[str, Any] | None:
    if route.method not in ("POST", "PUT", "PATCH"):
        return None
    if route.path.endswith("_search"):
        return {"content": {_FORM: {"schema": {"type": "object", "additionalProperties": {"type": "string"}}}}}
    if route.method == "PATCH":
        patch = {"type": "array", "items": {"$ref": "#/components/schemas/JsonPatch"}}
        schemas: dict[str, Any] = {name: {"$ref": "#/components/schemas/Resource"} for name in _PATCH_TYPES}
        schemas[_PATCH_TYPES[0]] = patch
        schemas[FHIR_XML] = {"type": "string"}
        return {"required": True, "content": {name: {"schema": schema} for name, schema in schemas.items()}}
    kind = "Parameters" if route.operation else "Resource" if route.path else "Bundle"
    return {
        "required": not route.operation,
        "content": {FHIR_JSON: {"schema": {"$ref": f"#/components/schemas/{kind}"}}},
    }


def _components() -> dict[str, Any]:
    logical_id = {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"}
    outcome = {"schema": {"$ref": "#/components/schemas/OperationOutcome"}}
    return {
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "SMART App Launch 2.2"}},
        "parameters": {
            name: {"name": name, "in": "path", "required": True, "schema": schema, "description": text}
            for name, schema, text in (
                ("type", {"type": "string", "enum": sorted(resource_types())}, "Resource type"),
                ("member", {"type": "string", "enum": ["*", *sorted(resource_types())]}, "Type in the compartment"),
                ("id", logical_id, "Logical id"),
                ("version", {"type": "string", "pattern": "^[0-9]{1,9}$"}, "Version id"),
            )
        },
        "responses": {
            status: {"description": text, "content": {FHIR_JSON: outcome, FHIR_XML: {"schema": {"type": "string"}}}}
            for status, text in _REFUSALS.items()
        },
        "schemas": _schemas(),
    }


def _schemas() -> dict[str, Any]:
    issue = {
        "type": "object",
        "required": ["severity", "code"],
        "properties": {
            "severity": {"enum": ["fatal", "error", "warning", "information"]},
            "code": {"type": "string"},
            "diagnostics": {"type": "string"},
            "expression": {"type": "array", "items": {"type": "string"}},
        },
    }

    def of(name: str, **properties: Any) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["resourceType"],
            "properties": {"resourceType": {"const": name}, **properties},
        }

    named = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    return {
        "Resource": {
            "type": "object",
            "required": ["resourceType"],
            "properties": {"resourceType": {"type": "string"}, "id": {"type": "string"}, "meta": {"type": "object"}},
        },
        "Bundle": of(
            "Bundle",
            type={"enum": ["transaction", "batch"]},
            entry={"type": "array", "items": {"type": "object"}},
        ),
        "Parameters": of("Parameters", parameter={"type": "array", "items": named}),
        "OperationOutcome": {
            **of("OperationOutcome", issue={"type": "array", "minItems": 1, "items": issue}),
            "required": ["resourceType", "issue"],
        },
        "JsonPatch": {
            "type": "object",
            "required": ["op", "path"],
            "properties": {
                "op": {"enum": ["add", "remove", "replace", "move", "copy", "test"]},
                "path": {"type": "string"},
                "from": {"type": "string"},
                "value": {},
            },
        },
    }
