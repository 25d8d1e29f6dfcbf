"""What an operation is asked: the query string of a GET, or the Parameters resource (or one resource) of a POST.

https://hl7.org/fhir/R4/operations.html#request, https://hl7.org/fhir/R4/parameters.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import orjson
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from fhir_server.interactions.body import json_body
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.interactions.search import pairs_of
from fhir_server.model.resource import LARGE_BYTES, Resource, load_json, plain
from fhir_server.search.dates import date_range
from fhir_server.server import Call
from foramen.kernel.errors import InvalidRequestError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT = {
    f"value{name}"
    for name in ("String", "Uri", "Url", "Canonical", "Code", "Id", "Markdown", "Oid", "Uuid", "Date", "DateTime")
} | {"valueInstant", "valueTime", "valueBase64Binary"}
_MOMENTS = {"valueInstant", "valueDateTime", "valueDate", "valueString"}
_WHOLE = {"valueInteger", "valuePositiveInt", "valueUnsignedInt"}
_MAX_DIGITS = 9
_RESULT_PARAMETERS = {"_format", "_pretty", "_summary", "_elements"}


class _RawParameter(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw(b"")
    part: msgspec.Raw = msgspec.Raw(b"")


class _RawParameters(msgspec.Struct):
    parameter: list[_RawParameter] = []


_PARTS = msgspec.json.Decoder(list[_RawParameter])


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: `kind` is the element that holds its value (``valueUri``, ``resource``, ``part``); empty: a URL's.

    `raw` is the JSON text of a resource or of parts as it was sent.
    """

    name: str
    kind: str
    value: Any
    raw: bytes = b""


class Parameters:
    """The parameters of one call, in the order they were sent; getters check cardinality and type."""

    def __init__(self, items: Iterable[Parameter] = ()) -> None:
        self._items = list(items)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._items)

    def __contains__(self, name: str) -> bool:
        return any(item.name == name for item in self._items)

    def every(self, name: str) -> list[Parameter]:
        """Return all parameters of a name."""
        return [item for item in self._items if item.name == name]

    def one(self, name: str) -> Parameter | None:
        """Return the only parameter of a name, or None.

        Raises
        ------
        InvalidRequestError
            It is given more than once.
        """
        found = self.every(name)
        if len(found) > 1:
            raise _fault(name, "is given more than once")
        return found[0] if found else None

    def check_known(self, names: Iterable[str]) -> None:
        """Refuse parameters that the operation does not have, so that none is silently left out.

        Raises
        ------
        InvalidRequestError
            `not-supported`.
        """
        known = {*names, *_RESULT_PARAMETERS}
        if any(item.name not in known for item in self._items):
            text = f"This operation has the parameters {', '.join(sorted(known - _RESULT_PARAMETERS)) or 'none'} only"
            raise InvalidRequestError(text, issue_code="not-supported", expression=("Parameters.parameter",))

    def text(self, name: str) -> str | None:
        """Return the text of a string, uri, code, date or the like.

        Raises
        ------
        InvalidRequestError
            More than one, or no text.
        """
        item = self.one(name)
        return None if item is None else _text(item)

    def required_text(self, name: str) -> str:
        """Return the text of a parameter that must be there."""
        found = self.text(name)
        if found is None:
            raise _fault(name, "is required", "required")
        return found

    def texts(self, name: str) -> list[str]:
        """Return the texts of all parameters of a name."""
        return [_text(item) for item in self.every(name)]

    @staticmethod
    def only_text(item: Parameter) -> str:
        """Return the text of this parameter.

        Raises
        ------
        InvalidRequestError
            No text.
        """
        return _text(item)

    def listed(self, name: str) -> list[str]:
        """Return all texts of a name, those joined by commas apart (``_type=Patient,Observation``)."""
        return [part for text in self.texts(name) for part in map(str.strip, text.split(",")) if part]

    def boolean(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean.

        Raises
        ------
        InvalidRequestError
            Neither true nor false.
        """
        item = self.one(name)
        if item is None:
            return default
        if item.kind in ("", "valueString", "valueCode") and item.value in ("true", "false"):
            return bool(item.value == "true")
        if item.kind == "valueBoolean" and isinstance(item.value, bool):
            return item.value
        raise _fault(name, "must be true or false")

    def integer(self, name: str, *, least: int = 0) -> int | None:
        """Return a whole number of at most nine digits.

        Raises
        ------
        InvalidRequestError
            No whole number, or less than `least`.
        """
        item = self.one(name)
        if item is None:
            return None
        value: Any = item.value
        if item.kind in ("", "valueString") and isinstance(value, str) and value.isascii() and value.isdecimal():
            value = int(value) if len(value) <= _MAX_DIGITS else None
        elif item.kind not in _WHOLE or isinstance(value, bool):
            value = None
        if not isinstance(value, int) or not least <= value < 10**_MAX_DIGITS:
            raise _fault(name, f"must be a whole number of at least {least}")
        return value

    def period(self, name: str) -> tuple[datetime, datetime] | None:
        """Return the interval [from, to) that a date, dateTime or instant of any precision covers (aware, UTC).

        Raises
        ------
        InvalidRequestError
            No date.
        """
        item = self.one(name)
        if item is None:
            return None
        found = None
        if item.kind in ("", *_MOMENTS) and isinstance(item.value, str):
            found = date_range(item.value.replace(" ", "+"))
        try:
            if found is not None:
                return _EPOCH + timedelta(microseconds=found[0]), _EPOCH + timedelta(microseconds=found[1])
        except OverflowError:
            pass
        raise _fault(name, "must be a date or time")

    def element(self, name: str, *kinds: str) -> dict[str, Any] | None:
        """Return a value of a complex type.

        Parameters
        ----------
        kinds : the elements it may be in, e.g. ``valueCoding``, ``valueMeta``

        Raises
        ------
        InvalidRequestError
            More than one, or of another type.
        """
        item = self.one(name)
        if item is None:
            return None
        if item.kind not in kinds or not isinstance(item.value, dict):
            raise _fault(name, f"must be given as {' or '.join(kinds)}")
        found: dict[str, Any] = item.value
        return found

    def resource(self, name: str = "resource") -> Resource | None:
        """Return a resource with its bytes as sent.

        Raises
        ------
        InvalidRequestError
            More than one, or no resource.
        """
        item = self.one(name)
        if item is None:
            return None
        resource_type = item.value.get("resourceType") if isinstance(item.value, dict) else None
        if item.kind != "resource" or not isinstance(resource_type, str):
            raise _fault(name, "must be a resource")
        return Resource(resource_type, item.raw, item.value)

    def parts(self, name: str) -> list[Parameters]:
        """Return the parts of all parameters of a name.

        Raises
        ------
        InvalidRequestError
            One has no parts.
        """
        found = []
        for item in self.every(name):
            if item.kind != "part":
                raise _fault(name, "must have parts")
            found.append(Parameters(_items(item.value, _PARTS.decode(item.raw), depth=1)))
        return found


def _fault(name: str, what: str, code: str = "value") -> InvalidRequestError:
    where = f"Parameters.parameter.where(name='{name}')"
    return InvalidRequestError(f"{name} {what}", issue_code=code, expression=(where,))


def _text(item: Parameter) -> str:
    if item.kind not in ("", *_TEXT) or not isinstance(item.value, str) or not item.value:
        raise _fault(item.name, "must be a text")
    return item.value


def _malformed(text: str) -> InvalidRequestError:
    return InvalidRequestError(text, issue_code="structure", expression=("Parameters.parameter",))


def _items(found: Any, raw: Sequence[_RawParameter], depth: int = 0) -> list[Parameter]:
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _malformed("Parameters.parameter is not a list")
    items = []
    for item, texts in zip(found, raw, strict=True):
        name = item.get("name")
        kinds = [key for key in item if key in ("resource", "part") or (key.startswith("value") and key != "value")]
        if not isinstance(name, str) or not name or len(kinds) != 1:
            raise _malformed("A parameter has a name and one of value[x], resource or part")
        kind = kinds[0]
        text = bytes(texts.resource if kind == "resource" else texts.part if kind == "part" else b"")
        items.append(Parameter(name, kind, item[kind], text))
    return items


def read_parameters(body: bytes, max_depth: int, single: str = "resource") -> list[Parameter]:
    """Read the body of an operation.

    Parameters
    ----------
    single : name of the parameter that a body is which is any other resource than Parameters

    Raises
    ------
    InvalidRequestError
        No resource, or Parameters that are not well formed.
    """
    body = plain(body)
    data = load_json(body, max_depth)
    if data.get("resourceType") != "Parameters":
        if not isinstance(data.get("resourceType"), str):
            raise InvalidRequestError("resourceType is missing", issue_code="structure", expression=("resourceType",))
        return [Parameter(single, "resource", data, body)]
    try:
        raw = msgspec.json.decode(body, type=_RawParameters).parameter
    except msgspec.DecodeError as exc:
        raise _malformed("Parameters.parameter is not a list of parameters") from exc
    return _items(data.get("parameter", []), raw)


async def parameters_of(call: Call, single: str = "resource") -> Parameters:
    """Return the parameters of an operation: those of the body, then those of the URL.

    Parameters
    ----------
    single : name of the parameter that a body is which is any other resource than Parameters

    Raises
    ------
    InteropError
        400, 413 or 415: a body or query that cannot be read.
    """
    pairs = pairs_of(call.request.scope["query_string"].decode("latin-1"))
    items = [Parameter(name, "", value) for name, value in pairs]
    if len(items) > call.server.limits.max_parameters:
        raise InvalidRequestError("The request has too many parameters", issue_code="too-costly")
    if any("\x00" in item.name or "\x00" in item.value for item in items):
        raise InvalidRequestError("A parameter holds a NUL character", issue_code="value")
    if call.request.method == "POST" and _has_body(call):
        body, depth = await json_body(call), call.server.limits.max_depth
        if len(body) > LARGE_BYTES:
            items = await run_in_threadpool(read_parameters, body, depth, single) + items
        else:
            items = read_parameters(body, depth, single) + items
    return Parameters(items)


def _has_body(call: Call) -> bool:
    headers = call.request.headers
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def parameters_response(parts: Iterable[dict[str, Any]], status: int = 200) -> Response:
    """Answer with a Parameters resource.

    Parameters
    ----------
    parts : entries of `Parameters.parameter`, e.g. ``{"name": "result", "valueBoolean": True}``; a resource may be an
        `orjson.Fragment` of its stored bytes
    """
    found = list(parts)
    body = {"resourceType": "Parameters", **({"parameter": found} if found else {})}
    return Response(orjson.dumps(body), status_code=status, media_type=MEDIA_TYPE)
