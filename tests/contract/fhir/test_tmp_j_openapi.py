"""The OpenAPI page describes what the server does: schemathesis asks a real server everything that it says.

https://spec.openapis.org/oas/v3.1.1, https://schemathesis.readthedocs.io
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fhir_server.routes import ROUTES
from tests.contract.fhir.server_process import ServerProcess, authorization, serving

_EXAMPLES = 12
_HEADERS = {"Authorization": authorization("system/*.cruds foramen/admin"), "Accept": "application/fhir+json"}


@pytest.fixture(scope="module")
def server(module_database_url: str) -> Iterator[ServerProcess]:
    with serving(module_database_url) as process:
        yield process


@pytest.fixture(scope="module")
def page(server: ServerProcess) -> Any:
    return schemathesis.openapi.from_url(f"{server.base}/openapi.json")


def _errors_are_outcomes(context: Any, response: Any, case: Any) -> None:
    """A refusal is an OperationOutcome in FHIR's media type, with an issue that has a code and no value."""
    if response.status_code < 400 or case.method == "HEAD":
        return
    assert response.headers["content-type"][0].startswith("application/fhir+json"), response.headers
    outcome = response.json()
    assert outcome["resourceType"] == "OperationOutcome"
    assert all(issue["severity"] and issue["code"] for issue in outcome["issue"])


_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    _errors_are_outcomes,
]


def test_the_server_does_what_the_page_says(page: Any, subtests: pytest.Subtests) -> None:
    operations = [o for o in (found.ok() for found in page.get_all_operations()) if any(w in o.path for w in ("subject","erase","hold"))]
    assert len(operations) > 8
    seen: set[int] = set()
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=_EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def asks(case: Any) -> None:
            response = case.call(headers=_HEADERS)
            seen.add(response.status_code)
            case.validate_response(response, checks=_CHECKS, headers=_HEADERS)

        with subtests.test(operation.label):
            asks()
    assert seen >= {200, 400, 404}, seen


def test_the_page_holds_every_route(server: ServerProcess) -> None:
    answer = httpx.get(f"{server.base}/openapi.json")  # No token.
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    page = answer.json()
    assert page["openapi"].startswith("3.1")
    told = {(path, method) for path, methods in page["paths"].items() for method in methods}
    assert told == {(f"/{route.path}", route.method.lower()) for route in ROUTES}
    assert page["servers"] == [{"url": server.base}]
    assert httpx.get(f"{server.base}/Patient").status_code == 401
