"""The profiles that a write must meet: those it claims, and ours for what an AI made.

https://hl7.org/fhir/R4/resource.html#Meta, clinical model §6. A profile that is claimed and known is enforced; one that
is not known gives a warning, or refuses the write (setting `unknown_profile`). A resource with the tag AI-GENERATED is
held against Foramen's profile of its type whether it claims it or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fhir_server.profiles.shipped import own_profiles
from fhir_server.rules.ai_signoff import is_ai_generated
from fhir_server.validation.profiles import profile_issues
from foramen.kernel.errors import Issue

if TYPE_CHECKING:
    from fhir_server.model.resource import Resource
    from fhir_server.server import Server


def profiles_of(data: dict[str, Any]) -> list[str]:
    """Canonicals of the profiles that a resource is held against."""
    meta = data.get("meta")
    if not isinstance(meta, dict):
        return []
    claimed = [url for url in meta.get("profile") or () if isinstance(url, str)]
    if meta.get("tag") and is_ai_generated(data):
        known = {url.partition("|")[0] for url in claimed}
        claimed += [url for url in own_profiles().get(str(data.get("resourceType")), ()) if url not in known]
    return claimed


async def check_profiles(server: Server, resources: Sequence[Resource]) -> list[list[Issue]]:
    """Return, for each resource, what its profiles have against it; severity ``error`` refuses the write.

    Nearly all resources claim nothing, and cost one look at `meta`.
    """
    found: list[list[Issue]] = []
    for resource in resources:
        urls = profiles_of(resource.data)
        found.append(await profile_issues(resource.data, urls, server, warnings=False) if urls else [])
    return found
