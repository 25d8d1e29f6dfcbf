"""Regular expressions of value set filters, on an engine that runs in linear time (RE2)."""

from __future__ import annotations

from typing import Any

import re2  # type: ignore[import-untyped]

from foramen.kernel.errors import InvalidRequestError

_MAX_PATTERN = 200
_MAX_MEMORY = 1 << 20


def compile_pattern(pattern: str) -> Any:
    """Compile a regular expression.

    Raises
    ------
    InvalidRequestError
        Too long, malformed, or with look-around or back-references, which need more than linear time.
    """
    if len(pattern) > _MAX_PATTERN:
        raise InvalidRequestError("A regular expression of the value set is too long", issue_code="too-costly")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as exc:
        raise InvalidRequestError("A regular expression of the value set cannot be used", issue_code="value") from exc
