"""Reasons that administrators give are kept for years, longer than the record: they may not name the person."""

from __future__ import annotations

from collections.abc import Iterable

from fhir_server.subject_rights.marks import names_anybody
from foramen.kernel.errors import InvalidResourceError

_LONGEST = 1000


def checked_text(text: str, name: str, marks: Iterable[str]) -> str:
    """Return a reason, a basis or a note that may be kept.

    Raises
    ------
    InvalidResourceError
        422: it names the person, is too long, or holds nothing.
    """
    where = (f"Parameters.parameter.where(name='{name}')",)
    text = text.strip()
    if not text or len(text) > _LONGEST:
        raise InvalidResourceError(f"{name} has 1 to {_LONGEST} characters", issue_code="value", expression=where)
    if names_anybody(text, marks):
        said = f"{name} names the person: it is kept after the record is gone, so it may not"
        raise InvalidResourceError(said, issue_code="business-rule", expression=where)
    return text
