"""Check what a launch may carry beside patient and encounter: the style document, and further resources in context.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#launch-context-arrives-with-your-access_token
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from foramen.kernel.errors import InvalidRequestError

_MAX_URL = 512
_MAX_CONTEXT = 20
_REFERENCE = re.compile(r"[A-Z][A-Za-z]{1,40}/[A-Za-z0-9\-.]{1,64}")
_ROLE = re.compile(r"[a-z][a-z0-9+.\-]*:[!-~]{1,256}|launch")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def checked_style_url(value: Any) -> str:
    """Return the URL of a style document.

    Raises
    ------
    InvalidRequestError
        Not an https URL (http on this machine), or one with a password.
    """
    refusal = InvalidRequestError("smart_style_url is an https URL")
    if not isinstance(value, str) or len(value) > _MAX_URL or not value.isprintable() or " " in value:
        raise refusal
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
    except ValueError as exc:
        raise refusal from exc
    secure = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    if not secure or not host or parts.username is not None or parts.password is not None or parts.fragment:
        raise refusal
    return value


def checked_context(value: Any) -> list[dict[str, str]]:
    """Return the resources in `fhirContext`: each a reference to this server, and a role where one is given.

    Raises
    ------
    InvalidRequestError
        Not a list of references; patient and encounter have parameters of their own.
    """
    if not isinstance(value, list) or len(value) > _MAX_CONTEXT:
        raise InvalidRequestError(f"fhirContext is a list of up to {_MAX_CONTEXT} references")
    return [_item(item) for item in value]


def _item(item: Any) -> dict[str, str]:
    reference = item.get("reference") if isinstance(item, dict) else None
    if not isinstance(reference, str) or not _REFERENCE.fullmatch(reference):
        raise InvalidRequestError("An item of fhirContext needs a reference of the form Type/id")
    role = item.get("role")
    if reference.startswith(("Patient/", "Encounter/")) and role in (None, "launch"):
        raise InvalidRequestError("patient and encounter are not repeated in fhirContext without another role")
    if role is None:
        return {"reference": reference}
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise InvalidRequestError("A role in fhirContext is `launch` or a URI")
    return {"reference": reference, "role": role}
