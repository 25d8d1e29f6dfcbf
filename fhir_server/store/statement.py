"""SQL text under construction: values are always parameters, names always our own."""

from __future__ import annotations

from typing import Any


class Statement:
    """SQL text under construction, with its parameters."""

    def __init__(self) -> None:
        self.arguments: list[Any] = []
        self._aliases = 0

    def value(self, value: Any, sql_type: str) -> str:
        """Add a parameter and return its placeholder."""
        self.arguments.append(value)
        return f"${len(self.arguments)}::{sql_type}"

    def alias(self, stem: str) -> str:
        """Return an unused alias."""
        self._aliases += 1
        return f"{stem}{self._aliases}"
