"""The resource that a PATCH makes of the locked version: patched, then checked as any other write is.

https://hl7.org/fhir/R4/http.html#patch
"""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool

from fhir_server.interactions.carrying_out import AsideError
from fhir_server.interactions.operations import Operation
from fhir_server.interactions.profiles import check_profile
from fhir_server.model.references import conditional_references
from fhir_server.model.resource import LARGE_BYTES, Resource
from fhir_server.model.validation import check_limits, validate
from fhir_server.patching.patch import patched
from fhir_server.server import Server
from fhir_server.store.changes import Stored
from fhir_server.validation.check import profiles_of
from foramen.kernel.errors import InvalidResourceError


async def patched_resource(server: Server, operation: Operation, old: Stored, *, is_shared: bool) -> Resource:
    """Return the valid resource.

    Parameters
    ----------
    is_shared : whether units of other callers wait for this one

    Raises
    ------
    InteropError
        The patch does not fit, or what it makes breaks a rule.
    AsideError
        It takes long and `is_shared`: a large resource, or one to be held against profiles.
    """
    assert operation.patch is not None  # noqa: S101 - the caller has looked
    if is_shared and len(old.content or b"") > LARGE_BYTES:
        raise AsideError
    given = operation.patch, old.content or b"{}", operation.resource_type, server.limits
    resource = await run_in_threadpool(patched, *given) if len(given[1]) > LARGE_BYTES else patched(*given)
    if conditional_references(resource.body):
        raise InvalidResourceError("A patch cannot write a conditional reference", issue_code="not-supported")
    check_limits(resource, server.limits)
    if is_shared and (len(resource.body) > LARGE_BYTES or profiles_of(resource.data)):
        raise AsideError
    if len(resource.body) > LARGE_BYTES:
        await run_in_threadpool(validate, resource)
    else:
        validate(resource)
    await check_profile(server, resource)
    return resource
