"""Read a package and see that its profiles can be used before it is stored. Pure.

https://hl7.org/fhir/R4/packages.html
"""

from __future__ import annotations

import orjson

from fhir_server.packages.archive import Package, PackageLimits, read_package
from fhir_server.profiles.shipped import base_keys
from fhir_server.store.packages import PackageResource
from fhir_server.validation.profile import compile_profile
from foramen.kernel.errors import InvalidResourceError, Issue


def prepare(data: bytes, limits: PackageLimits) -> Package:
    """Read a package and check its StructureDefinitions.

    Raises
    ------
    InvalidRequestError
        400: not a package, or past the limits.
    InvalidResourceError
        422: not for R4, or profiles that cannot be compiled, one issue each.
    """
    package = read_package(data, limits)
    faults = [
        Issue("structure", "A StructureDefinition of the package cannot be used", (f"StructureDefinition[{number}]",))
        for number, resource in enumerate(package.resources)
        if resource.resource_type == "StructureDefinition" and not _can_be_used(resource)
    ]
    if faults:
        raise InvalidResourceError("The package cannot be used", issue_code="structure", issues=faults)
    return package


def _can_be_used(resource: PackageResource) -> bool:
    structure = orjson.loads(resource.content)
    if not structure.get("snapshot"):
        return isinstance(structure.get("differential"), dict) and isinstance(structure.get("baseDefinition"), str)
    try:
        compile_profile(structure, base_keys())
    except (InvalidResourceError, KeyError, TypeError):
        return False
    return True
