"""National identifiers inside stored content: sealed on the way in, opened on every way out (ADR 0032).

The text of `identifier.value` becomes marker, tag, colon, sealed value, full stop; the other bytes stay as they came.
The content stays JSON, and a resource without such a value pays for a search of the marker, no more. What a client
sends with the marker in it is sealed as well, so nobody can make the server open something.
"""

from __future__ import annotations

import base64
import re
from typing import Any, NamedTuple

import orjson

from fhir_server.search.blind import BlindIndex
from fhir_server.search.parameters import registry
from foramen.identity.sealing import DataKeys
from foramen.kernel.errors import InteropError

MARKER = b"~^" * 12
"""Of two characters that are rare in JSON, and long: so bytes without it are looked through in fewest steps."""
_SIGN = b"~"
NOTHING: frozenset[str] = frozenset()
_JSON_PART = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"(\s*+:)?|[{}\[\]]', re.DOTALL)
_SEALED = re.compile(re.escape(MARKER) + rb"([\w-]*):(v\d:[\w-]+:[0-9A-Za-z]+:[\w-]+)\.")
_TAG_BYTES = 12
_PURPOSE = "fhir {}/{} identifier"


class Opened(NamedTuple):
    """Content as it was sent, and the values that lie sealed in the store."""

    content: bytes
    values: frozenset[str]


class ContentSealing:
    """Seals and opens content with the data keys; what to seal, `blind` knows."""

    def __init__(self, keys: DataKeys, blind: BlindIndex) -> None:
        self.keys, self.blind = keys, blind

    def seal(self, content: bytes, resource_type: str, logical_id: str) -> bytes:
        """Return the content as it is stored; bound to the resource, so that a value cannot be moved to another."""
        spans = _values(content, self.blind) if self.blind.may_be_in(content) else []
        is_marked = _SIGN in content and MARKER in content
        if not spans and not is_marked:
            return content
        purpose = _PURPOSE.format(resource_type, logical_id)
        marker = self._sealed(MARKER, purpose) if is_marked else MARKER
        parts, done = [], 0
        for begin, end in spans:
            parts += [content[done:begin].replace(MARKER, marker), self._sealed(content[begin:end], purpose)]
            done = end
        return b"".join([*parts, content[done:].replace(MARKER, marker)])

    def open(self, content: bytes, resource_type: str, logical_id: str) -> Opened:
        """Return the content as it was sent.

        Raises
        ------
        InteropError
            A value was changed or belongs to another resource, or its key is not among ours.
        UpstreamError
            The keys cannot be read now.
        """
        purpose, values = _PURPOSE.format(resource_type, logical_id), set()

        def plain(match: re.Match[bytes]) -> bytes:
            found = self.keys.unseal(match[2].decode(), purpose)
            values.add(_text(found))
            return found

        found, count = _SEALED.subn(plain, content)
        if count != content.count(MARKER):
            raise InteropError("A sealed value cannot be opened")
        return Opened(found, frozenset(values))

    def needle(self, value: str) -> bytes:
        """What stands in stored content before a sealed value, the same for equal values: erasure looks for it."""
        return b"%b%b:" % (MARKER, base64.urlsafe_b64encode(_long(self.blind, value)))

    def is_sealed_now(self, content: bytes) -> bool:
        """Whether all that is sealed in it is sealed with the key and cipher of now."""
        head = self.keys.current_head.encode()
        found = [match[2] for match in _SEALED.finditer(content)]
        return len(found) == content.count(MARKER) and all(value.startswith(head) for value in found)

    def waits(self, content: bytes) -> bool:
        """Whether stored content holds a value that is to be sealed and is not."""
        if not self.blind.may_be_in(content):
            return False
        return any(not content.startswith(MARKER, begin) for begin, _ in _values(content, self.blind))

    def _sealed(self, plain: bytes, purpose: str) -> bytes:
        return b"%b%b." % (self.needle(_text(plain)), self.keys.seal(plain, purpose).encode())


def _text(raw: bytes) -> str:
    found: str = orjson.loads(b'"' + raw + b'"')
    return found


def _long(blind: BlindIndex, value: str) -> bytes:
    return b"".join(blind.hash(f"{part}\x00{value}").to_bytes(8, "big", signed=True) for part in "ab")[:_TAG_BYTES]


def _values(content: bytes, blind: BlindIndex) -> list[tuple[int, int]]:
    """Return where the texts of the values stand: between the quotes of `value` beside a `system` that is known.

    Names and systems have no needless escapes (`model.resource.plain`), so their bytes are what they say.
    """
    found: list[tuple[int, int]] = []
    stack: list[list[Any] | None] = []
    name = b""
    for part in _JSON_PART.finditer(content):
        text = part[1]
        if text is None:
            sign = part[0]
            if sign == b"{":
                stack.append([False])
            elif sign == b"[":
                stack.append(None)
            elif stack:
                done = stack.pop()
                if done is not None and done[0]:
                    found += done[1:]
            name = b""
        elif part[2] is not None:
            name = text
        else:
            owner = stack[-1] if stack else None
            if owner is not None and name == b"value":
                owner.append(part.span(1))
            elif owner is not None and name == b"system" and blind.knows(text.decode("utf-8", "replace")):
                owner[0] = True
            name = b""
    return sorted(found)


def sealing() -> ContentSealing | None:
    """Return the sealing in force: that of the record whose registry is."""
    found = registry().sealing
    return found if isinstance(found, ContentSealing) else None


def sealed(content: bytes | None, resource_type: str, logical_id: str) -> bytes | None:
    """Return content as it is stored."""
    if content is None or (own := sealing()) is None:
        return content
    return own.seal(content, resource_type, logical_id)


def opened(content: bytes | None, resource_type: str, logical_id: str) -> bytes | None:
    """Return stored content as it was sent.

    Raises
    ------
    InteropError
        See `ContentSealing.open`.
    """
    if content is None or MARKER not in content:
        return content
    return _open(content, resource_type, logical_id).content


def opened_with_values(
    content: bytes | None, resource_type: str, logical_id: str
) -> tuple[bytes | None, frozenset[str]]:
    """As `opened`; also return the values that are sealed, by which the index entries of this version are known."""
    if content is None or MARKER not in content:
        return content, NOTHING
    return _open(content, resource_type, logical_id)


def opened_line(line: bytes) -> bytes:
    """Return a resource as it was sent; whose it is, its own text says."""
    if MARKER not in line:
        return line
    data = orjson.loads(line)
    return _open(line, str(data.get("resourceType")), str(data.get("id"))).content


def _open(content: bytes, resource_type: str, logical_id: str) -> Opened:
    own = sealing()
    if own is None:
        raise InteropError("Stored content is sealed, and its keys are not open in this process")
    return own.open(content, resource_type, logical_id)
