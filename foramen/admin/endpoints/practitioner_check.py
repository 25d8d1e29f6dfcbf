"""Whether a Practitioner is in the record: asked of the FHIR API with the administrator's own rights.

"There is none" and "could not be looked up" are different answers.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from foramen.admin.page import Call
from foramen.identity.endpoints.record_reading import fhir_of
from foramen.kernel.errors import DeletedError, ForbiddenError, InvalidRequestError, NotFoundError, UpstreamError

_DIRECTORY = "read-directory"
_LOGICAL_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


async def check_practitioner(call: Call, logical_id: str) -> None:
    """Refuse a Practitioner that is not in the record; who may not read the directory is not asked to.

    Raises
    ------
    InvalidRequestError
        It is no logical id, or there is no such Practitioner.
    UpstreamError
        The record could not be asked.
    """
    if not _LOGICAL_ID.fullmatch(logical_id):
        raise InvalidRequestError("Practitioner is named by its logical id")
    if not call.may(_DIRECTORY):
        return
    try:
        async with fhir_of(call.env, call.account, ("Practitioner",)) as fhir:
            await fhir.read(f"Practitioner/{quote(logical_id)}")
    except (NotFoundError, DeletedError) as error:
        raise InvalidRequestError("There is no such Practitioner in the record") from error
    except ForbiddenError as error:
        raise UpstreamError("The Practitioner could not be looked up: try again, or leave it out") from error
    except UpstreamError as error:
        raise UpstreamError("The Practitioner could not be looked up: try again, or leave it out") from error
