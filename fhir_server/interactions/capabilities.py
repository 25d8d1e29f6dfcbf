"""capabilities: `GET /metadata`, generated from the routes and registry that serve the requests, so it cannot lie.

https://hl7.org/fhir/R4/http.html#capabilities
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.search.parameters import resource_types, type_parameters
from fhir_server.server import Call

if TYPE_CHECKING:
    from fhir_server.route import Route

_DATE = "2026-11-22"
_READ_ONLY = {"AuditEvent"}


async def capabilities(call: Call) -> Response:
    """Return the CapabilityStatement; it needs no token."""
    from fhir_server.routes import ROUTES

    return Response(statement(call.server.own_url, ROUTES), media_type=MEDIA_TYPE)


@lru_cache(maxsize=4)
def statement(own_url: str, routes: tuple[Route, ...]) -> bytes:
    """Build the CapabilityStatement."""
    origin = own_url.removesuffix("/fhir")
    codes = [route.capability for route in routes if route.level == "type"]
    interactions = list(dict.fromkeys(code for code in codes if code))
    system = list(dict.fromkeys(r.capability for r in routes if r.level == "system" and r.capability))
    if "transaction" in system:
        system.append("batch")
    return orjson.dumps(
        {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": _DATE,
            "kind": "instance",
            "software": {"name": "Foramen"},
            "implementation": {"description": "Foramen FHIR server", "url": own_url},
            "fhirVersion": "4.0.1",
            "format": ["application/fhir+json", "json"],
            "rest": [
                {
                    "mode": "server",
                    "security": _security(origin),
                    "resource": [_resource(name, interactions, own_url) for name in sorted(resource_types())],
                    "interaction": [{"code": code} for code in system],
                }
            ],
        }
    )


def _security(origin: str) -> dict[str, Any]:
    oauth = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
    return {
        "extension": [
            {
                "url": oauth,
                "extension": [
                    {"url": "token", "valueUri": f"{origin}/auth/token"},
                    {"url": "authorize", "valueUri": f"{origin}/auth/authorize"},
                ],
            }
        ],
        "service": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                        "code": "SMART-on-FHIR",
                    }
                ]
            }
        ],
    }


def _resource(name: str, interactions: list[str], own_url: str) -> dict[str, Any]:
    table = type_parameters(name).parameters
    changing = {"update", "delete"} if name in _READ_ONLY else set()
    references = sorted(code for code, parameter in table.items() if parameter.kind == "reference")
    return {
        "type": name,
        "interaction": [{"code": code} for code in interactions if code not in changing],
        "versioning": "versioned",
        "readHistory": True,
        "updateCreate": not changing,
        "conditionalCreate": True,
        "conditionalRead": "full-support",
        "conditionalUpdate": not changing,
        "conditionalDelete": "not-supported" if changing else "single",
        "referencePolicy": ["literal", "logical"],
        "searchInclude": [f"{name}:{code}" for code in references],
        "searchRevInclude": _revincludes(name),
        "searchParam": [
            {"name": "_id", "type": "token"},
            {"name": "_lastUpdated", "type": "date"},
            *({"name": code, "type": parameter.kind} for code, parameter in table.items()),
        ],
    }


@lru_cache(maxsize=256)
def _revincludes(name: str) -> list[str]:
    return sorted(
        f"{source}:{code}"
        for source in resource_types()
        for code, parameter in type_parameters(source).parameters.items()
        if parameter.kind == "reference" and name in parameter.targets
    )
