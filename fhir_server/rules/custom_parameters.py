"""Which SearchParameter resources take effect: those that an administrator makes active. ADR 0015.

Everybody whose token may write SearchParameters can store them; without the scope `foramen/admin` they are content like
any other. One that is in force can be changed or deleted by an administrator only.
https://hl7.org/fhir/R4/searchparameter.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from fhir_server.search.custom import Definition, definition_of
from fhir_server.server import Call
from fhir_server.store import parameter_jobs, registry
from fhir_server.store.changes import Change
from foramen.kernel.access_context import ADMINISTRATOR
from foramen.kernel.errors import ForbiddenError, InvalidResourceError, Issue

RESOURCE_TYPE = "SearchParameter"


async def apply(call: Call, connection: Any, changes: Sequence[Change]) -> None:
    """Bring the registry in step with the SearchParameters of these changes, inside their transaction.

    Raises
    ------
    ForbiddenError
        The change concerns a parameter in force, and the caller is no administrator.
    InvalidResourceError
        The parameter cannot take effect; every reason is told.
    """
    concerned = [change for change in changes if change.resource_type == RESOURCE_TYPE]
    if not concerned:
        return
    is_administrator = call.access.context.has_scope(ADMINISTRATOR)
    version: int | None = None
    for change in concerned:
        old = await registry.in_force(connection, change.logical_id)
        if not is_administrator:
            if old:
                raise ForbiddenError("Only an administrator may change a search parameter that is in force")
            continue
        new = _definition(call, change)
        if not old and new is None:
            continue
        if version is None:
            version = await registry.lock_version(connection)
            call.server.registry.suspect()
            old = await registry.in_force(connection, change.logical_id)
        if old and new == old[0][2]:
            continue
        for identity, _, _ in old:
            await registry.set_state(connection, identity, "removing")
        if new is not None:
            await _check_unique(connection, new, call.server.limits.max_custom_parameters)
            identity = f"custom:{change.logical_id}:{version}"
            await registry.insert(connection, identity, new)
    if version is not None:
        await registry.take_up(connection, changes, version)
        await parameter_jobs.submit(connection, call.server.jobs)


def _definition(call: Call, change: Change) -> Definition | None:
    data = orjson.loads(change.content) if change.content is not None else {}
    if data.get("status") != "active":
        return None
    return definition_of(data, change.logical_id, call.server.limits.max_parameter_expression)


async def _check_unique(connection: Any, new: Definition, most: int) -> None:
    others = await registry.in_force(connection)
    if len(others) >= most:
        text = f"There are {most} custom search parameters already"
        raise InvalidResourceError(text, issues=[Issue("too-costly", text, (RESOURCE_TYPE,))])
    if any(found.code == new.code and set(found.types) & set(new.types) for _, _, found in others):
        text = "Another custom search parameter has this code for one of the bases"
        raise InvalidResourceError(text, issues=[Issue("duplicate", text, ("SearchParameter.code",))])
