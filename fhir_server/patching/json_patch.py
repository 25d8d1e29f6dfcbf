"""JSON Patch. RFC 6902, with JSON Pointer (RFC 6901); https://hl7.org/fhir/R4/http.html#patch

Written here because numbers must keep their text, `true` must not equal `1`, a string must not be taken for a list,
and each operation has to be charged for what it copies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fhir_server.patching.exact_json import dump, equal, load
from fhir_server.patching.faults import expression, malformed, not_applicable, test_failed
from foramen.kernel.errors import InvalidRequestError, PayloadTooLargeError

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_BAD_ESCAPE = re.compile(r"~(?![01])")
_NEEDS = {
    "add": ("path", "value"),
    "remove": ("path",),
    "replace": ("path", "value"),
    "move": ("path", "from"),
    "copy": ("path", "from"),
    "test": ("path", "value"),
}
_MISSING = object()


@dataclass(frozen=True, slots=True)
class _Step:
    place: int
    name: str
    path: tuple[str, ...]
    source: tuple[str, ...]
    value: Any


@dataclass(frozen=True, slots=True)
class JsonPatch:
    """A parsed JSON Patch document."""

    steps: tuple[_Step, ...]

    @property
    def asks(self) -> bool:
        """Whether it holds a `test`."""
        return any(step.name == "test" for step in self.steps)

    def apply(self, document: dict[str, Any], resource_type: str, max_bytes: int) -> Any:
        """Apply every operation in turn; what comes back may be any JSON.

        Parameters
        ----------
        document : changed in place
        max_bytes : most bytes of JSON that all operations together may copy

        Raises
        ------
        InteropError
            409 a test failed, 422 an operation does not fit the resource, 413 it grows too large.
        """
        return _Application(document, resource_type, max_bytes).run(self.steps)


def parse_json_patch(body: bytes, max_operations: int) -> JsonPatch:
    """Parse a document whose depth was checked.

    Raises
    ------
    InvalidRequestError
        400: not a JSON Patch, or too many operations.
    """
    data = load(body)
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise InvalidRequestError("A JSON Patch is a list of operations", issue_code="structure")
    if len(data) > max_operations:
        raise InvalidRequestError(f"The patch has more than {max_operations} operations", issue_code="too-costly")
    return JsonPatch(tuple(_step(place, item) for place, item in enumerate(data)))


def _step(place: int, item: dict[str, Any]) -> _Step:
    name = item.get("op")
    needs = _NEEDS.get(name) if isinstance(name, str) else None
    if needs is None or not isinstance(name, str):
        raise malformed(place, "has no known op")
    if any(member not in item for member in needs):
        raise malformed(place, f"needs {' and '.join(needs)}")
    source = _pointer(place, item["from"]) if "from" in needs else ()
    return _Step(place, name, _pointer(place, item["path"]), source, item.get("value"))


def _pointer(place: int, text: Any) -> tuple[str, ...]:
    if not isinstance(text, str) or (text and text[0] != "/") or _BAD_ESCAPE.search(text):
        raise malformed(place, "has a pointer that is not one of RFC 6901")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:])


class _Application:
    """One patch on one document."""

    def __init__(self, document: Any, resource_type: str, max_bytes: int) -> None:
        self._document = document
        self._resource_type = resource_type
        self._left = max_bytes

    def run(self, steps: tuple[_Step, ...]) -> Any:
        for step in steps:
            match step.name:
                case "add":
                    self._add(step, self._copy(step.value))
                case "remove":
                    self._remove(step, step.path)
                case "replace":
                    self._replace(step)
                case "move":
                    self._move(step)
                case "copy":
                    self._add(step, self._copy(self._get(step, step.source)))
                case _:
                    self._test(step)
        return self._document

    def _copy(self, value: Any) -> Any:
        text = dump(value)
        self._left -= len(text)
        if self._left < 0:
            raise PayloadTooLargeError("The patch makes the resource too large")
        return load(text)

    def _fault(self, step: _Step, what: str, path: tuple[str, ...]) -> Exception:
        return not_applicable(step.place, what, expression(self._resource_type, path))

    def _get(self, step: _Step, path: tuple[str, ...]) -> Any:
        found = self._document
        for depth, token in enumerate(path):
            if isinstance(found, dict):
                found = found.get(token, _MISSING)
            elif isinstance(found, list):
                index = int(token) if _INDEX.fullmatch(token) else len(found)
                found = found[index] if index < len(found) else _MISSING
            else:
                found = _MISSING
            if found is _MISSING:
                raise self._fault(step, "names what is not there", path[: depth + 1])
        return found

    def _add(self, step: _Step, value: Any) -> None:
        if not step.path:
            self._document = value
            return
        parent, last = self._get(step, step.path[:-1]), step.path[-1]
        if isinstance(parent, dict):
            parent[last] = value
            return
        if isinstance(parent, list):
            index = len(parent) if last == "-" else int(last) if _INDEX.fullmatch(last) else len(parent) + 1
            if index <= len(parent):
                parent.insert(index, value)
                return
        raise self._fault(step, "adds where nothing can be added", step.path)

    def _remove(self, step: _Step, path: tuple[str, ...]) -> Any:
        found = self._get(step, path)
        if not path:
            self._document = None
            return found
        parent, token = self._get(step, path[:-1]), path[-1]
        del parent[int(token) if isinstance(parent, list) else token]
        return found

    def _replace(self, step: _Step) -> None:
        self._get(step, step.path)
        value = self._copy(step.value)
        if not step.path:
            self._document = value
            return
        parent, token = self._get(step, step.path[:-1]), step.path[-1]
        parent[int(token) if isinstance(parent, list) else token] = value

    def _move(self, step: _Step) -> None:
        if step.path[: len(step.source)] == step.source and step.path != step.source:
            raise self._fault(step, "moves an element into itself", step.path)
        if step.path == step.source:
            self._get(step, step.source)
            return
        self._add(step, self._remove(step, step.source))

    def _test(self, step: _Step) -> None:
        if not equal(self._get(step, step.path), step.value):
            raise test_failed(step.place, expression(self._resource_type, step.path))
