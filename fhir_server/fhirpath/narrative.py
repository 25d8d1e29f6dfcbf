"""``htmlChecks()`` and ``htmlChecks2()``: is a narrative's text the XHTML that FHIR allows (txt-1), and is any (txt-2).

https://hl7.org/fhir/R4/narrative.html#xhtml: the formatting of chapters 7 to 11 (without 9.4) and 15 of HTML 4.0,
links, images and style attributes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from xml.parsers import expat

_ELEMENT_NAMES = (
    "div h1 h2 h3 h4 h5 h6 p br span bdo address blockquote pre hr q cite"
    " b i u s big small tt sub sup em strong dfn code samp kbd var abbr acronym del ins strike font center"
    " ul ol li dl dt dd a img map area table caption colgroup col thead tfoot tbody tr th td"
)
_ATTRIBUTE_NAMES = (
    "title style class id lang dir accesskey tabindex"
    " span width align valign char charoff abbr axis headers scope rowspan colspan cellpadding cellspacing border"
    " frame rules summary cite start value type compact datetime clear noshade size nowrap bgcolor height color face"
    " href name rel rev hreflang charset shape coords nohref src alt longdesc usemap ismap hspace vspace"
)
_NAMESPACE = "http://www.w3.org/1999/xhtml"
_ELEMENTS = frozenset(f"{_NAMESPACE} {name}" for name in _ELEMENT_NAMES.split())
_ATTRIBUTES = frozenset((*_ATTRIBUTE_NAMES.split(), "http://www.w3.org/XML/1998/namespace lang"))
_URLS = frozenset(("href", "src", "cite", "longdesc"))
_RUNS = ("javascript:", "vbscript:", "data:text/html")
_CACHED_LENGTH = 16_384
_START = f'<div xmlns="{_NAMESPACE}"'
_PLAIN_ELEMENTS = frozenset(_ELEMENT_NAMES.split())
_PLAIN_ATTRIBUTES = frozenset(("xmlns", "xml:lang", *_ATTRIBUTE_NAMES.split()))
_CONTENT = re.compile(r">[^<]*[^<\s]")


class Narrative(NamedTuple):
    """Result of the checks: allowed markup (txt-1), some content (txt-2)."""

    is_allowed: bool
    has_content: bool


class _ForbiddenError(Exception):
    """An element, attribute or declaration that a narrative may not have."""


def _runs(url: str) -> bool:
    return "".join(url.split()).lower().startswith(_RUNS)


class _Checks:
    def __init__(self) -> None:
        self.has_content = False
        self.has_started = False

    def start(self, name: str, attributes: list[str]) -> None:
        if name not in _ELEMENTS:
            raise _ForbiddenError
        if not self.has_started:
            if not name.endswith(" div"):
                raise _ForbiddenError
            self.has_started = True
        if name.endswith(" img"):
            self.has_content = True
        for position in range(0, len(attributes), 2):
            key = attributes[position]
            if key not in _ATTRIBUTES:
                raise _ForbiddenError
            if key in _URLS and _runs(attributes[position + 1]):
                raise _ForbiddenError

    def text(self, data: str) -> None:
        if not self.has_content and not data.isspace():
            self.has_content = True

    def refuse(self, *_: object) -> None:
        raise _ForbiddenError


def _plain_start(name: str, attributes: list[str]) -> None:
    if name not in _PLAIN_ELEMENTS:
        raise _ForbiddenError
    if attributes:
        for position in range(0, len(attributes), 2):
            key = attributes[position]
            if key not in _PLAIN_ATTRIBUTES or (key in _URLS and _runs(attributes[position + 1])):
                raise _ForbiddenError


def _is_plain(text: str) -> bool:
    """Prove an ordinary narrative good in half the time: one namespace, no comments, so only names need a look."""
    if not text.startswith(_START) or text.find("xmlns", len(_START)) >= 0 or "<!" in text or "<?" in text:
        return False
    if _CONTENT.search(text) is None:
        return False
    parser = expat.ParserCreate()
    parser.ordered_attributes = True
    parser.StartElementHandler = _plain_start
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, _ForbiddenError, UnicodeEncodeError):
        return False
    return True


def _read(text: str) -> Narrative:
    if _is_plain(text):
        return Narrative(True, True)
    checks = _Checks()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.ordered_attributes = True
    parser.buffer_text = True
    parser.StartElementHandler = checks.start
    parser.CharacterDataHandler = checks.text
    parser.StartDoctypeDeclHandler = checks.refuse
    parser.ProcessingInstructionHandler = checks.refuse
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, _ForbiddenError, UnicodeEncodeError):
        return Narrative(False, True)
    return Narrative(True, checks.has_content)


# A write asks for both constraints, and other checks of the same write may ask again.
_read_again = lru_cache(maxsize=32)(_read)


def read_narrative(text: str) -> Narrative:
    """Check one narrative: a ``div`` of well-formed XHTML, formatting only, nothing that runs, not empty."""
    return _read_again(text) if len(text) <= _CACHED_LENGTH else _read(text)
