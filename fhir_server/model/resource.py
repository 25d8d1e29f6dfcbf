"""A resource as its exact bytes: parsed for reading, spliced (never re-serialised) for `id` and `meta`.

https://hl7.org/fhir/R4/json.html — decimals keep their precision, so numbers are never written anew.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from fhir_server.model.references import REFERRING
from foramen.kernel.errors import InvalidRequestError

LARGE_BYTES = 200_000
"""Size from which JSON is parsed, validated and indexed in a thread, so as not to hold up the other requests."""
_TOP = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEYS: dict[str, bytes] = {}
_MAX_KEYS = 4096
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_INNERMOST = re.compile(rb"\{\}|\[\]")
_USUAL = re.compile(rb'(\{"resourceType":"[A-Za-z]+",)("id":"[^"\\]*",)?(?=")')
_SUSPECT = re.compile(rb"\\(?:/|u00[2-7])")
_NEEDLESS = re.compile(rb"(?<!\\)((?:\\\\)*)\\(?:(/)|u00([2-7][0-9A-Fa-f]))")
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"(\s*:)?', re.DOTALL)
_NO_BRACKET_OR_QUOTE = bytes(value for value in range(256) if value not in b'{}[]"')
_NO_BRACKET = bytes(value for value in range(256) if value not in b"{}[]")


@dataclass(slots=True)
class Resource:
    """One resource as sent: its text, and the same text read."""

    resource_type: str
    body: bytes
    data: dict[str, Any]

    @property
    def logical_id(self) -> str | None:
        """`Resource.id` as sent."""
        value = self.data.get("id")
        return value if isinstance(value, str) else None


def check_depth(body: bytes, max_depth: int) -> None:
    """Refuse JSON nested deeper than `max_depth` before any parser recurses.

    Strings are cut out, then what is left of brackets is peeled from the inside, one level a round.

    Raises
    ------
    InvalidRequestError
        Too deep.
    """
    if body.count(b"{") + body.count(b"[") <= max_depth:
        return
    brackets = _brackets(body)
    for _ in range(max_depth):
        peeled = _INNERMOST.sub(b"", brackets)
        if len(peeled) == len(brackets):
            break
        brackets = peeled
    # What does not close is no JSON and is refused by the parser, unless it is deep enough to trouble it.
    if brackets.count(b"{") + brackets.count(b"[") > (0 if _is_balanced(brackets) else max_depth):
        raise InvalidRequestError(f"The JSON is nested deeper than {max_depth} levels", issue_code="too-long")


def _brackets(body: bytes) -> bytes:
    """Return the brackets that stand outside strings."""
    if b"\\" not in body:
        # Strings without brackets leave pairs of quotes; a bracket inside one leaves an odd number before it.
        found = body.translate(None, _NO_BRACKET_OR_QUOTE).replace(b'""', b"")
        if b'"' not in found:
            return found
    return _STRING.sub(b"", body).translate(None, _NO_BRACKET)


def _is_balanced(brackets: bytes) -> bool:
    return b"{}" in brackets or b"[]" in brackets


def plain(body: bytes) -> bytes:
    r"""Return JSON text in which names, references and URIs have no printable ASCII character escaped without need.

    ``"\u0069d"`` is the name ``"id"``, and ``"Patient\/1"`` the reference ``"Patient/1"``: what reads names and
    references in the bytes must find them. Any other string keeps its spelling.
    """
    if b"\\" not in body or _SUSPECT.search(body) is None:
        return body
    name = b""

    def spelled(match: re.Match[bytes]) -> bytes:
        nonlocal name
        text: bytes = match.group()
        is_name = match.group(1) is not None
        if is_name:
            text = _NEEDLESS.sub(_unescape, text) if b"\\" in text else text
            name = text[1 : text.rindex(b'"')]
        elif b"\\" in text and name in REFERRING:
            text = _NEEDLESS.sub(_unescape, text)
        return text

    return _TOKEN.sub(spelled, body)


def _unescape(match: re.Match[bytes]) -> bytes:
    before, solidus, digits = match.groups()
    character = solidus or bytes((int(digits, 16),))
    # Quote, backslash and DEL stay escaped.
    return match.group() if character in b'"\\\x7f' else bytes(before) + character


def load_json(body: bytes, max_depth: int) -> dict[str, Any]:
    """Parse a JSON object.

    Raises
    ------
    InvalidRequestError
        Not JSON, not UTF-8, too deep, or not an object.
    """
    check_depth(body, max_depth)
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        position = f"line {exc.lineno}, column {exc.colno}"
        raise InvalidRequestError(f"The body is not valid JSON in UTF-8 ({position})", issue_code="structure") from exc
    if not isinstance(data, dict):
        raise InvalidRequestError("The body is not a JSON object", issue_code="structure")
    return data


def parse_resource(body: bytes, max_depth: int) -> Resource:
    """Parse one resource.

    Raises
    ------
    InvalidRequestError
        Not a JSON object with a `resourceType`.
    """
    body = plain(body)
    data = load_json(body, max_depth)
    resource_type = data.get("resourceType")
    if not isinstance(resource_type, str):
        raise InvalidRequestError("resourceType is missing", issue_code="structure", expression=("resourceType",))
    return Resource(resource_type, body, data)


@lru_cache(maxsize=1024)
def instant(at: datetime) -> str:
    """FHIR instant in UTC with milliseconds; all changes of a transaction ask for the same one."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def _key(name: str) -> bytes:
    encoded = _KEYS.get(name)
    if encoded is None:
        encoded = orjson.dumps(name) + b":"
        if len(_KEYS) < _MAX_KEYS:
            _KEYS[name] = encoded
    return encoded


def _object(members: dict[str, bytes]) -> bytes:
    return b"{" + b",".join([_key(name) + value for name, value in members.items()]) + b"}"


def _splice_usual(body: bytes, own_id: bytes, version: int, updated: str) -> bytes | None:
    """Splice the form most clients send, ``{"resourceType":"…","id":"…",…`` in one line without meta; else None.

    "meta" must not occur at all as a name: whether it is one of the resource's own would need a parser.
    """
    match = _USUAL.match(body)
    if match is None or (b"\\u00" in body and _SUSPECT.search(body)):  # A name could be written with escapes.
        return None
    if b'"meta"' in body or b"\n" in body or (match.group(2) is None and b'"id"' in body):
        return None
    rest = body[match.end() :]
    if match.group(2) is not None and b'"id":' in rest:
        return None
    return b'%b"id":%b,"meta":{"versionId":"%d","lastUpdated":"%b"},%b' % (
        match.group(1),
        own_id,
        version,
        updated.encode(),
        rest,
    )


def splice(body: bytes, logical_id: str, version: int, updated: str) -> bytes:
    """Return the resource text with `id`, `meta.versionId` and `meta.lastUpdated` set, every other byte as sent.

    White space between elements goes (it carries nothing); numbers, strings and the order of elements stay.
    """
    own_id = b'"' + logical_id.encode() + b'"'
    usual = _splice_usual(body, own_id, version, updated)
    if usual is not None:
        return usual
    raw = _TOP.decode(msgspec.json.format(body, indent=-1) if b"\n" in body else body)
    meta = {"versionId": b'"%d"' % version, "lastUpdated": b'"' + updated.encode() + b'"'}
    if "meta" in raw:
        sent = _TOP.decode(raw["meta"])
        meta.update({name: bytes(value) for name, value in sent.items() if name not in meta})
    members: dict[str, bytes] = {"resourceType": bytes(raw["resourceType"])}
    if "id" not in raw:
        members["id"] = own_id
    if "meta" not in raw:
        members["meta"] = _object(meta)
    for name, value in raw.items():
        members[name] = own_id if name == "id" else _object(meta) if name == "meta" else bytes(value)
    return _object(members)


def raw_members(body: bytes) -> dict[str, bytes]:
    """Top-level elements of a stored resource with their JSON text."""
    return {name: bytes(value) for name, value in _TOP.decode(body).items()}


def compose(members: dict[str, bytes]) -> bytes:
    """Write the JSON object of already encoded members."""
    return _object(members)
