"""What the CapabilityStatement says of each resource type: interactions, conditions, search, operations.

https://hl7.org/fhir/R4/capabilitystatement-definitions.html#CapabilityStatement.rest.resource
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fhir_server.interactions.operations import check_writable
from fhir_server.interactions.search_documentation import documentation
from fhir_server.profiles.shipped import own_profiles
from fhir_server.search.parameters import registry, resource_types, type_parameters
from fhir_server.settings import FhirSettings
from foramen.kernel.errors import NotSupportedError
from terminology.systems import BASE

if TYPE_CHECKING:
    from fhir_server.route import Route

_METHODS = {"update": "PUT", "patch": "PATCH", "delete": "DELETE", "create": "POST"}


def canonical(resource_type: str, name: str) -> str:
    """Return a canonical URL of our own."""
    return f"{BASE}/{resource_type}/{name}"


def is_writable(resource_type: str, interaction: str) -> bool:
    """Whether this interaction may change resources of the type."""
    method = _METHODS.get(interaction)
    try:
        if method is not None:
            check_writable(resource_type, method)
    except NotSupportedError:
        return False
    return True


def operations(routes: tuple[Route, ...], resource_type: str) -> list[dict[str, str]]:
    """Return the operations of a type (or, for an empty name, of the whole system)."""
    found: dict[str, str] = {}
    for route in routes:
        owner = route.path.partition("/")[0] if "/" in route.path else ""
        if route.operation and route.definition and owner in ((resource_type, "{type}") if resource_type else ("",)):
            if not is_writable(resource_type, "update") and route.action in ("u", "d"):
                continue
            url = route.definition if ":" in route.definition else canonical("OperationDefinition", route.operation)
            found.setdefault(route.operation, url)
    return [{"name": name, "definition": url} for name, url in sorted(found.items())]


def resource(
    name: str, routes: tuple[Route, ...], settings: FhirSettings, common: list[dict[str, str]]
) -> dict[str, Any]:
    """Return the entry of one resource type."""
    table = type_parameters(name).parameters
    codes = dict.fromkeys(route.capability for route in routes if route.level == "type" and route.capability)
    interactions = [code for code in codes if is_writable(name, code)]
    references = sorted(code for code, parameter in table.items() if parameter.kind == "reference")
    deletes = "single" if settings.max_conditional_delete == 1 else "multiple"
    entry: dict[str, Any] = {
        "type": name,
        "profile": f"http://hl7.org/fhir/StructureDefinition/{name}",
        "supportedProfile": own_profiles().get(name, []),
        "interaction": [{"code": code} for code in interactions],
        "versioning": "versioned",
        "readHistory": "vread" in interactions,
        "updateCreate": "update" in interactions,
        "conditionalCreate": "create" in interactions,
        "conditionalRead": "full-support",
        "conditionalUpdate": "update" in interactions,
        "conditionalDelete": deletes if "delete" in interactions else "not-supported",
        "referencePolicy": ["literal", "logical"],
        "searchInclude": ["*", *(f"{name}:{code}" for code in references)],
        "searchRevInclude": revincludes(name),
        "searchParam": [
            *({**item, **documentation(name, item["name"])} for item in common if item["name"] not in table),
            *(_parameter(name, code, parameter) for code, parameter in table.items()),
        ],
        "operation": operations(routes, name),
    }
    return {key: value for key, value in entry.items() if value != []}


def _parameter(resource_type: str, code: str, parameter: Any) -> dict[str, str]:
    found = {"name": code, "type": parameter.kind}
    if parameter.is_custom:
        return {**found, "documentation": "A search parameter of this record, added by an administrator"}
    return {**found, **documentation(resource_type, code)}


def revincludes(name: str) -> list[str]:
    """Return `Type:parameter` of every reference parameter that may lead to this type."""
    cached: dict[str, list[str]] | None = registry().cache.get("revincludes")
    if cached is None:
        cached = registry().cache["revincludes"] = _all_revincludes()
    return cached.get(name, [])


def _all_revincludes() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for source in sorted(resource_types()):
        for code, parameter in sorted(type_parameters(source).parameters.items()):
            if parameter.kind == "reference":
                for target in parameter.targets or sorted(resource_types()):
                    found.setdefault(target, []).append(f"{source}:{code}")
    return found
