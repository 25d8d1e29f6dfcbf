"""``?rejected=113001``: look at what was rejected for quality reasons, in the calls that show what counts otherwise.

The others of the four reasons hide for good: nobody should diagnose on them (IHE RAD TF-2 §4.66.4.1.3).
"""

from __future__ import annotations

from dataclasses import fields
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request

from dicomweb.rejection.codes import RejectionCode
from dicomweb.rejection.part import require_right
from dicomweb.visibility import LookingAtRejected
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InvalidRequestError

PARAMETER = "rejected"


def looking_at_rejected(request: Request, context: AccessContext) -> AccessContext:
    """Return the context that looks at what is rejected, where a GET asks for it; the parameter is taken off.

    Raises
    ------
    ForbiddenError
        The token may not change images: see `require_right`.
    InvalidRequestError
        Another value than 113001.
    """
    query = request.scope["query_string"]
    if request.method not in ("GET", "HEAD") or PARAMETER.encode() not in query:
        return context
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="utf-8")
    asked = [value for name, value in pairs if name == PARAMETER]
    if not asked:
        return context
    require_right(context, "u")
    if asked != [RejectionCode.QUALITY]:
        raise InvalidRequestError("Only what was rejected with 113001 can be looked at", expression=[PARAMETER])
    # Before anything reads the query: Starlette parses it once.
    request.scope["query_string"] = urlencode([pair for pair in pairs if pair[0] != PARAMETER]).encode()
    return LookingAtRejected(**{field.name: getattr(context, field.name) for field in fields(AccessContext)})
