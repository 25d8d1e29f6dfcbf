"""Searches over an index that is not complete yet: what they asked is noted, so that the answer can say so.

A custom parameter is incomplete until its job has walked the record, a whole type while it is rebuilt (ADR 0015).
"""

from __future__ import annotations

from fhir_server.search.conditions import SearchRequest
from fhir_server.search.parameters import noting_incomplete
from fhir_server.search.parse import SearchParser
from foramen.kernel.errors import Issue, UpstreamError

_TEXT = "The search index is not complete yet: matches may be missing"


class WatchedParser(SearchParser):
    """Parses searches and refuses, under strict handling, those that the index cannot fully answer."""

    def parse(
        self, resource_type: str, pairs: list[tuple[str, str]], *, strict: bool, action: str = "s"
    ) -> SearchRequest:
        """Parse all parameters of a search on one type.

        Raises
        ------
        UpstreamError
            503 `incomplete`, with Retry-After: strict handling (and every conditional interaction) needs a complete
            index.
        InteropError
            As `SearchParser.parse`.
        """
        with noting_incomplete() as noted:
            request = super().parse(resource_type, pairs, strict=strict, action=action)
        if noted and strict:
            raise UpstreamError(
                _TEXT, issues=[Issue("incomplete", _TEXT, (f"http.{name}",)) for name in sorted(noted)],
                headers={"Retry-After": "5"},
            )  # fmt: skip
        request.incomplete = tuple(sorted(noted))
        return request


def incomplete_issues(request: SearchRequest) -> list[Issue]:
    """Return a warning for each parameter or type whose index is not complete."""
    return [Issue("incomplete", _TEXT, (f"http.{name}",), "warning") for name in request.incomplete]
