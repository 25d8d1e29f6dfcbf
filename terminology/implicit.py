"""Value sets that a URL defines by its form.

https://hl7.org/fhir/R4/snomedct.html#implicit, https://hl7.org/fhir/R4/loinc.html#implicit
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from foramen.kernel.errors import InvalidRequestError
from terminology import systems

_IMPLICIT_SNOMED = re.compile(rf"{re.escape(systems.SNOMED)}(?:/(\d+)(?:/version/(\d{{8}}))?)?\?fhir_vs(?:=(.*))?")
_LOINC_ALL = "http://loinc.org/vs"


def implicit_value_set(canonical: str) -> dict[str, Any] | None:
    """Return the value set that a URL defines by its form, or None.

    SNOMED CT ``?fhir_vs``, ``?fhir_vs=isa/…``, ``?fhir_vs=refset/…`` (not ECL); LOINC ``/vs`` (answer lists are
    imported as value sets).

    Raises
    ------
    InvalidRequestError
        `not-supported`: ECL.

    Source: https://hl7.org/fhir/R4/snomedct.html#implicit, https://hl7.org/fhir/R4/loinc.html#implicit
    """
    if canonical == _LOINC_ALL:
        return {"resourceType": "ValueSet", "url": canonical, "compose": {"include": [{"system": systems.LOINC}]}}
    match = _IMPLICIT_SNOMED.fullmatch(canonical)
    if match is None:
        return None
    module, date, rest = match.groups()
    include: dict[str, Any] = {"system": systems.SNOMED}
    if date:
        include["version"] = f"{systems.SNOMED}/{module}/version/{date}"
    kind, _, code = unquote(rest or "").partition("/")
    if kind == "isa" and code.isdecimal():
        include["filter"] = [{"property": "concept", "op": "is-a", "value": code}]
    elif kind == "refset" and code.isdecimal():
        include["filter"] = [{"property": "refset", "op": "=", "value": code}]
    elif rest:
        raise InvalidRequestError(
            "Of SNOMED CT's implicit value sets isa and refset are known", issue_code="not-supported"
        )
    return {"resourceType": "ValueSet", "url": canonical, "compose": {"include": [include]}}
