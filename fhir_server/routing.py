"""From a path to the routes that serve it. Pure; the table is built once from `routes.py`.

https://hl7.org/fhir/R4/http.html#3.1.0
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fhir_server.interactions.operations import check_type
from fhir_server.model.references import LOGICAL_ID
from fhir_server.route import Route
from fhir_server.routes import ROUTES
from foramen.kernel.errors import InvalidRequestError, NotFoundError, NotSupportedError

_JOB_ID = re.compile(r"[A-Za-z0-9\-._~]{1,512}")
"""Ids of jobs, and the signed names of their files."""
_TABLE: dict[tuple[str, ...], dict[str, Route]] = {}
for _route in ROUTES:
    _TABLE.setdefault(tuple(part for part in _route.path.split("/") if part), {})[_route.method] = _route
PUBLIC = frozenset(route.path for route in ROUTES if route.anonymous)
"""Paths that need no token."""


@dataclass(frozen=True, slots=True)
class Target:
    """A route and what the path says."""

    route: Route
    resource_type: str = ""
    logical_id: str = ""
    version_id: str = ""

    @property
    def entity(self) -> str | None:
        """What the audit names: `Type/id`, `Type`, or nothing."""
        if self.logical_id and self.resource_type and LOGICAL_ID.fullmatch(self.logical_id):
            return f"{self.resource_type}/{self.logical_id}"
        return self.resource_type or None


def _shape(parts: list[str]) -> tuple[str, ...]:
    shape = list(parts)
    if len(parts) > 1 and parts[1][0] not in "_$":
        shape[1] = "{id}"
    if len(parts) in (4, 5) and parts[2] == "_history":
        shape[3] = "{version}"
    elif len(parts) in (3, 4) and parts[2][0] not in "_$":
        shape[2] = "{member}"
    return tuple(shape)


def _check_id(text: str, method: str, *, is_type: bool) -> None:
    """Refuse what is no id before anything remembers it: the audit keeps ids for ever, and text could be PHI."""
    if (LOGICAL_ID if is_type else _JOB_ID).fullmatch(text) or method == "PUT":
        return  # An update compares the id with that in the body, and says more.
    if method in ("GET", "HEAD") or not is_type:
        raise NotFoundError("There is nothing at this URL")
    raise InvalidRequestError("The id in the URL is not a FHIR id", issue_code="value")


def find(parts: list[str], method: str) -> Target:
    """Return what serves a path.

    Raises
    ------
    NotFoundError
        Nothing is there, or the resource type is not one of R4.
    InvalidRequestError
        400: what stands for an id has not the form of one.
    NotSupportedError
        405 with `Allow`.
    """
    shape = _shape(parts)
    is_type = bool(parts) and parts[0][0] not in "_$" and parts[0] not in PUBLIC
    methods = _TABLE.get(shape)
    if is_type:
        check_type(parts[0])
        general = _TABLE.get(("{type}", *shape[1:]), {})
        methods = {**general, **methods} if methods else general
    if not methods:
        raise NotFoundError("There is nothing at this URL")
    route = methods.get("GET" if method == "HEAD" else method)
    if route is None:
        names = {*methods, *(["HEAD"] if "GET" in methods else [])}
        allowed = ", ".join(sorted(names))
        raise NotSupportedError(f"Only {allowed} can be used here", headers={"Allow": allowed})
    if shape[1:2] == ("{id}",):
        _check_id(parts[1], method, is_type=is_type)
    return Target(
        route,
        parts[0] if is_type else "",
        parts[1] if len(parts) > 1 and shape[1] == "{id}" else "",
        parts[3] if len(parts) > 3 else "",
    )
