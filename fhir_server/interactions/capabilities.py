"""capabilities: `GET /metadata`, generated from the routes and registry that serve the requests, so it cannot lie.

https://hl7.org/fhir/R4/http.html#capabilities, https://hl7.org/fhir/R4/capabilitystatement.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

from fhir_server.access.compartments import compartment_types
from fhir_server.access.policy import Access
from fhir_server.formats.media_types import FHIR_JSON, FHIR_XML
from fhir_server.interactions.capability_resources import canonical, operations, resource
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.interactions.search import pairs_of
from fhir_server.patching.merge_patch import MERGE_PATCH
from fhir_server.patching.patch import JSON_PATCH
from fhir_server.search.parameters import registry, resource_types
from fhir_server.search.parse import SearchParser
from fhir_server.server import Call
from fhir_server.settings import FhirSettings
from foramen.kernel.access_context import AccessContext, parse_scopes
from foramen.kernel.errors import InteropError, InvalidRequestError

if TYPE_CHECKING:
    from fhir_server.route import Route

_DATE = "2026-11-22"
_NORMATIVE = {
    "Binary", "Bundle", "CapabilityStatement", "CodeSystem", "Observation", "OperationDefinition", "OperationOutcome",
    "Parameters", "Patient", "StructureDefinition", "ValueSet",
}  # fmt: skip
_MODES = ("full", "normative", "terminology")
_PATCH_TYPES = [JSON_PATCH, MERGE_PATCH, FHIR_JSON, FHIR_XML]
_BULK = "http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"
_COMMON = (
    ("_id", "token", "x"),
    ("_lastUpdated", "date", "2026"),
    ("_text", "string", "x"),
    ("_content", "string", "x"),
    ("_list", "string", "x"),
    ("_filter", "special", "_id eq x"),
)
"""Parameters of every type that are not in the registry; each is listed when the parser takes this value."""


async def capabilities(call: Call) -> Response:
    """Return the CapabilityStatement (or, with `mode=terminology`, the TerminologyCapabilities); it needs no token."""
    from fhir_server.routes import ROUTES

    asked = dict(pairs_of(call.request.scope["query_string"].decode("latin-1")))
    mode = asked.get("mode", "full")
    if mode not in _MODES:
        raise InvalidRequestError(f"mode must be one of {', '.join(_MODES)}", issue_code="value")
    if mode == "terminology":
        known = await call.server.terminology.capabilities()
        return Response(orjson.dumps({**_terminology(call.server.own_url), **known}), media_type=MEDIA_TYPE)
    return Response(_kept(call, mode, ROUTES), media_type=MEDIA_TYPE)


def _kept(call: Call, mode: str, routes: tuple[Route, ...]) -> bytes:
    """Build the statement once for each state of the registry."""
    limits, own_url = call.server.limits, call.server.own_url
    cache, key = registry().cache, ("capabilities", own_url, mode, limits.max_conditional_delete)
    if key not in cache:
        cache[key] = orjson.dumps(statement(own_url, routes, limits, normative=mode == "normative"))
    found: bytes = cache[key]
    return found


def common_parameters(settings: FhirSettings, own_url: str) -> list[dict[str, str]]:
    """Return the parameters that every type has beside those of the registry."""
    access = Access(AccessContext("capabilities", "", parse_scopes("system/*.cruds")))
    parser = SearchParser(settings, own_url, access)

    def takes(name: str, value: str) -> bool:
        try:
            return not parser.parse("Patient", [(name, value)], strict=True).unknown
        except InteropError:
            return False

    return [{"name": name, "type": kind} for name, kind, value in _COMMON if takes(name, value)]


def statement(
    own_url: str, routes: tuple[Route, ...], settings: FhirSettings, *, normative: bool = False
) -> dict[str, Any]:
    """Build the CapabilityStatement.

    Parameters
    ----------
    normative : only the resource types whose content is normative in R4
    """
    system = list(dict.fromkeys(r.capability for r in routes if r.level == "system" and r.capability))
    if "transaction" in system:
        system.append("batch")
    common = common_parameters(settings, own_url)
    names = sorted(resource_types() & _NORMATIVE if normative else resource_types())
    rest = {
        "mode": "server",
        "security": _security(own_url.removesuffix("/fhir")),
        "resource": [resource(name, routes, settings, common) for name in names],
        "interaction": [{"code": code} for code in system],
        "searchParam": common if "search-system" in system else [],
        "operation": operations(routes, ""),
        "compartment": _compartments(routes),
    }
    return {
        "resourceType": "CapabilityStatement",
        "url": canonical("CapabilityStatement", "server"),
        "version": _version(),
        "name": "Foramen",
        "status": "active",
        "date": _DATE,
        "publisher": "Foramen",
        "kind": "instance",
        **({"instantiates": [_BULK]} if any(route.operation == "export" for route in routes) else {}),
        "software": {"name": "Foramen", "version": _version()},
        "implementation": {"description": "Foramen FHIR server", "url": own_url},
        "fhirVersion": "4.0.1",
        "format": [FHIR_JSON, "json", FHIR_XML, "xml"],
        **({"patchFormat": _PATCH_TYPES} if any(route.method == "PATCH" for route in routes) else {}),
        "rest": [{name: value for name, value in rest.items() if value}],
    }


def _version() -> str:
    from importlib.metadata import version

    return version("foramen")


def _compartments(routes: tuple[Route, ...]) -> list[str]:
    """CompartmentDefinitions that can be searched, by the canonical URLs of R4 (``…/relatedPerson``)."""
    if not any(route.path.endswith("{member}") for route in routes):
        return []
    base = "http://hl7.org/fhir/CompartmentDefinition"
    return [f"{base}/{name[0].lower()}{name[1:]}" for name in compartment_types()]


def _terminology(own_url: str) -> dict[str, Any]:
    return {
        "resourceType": "TerminologyCapabilities",
        "url": canonical("TerminologyCapabilities", "server"),
        "version": _version(),
        "name": "ForamenTerminology",
        "status": "active",
        "date": _DATE,
        "kind": "instance",
        "software": {"name": "Foramen", "version": _version()},
        "implementation": {"description": "Foramen FHIR server", "url": own_url},
    }


def _security(origin: str) -> dict[str, Any]:
    oauth = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
    coding = {"system": "http://terminology.hl7.org/CodeSystem/restful-security-service", "code": "SMART-on-FHIR"}
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
        "service": [{"coding": [coding]}],
    }
