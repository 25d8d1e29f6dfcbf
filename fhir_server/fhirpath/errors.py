"""What a FHIRPath expression can do wrong; the messages never hold a value of the data.

http://hl7.org/fhirpath/N1
"""

from __future__ import annotations

from foramen.kernel.errors import InvalidRequestError


class FhirPathError(InvalidRequestError):
    """The expression cannot be parsed, or cannot be evaluated on this input."""

    issue_code = "invalid"

    def __init__(self, message: str, position: int | None = None) -> None:
        self.position = position
        where = "" if position is None else f" (position {position + 1})"
        super().__init__(f"FHIRPath: {message}{where}")


class FhirPathCostError(FhirPathError):
    """Evaluation would take more than its limits allow."""

    issue_code = "too-costly"
