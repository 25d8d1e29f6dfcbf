"""Errors as FHIR OperationOutcome. The only place that writes one for an error.

https://hl7.org/fhir/R4/operationoutcome.html
"""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from foramen.kernel.errors import InteropError, Issue

FHIR_JSON = "application/fhir+json"


def operation_outcome(issues: tuple[Issue, ...]) -> dict[str, Any]:
    """Build the OperationOutcome resource of some issues."""
    rendered = []
    for issue in issues:
        entry: dict[str, Any] = {
            "severity": issue.severity,
            "code": issue.issue_code,
            "diagnostics": issue.diagnostics,
        }
        if issue.expression:
            entry["expression"] = list(issue.expression)
        rendered.append(entry)
    return {"resourceType": "OperationOutcome", "issue": rendered}


def outcome_response(error: InteropError) -> Response:
    """Render an error as an HTTP response in FHIR's form."""
    return Response(
        orjson.dumps(operation_outcome(error.issues)),
        status_code=error.status,
        headers=error.headers,
        media_type=FHIR_JSON,
    )


def unexpected_error(trace_id: str) -> InteropError:
    """Build the fixed answer to a fault of ours: a trace id and nothing else."""
    return InteropError(f"Unexpected error; trace id {trace_id}", issue_code="exception")
