"""Ask the terminology service about the codes that a profile binds.

https://hl7.org/fhir/R4/terminologies.html#strength. "Not in the value set" and "could not be checked" are never the
same: the second is said, as information.
"""

from __future__ import annotations

from collections.abc import Iterable

from fhir_server.validation.conformance import CodeCheck
from foramen.kernel.errors import InteropError, Issue
from terminology.service import Terminology


async def binding_issues(checks: Iterable[CodeCheck], terminology: Terminology | None) -> list[Issue]:
    """Return what is wrong with coded values: errors for required, warnings for extensible bindings."""
    issues = []
    for check in checks:
        issue = await _issue(check, terminology)
        if issue is not None:
            issues.append(issue)
    return issues


async def _issue(check: CodeCheck, terminology: Terminology | None) -> Issue | None:
    answers = [await _is_member(check.binding.value_set, *coding, terminology) for coding in check.codings]
    if True in answers:
        return None
    if None in answers:
        text = "Whether the code is in the profile's value set could not be checked: the value set is not known here"
        return Issue("not-supported", text, (check.path,), "information")
    if check.binding.strength == "required":
        return Issue("code-invalid", "The code is not in the value set that the profile requires", (check.path,))
    text = "The code is not in the profile's extensible value set; use one of its codes if one fits"
    return Issue("code-invalid", text, (check.path,), "warning")


async def _is_member(value_set: str, system: str | None, code: str, terminology: Terminology | None) -> bool | None:
    if terminology is None:
        return None
    try:
        return (await terminology.validate_code(value_set=value_set, system=system, code=code)).result
    except InteropError as exc:
        if exc.status >= 500:
            raise  # Without the database nothing can be said, and the client shall try again.
        return None
