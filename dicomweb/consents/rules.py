"""What `ImagingStudy/$closed-records` of the record says, as rows of the gateway's tables. Pure.

docs/api/closed-records.md; what cannot be read is an error: nothing may be shown by half of the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foramen.kernel.errors import UpstreamError

BEGINNING, END = -(2**62), 2**62
_URN = "urn:oid:"
_KNOWN = frozenset({"patient", "actor", "begin", "end", "limited", "study", "permit"})
_PERMIT = frozenset({"actor", "begin", "end"})
_Span = tuple[list[str] | None, int, int]


@dataclass(frozen=True, slots=True)
class Rules:
    """Rows, each in the order of its table's columns."""

    closed: list[tuple[int, str, list[str] | None, list[str] | None, int, int]]
    permits: list[tuple[int, list[str] | None, int, int]]
    restricted: list[tuple[str, str]]


def rules_of(answer: dict[str, Any]) -> Rules:
    """Read the answer.

    Raises
    ------
    UpstreamError
        It is not what the operation answers.
    """
    found = Rules([], [], [])
    if answer.get("resourceType") != "Parameters":
        raise _unreadable()
    try:
        for number, item in enumerate(answer.get("parameter", ())):
            _read(number, item["name"], item["part"], found)
    except (KeyError, TypeError, ValueError, StopIteration) as exc:
        raise _unreadable() from exc
    return found


def _read(number: int, name: str, parts: list[dict[str, Any]], found: Rules) -> None:
    patient = next(part["valueReference"]["reference"] for part in parts if part["name"] == "patient")
    if name == "restricted":
        found.restricted.append((patient, next(part["valueCode"] for part in parts if part["name"] == "state")))
        return
    if name != "denial" or not _KNOWN.issuperset(part["name"] for part in parts):
        raise _unreadable()
    limited = any(part["name"] == "limited" and part["valueBoolean"] for part in parts)
    studies = [part["valueUri"].removeprefix(_URN) for part in parts if part["name"] == "study"]
    found.closed.append((number, patient, studies if limited else None, *_span(parts)))
    for permit in parts:
        if permit["name"] == "permit":
            if not _PERMIT.issuperset(part["name"] for part in permit["part"]):
                raise _unreadable()
            found.permits.append((number, *_span(permit["part"])))


def _span(parts: list[dict[str, Any]]) -> _Span:
    """Return whom a provision names (None: everybody), and from when until when it counts."""
    actors = [part["valueUri"] for part in parts if part["name"] == "actor"]
    begin = next((part["valueDecimal"] for part in parts if part["name"] == "begin"), BEGINNING)
    end = next((part["valueDecimal"] for part in parts if part["name"] == "end"), END)
    return actors or None, int(begin), int(end)


def _unreadable() -> UpstreamError:
    return UpstreamError("The record's answer about closed records cannot be read")
