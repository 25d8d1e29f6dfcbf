"""Check a resource against profiles by their canonical URLs.

https://hl7.org/fhir/R4/profiling.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from fhir_server.validation.bindings import binding_issues
from fhir_server.validation.conformance import Conformance
from fhir_server.validation.profile import Profile
from foramen.kernel.errors import InvalidResourceError, Issue

if TYPE_CHECKING:
    from fhir_server.server import Server

_LARGE = 500
"""Elements from which a check would hold up the other requests of this process for too long."""


async def profile_issues(
    data: dict[str, Any], profile_urls: Sequence[str], server: Server, *, warnings: bool = True
) -> list[Issue]:
    """Return every issue of a resource under these profiles, of any severity, each said once.

    Parameters
    ----------
    profile_urls : canonicals, ``url`` or ``url|version``
    warnings : whether extensible bindings are asked too, which can warn and never refuse
    """
    await server.packages.refresh()
    resource_type = str(data.get("resourceType"))
    profiles, issues = await _loaded(profile_urls, server, f"{resource_type}.meta.profile")
    conformance = Conformance(data, profiles)
    wanted = [p for url in dict.fromkeys(profile_urls) if (p := profiles.get(url)) is not None and p.is_constraint]

    def check() -> None:
        for profile in wanted:
            conformance.check(profile)

    if wanted:
        if _size(data, _LARGE) >= _LARGE:
            await run_in_threadpool(check)
        else:
            check()
    issues += conformance.issues
    codes = [code for code in conformance.codes if warnings or code.binding.strength == "required"]
    issues += await binding_issues(codes, server.terminology)
    return list(dict.fromkeys(issues))


async def _loaded(urls: Sequence[str], server: Server, place: str) -> tuple[dict[str, Profile | None], list[Issue]]:
    profiles: dict[str, Profile | None] = {}
    issues = []
    for number, url in enumerate(urls):
        where = (f"{place}[{number}]",)
        try:
            profiles.update(await server.packages.with_nested([url]))
        except InvalidResourceError:
            issues.append(Issue("not-supported", "The profile's definition cannot be used", where, _unknown(server)))
            profiles[url] = None
            continue
        if profiles.get(url) is None:
            text = "The profile is not known here; the resource was not checked against it"
            issues.append(Issue("not-found", text, where, _unknown(server)))
    return profiles, issues


def _unknown(server: Server) -> str:
    return "error" if server.limits.unknown_profile == "refuse" else "warning"


def _size(element: Any, limit: int) -> int:
    """Number of elements, counted up to a limit."""
    waiting, count = [element], 0
    while waiting and count < limit:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
        count += 1
    return count
