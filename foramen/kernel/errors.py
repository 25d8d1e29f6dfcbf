"""One family of errors; the class fixes HTTP status and issue code, so nothing switches on them later.

Issue codes: https://hl7.org/fhir/R4/valueset-issue-type.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Issue:
    """One fault: what is wrong and where. `diagnostics` is for developers and never holds PHI."""

    issue_code: str
    diagnostics: str
    expression: tuple[str, ...] = ()
    severity: str = "error"


class InteropError(Exception):
    """Base of every error a client may see; the edges render it (OperationOutcome, RFC 6749 JSON, PS3.18 status)."""

    status: int = 500
    issue_code: str = "exception"

    def __init__(
        self,
        message: str,
        *,
        issue_code: str | None = None,
        expression: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        issues: Sequence[Issue] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.issue_code = issue_code or type(self).issue_code
        self.headers: dict[str, str] = dict(headers or {})
        self.issues: tuple[Issue, ...] = tuple(issues) or (Issue(self.issue_code, message, tuple(expression)),)


class InvalidRequestError(InteropError):
    """The request cannot be parsed or has a bad parameter."""

    status = 400
    issue_code = "invalid"


class NotAuthenticatedError(InteropError):
    """No token, or one that cannot be accepted (RFC 6750 §3)."""

    status = 401
    issue_code = "login"


class ForbiddenError(InteropError):
    """The token is good but lacks the scope. What lies outside the compartment is `NotFoundError` instead."""

    status = 403
    issue_code = "forbidden"


class NotFoundError(InteropError):
    """Does not exist, or must not be known to exist."""

    status = 404
    issue_code = "not-found"


class NotSupportedError(InteropError):
    """Interaction or resource type that is not offered."""

    status = 405
    issue_code = "not-supported"


class NotAcceptableError(NotSupportedError):
    """No representation the client accepts."""

    status = 406


class DeletedError(InteropError):
    """Existed and was deleted."""

    status = 410
    issue_code = "deleted"


class ConflictError(InteropError):
    """Concurrent or referential conflict."""

    status = 409
    issue_code = "conflict"


class PreconditionError(InteropError):
    """If-Match failed, or a conditional interaction matched several."""

    status = 412
    issue_code = "conflict"


class PayloadTooLargeError(InteropError):
    """The body is larger than the configured limit."""

    status = 413
    issue_code = "too-long"


class UnsupportedMediaTypeError(NotSupportedError):
    """The body's media type is not understood."""

    status = 415


class InvalidResourceError(InteropError):
    """Parsed, but breaks the rules of the resource; lists every issue with its `expression`."""

    status = 422
    issue_code = "invariant"


class ThrottledError(InteropError):
    """Too many requests; carries Retry-After."""

    status = 429
    issue_code = "throttled"


class UpstreamError(InteropError):
    """A part we depend on (Orthanc, database) does not answer."""

    status = 503
    issue_code = "transient"
