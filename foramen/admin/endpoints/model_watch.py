"""`/apps/admin/model-watch`: how released models do: overrides by group and drift of scores, counted and never named.

The page reads MeasureReports of watches and nothing else: the record is asked with a token that bounds it to them, and,
where institutions divide the record, to those about the person's own institution (ADR 0056).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote

import httpx
from starlette.responses import Response

from foramen.admin.layout import render
from foramen.admin.page import MANAGE_INSTITUTIONS, Call
from foramen.admin.watch_report import IDENTIFIER, Rate, Watch, read_watch
from foramen.identity.database import utc_now
from foramen.kernel.errors import ForbiddenError, NotFoundError
from foramen.kernel.fhir_client import FhirClient, next_cursor

CLIENT_ID = "foramen-identity"
PAGE_SIZE = 60
_LINE = 12
"""Periods that a line of rates shows at most, the last ones."""
_WORDED = ("female", "male", "other", "unknown")


@dataclass(frozen=True, slots=True)
class Version:
    """One model version in one reach, with its watches from the last to the first."""

    pipeline: str
    version: str
    reach: str | None
    watches: tuple[Watch, ...]

    @property
    def line(self) -> tuple[Watch, ...]:
        """What a line of rates is drawn from, from the first to the last."""
        return self.watches[:_LINE][::-1]


async def model_watches(call: Call) -> Response:
    """Show the watches of every version, the last ones first."""
    cursor = call.query.get("after", "")
    follow = [("_cursor", cursor)] if cursor else []
    async with _watches(call) as (fhir, bounds):
        bundle = await fhir.page("MeasureReport", [*bounds, ("_sort", "-date"), ("_count", str(PAGE_SIZE)), *follow])
    read = [read_watch(entry["resource"]) for entry in bundle.get("entry", []) if "resource" in entry]
    return render(
        call,
        "model_watches.html",
        versions=by_version([one for one in read if one is not None]),
        unread=sum(one is None for one in read),
        following=next_cursor(bundle),
        name_of=_names(call),
    )


async def model_watch(call: Call) -> Response:
    """Show one watch."""
    identity = call.request.path_params["id"]
    async with _watches(call) as (fhir, bounds):
        found = await fhir.search("MeasureReport", [*bounds, ("_id", identity)])
    watch = read_watch(found[0]) if found else None
    if watch is None:
        raise NotFoundError("There is no such watch")
    return render(call, "model_watch.html", watch=watch, name_of=_names(call))


def by_version(watches: list[Watch]) -> list[Version]:
    """Gather watches by version and reach, those whose last period ended last first."""
    found: dict[tuple[str, str, str | None], list[Watch]] = {}
    for watch in sorted(watches, key=lambda one: (one.until, one.made), reverse=True):
        found.setdefault((watch.pipeline, watch.version, watch.reach), []).append(watch)
    return [Version(*key, tuple(of_it)) for key, of_it in found.items()]


@asynccontextmanager
async def _watches(call: Call) -> AsyncIterator[tuple[FhirClient, list[tuple[str, str]]]]:
    """Return a client that can read these MeasureReports alone, and the search that bounds to them.

    The person's role holds no scope of MeasureReport, as one may also be about a single patient. The permission of the
    page stands for this query of it, which the record enforces; the audit trail names the person.
    """
    bounds = [("identifier", f"{IDENTIFIER}|")]
    settings, account = call.env.settings, call.account
    if settings.institutions != "shared" and not call.may(MANAGE_INSTITUTIONS):
        if account.institution is None:
            raise ForbiddenError("The account belongs to no institution")
        bounds.append(("reporter", f"Organization/{account.institution}"))
    query = "&".join(f"{name}={quote(value, safe=':/|')}" for name, value in bounds)
    token = call.env.signer.access_token(
        subject=account.name,
        client_id=CLIENT_ID,
        scope=f"user/MeasureReport.rs?{query}",
        now=utc_now(),
        lifetime_s=60,
        institution=account.institution,
        every_institution=call.may(MANAGE_INSTITUTIONS),
    )
    http = httpx.AsyncClient(
        headers={"Authorization": f"Bearer {token.text}"}, timeout=10, transport=call.env.transport, trust_env=False
    )
    async with FhirClient(f"{settings.internal_origin}/fhir", http) as fhir:
        yield fhir, bounds


class _names:
    """Gives groups their names in the page's language; names of sites and devices are as they are."""

    def __init__(self, call: Call) -> None:
        self._t = call.t

    def __call__(self, rate: Rate) -> str:
        """Name of a group."""
        if rate.name == "all":
            return self._t["watch_all"]
        return self._t[f"watch_group_{rate.name}"] if rate.name in _WORDED else rate.name
