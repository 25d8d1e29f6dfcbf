"""String and uri parameters as conditions: prefixes and hierarchies are ranges of the index.

https://hl7.org/fhir/R4/search.html#string, #uri
"""

from __future__ import annotations

from fhir_server.search.conditions import AnyPosting, Condition, Match, StringPattern, StringValues
from fhir_server.search.hashing import hash64
from fhir_server.search.parameters import Parameter
from fhir_server.search.text import unescape
from fhir_server.search.values import MAX_STRING, exact_hash, normalise
from foramen.kernel.errors import InvalidRequestError

_LAST = "\U0010ffff"
"""The last code point there is: a prefix followed by it lies above all strings with that prefix."""


def equal_range(text: str) -> tuple[str, str]:
    """Range that holds one string."""
    return text, text + "\x01"


def prefix_range(text: str) -> tuple[str, str]:
    """Range of all strings that start with the text."""
    return text, text + _LAST


def prefix_condition(bases: tuple[int, ...], texts: list[str]) -> Condition:
    """Return the condition that a normalised string starts with one of the texts."""
    return StringValues(bases, tuple(prefix_range(normalise(text)) for text in texts))


def string_condition(parameter: Parameter, modifier: str | None, values: list[str]) -> Condition:
    """Return the condition of a string parameter: starts with, `:exact`, `:contains`."""
    texts = [unescape(value) for value in values]
    bases = parameter.bases()
    if modifier == "exact":
        return AnyPosting(tuple(base ^ exact_hash(text) for base in bases for text in texts))
    if modifier == "contains":
        return StringPattern(bases, tuple(normalise(text) for text in texts), Match.CONTAINS)
    return prefix_condition(bases, texts)


def uri_condition(parameter: Parameter, modifier: str | None, values: list[str]) -> Condition:
    """Return the condition of a uri parameter: equal, `:below` (is or starts with), `:above` (is or begins it).

    Raises
    ------
    InvalidRequestError
        `:above` or `:below` of something that has no hierarchy, such as urn:oid.
    """
    bases, texts = parameter.bases(), [unescape(value) for value in values]
    if modifier in ("above", "below"):
        return hierarchy_condition(parameter, modifier, texts)
    return AnyPosting(tuple(base ^ hash64(text) for base in bases for text in texts))


def hierarchy_condition(parameter: Parameter, modifier: str, texts: list[str]) -> Condition:
    """Return the condition of `:above` or `:below` on URLs and canonicals (the version after the bar is a level)."""
    if any(":" not in text or text.startswith("urn:") for text in texts):
        raise InvalidRequestError(f"{parameter.code}:{modifier} needs a URL", issue_code="value")
    bases = parameter.bases()
    if modifier == "above":
        hashes = {hash64(text) for value in texts for text in _above(value)}
        return AnyPosting(tuple(base ^ value for base in bases for value in hashes))
    return StringValues(bases, tuple(found for text in texts for found in _below(text[:MAX_STRING])))


def _below(text: str) -> list[tuple[str, str]]:
    if text[-1] in "/#":
        return [prefix_range(text)]
    marks = "." if "|" in text else "/|#?"
    return [equal_range(text), *(prefix_range(text + mark) for mark in marks)]


def _above(text: str) -> list[str]:
    """Return the URL itself and all that it lies below, with and without the closing slash."""
    url, bar, version = text.partition("|")
    if bar:
        levels = version.split(".")
        return [f"{url}|{'.'.join(levels[:count])}" for count in range(1, len(levels) + 1)]
    scheme, separator, rest = url.partition("://")
    parts = rest.rstrip("/").split("/")
    found = [text]
    for count in range(1, len(parts) + 1):
        prefix = f"{scheme}{separator}{'/'.join(parts[:count])}"
        found += [prefix, prefix + "/"] if prefix != text else []
    return list(dict.fromkeys(item for item in found if len(item) <= len(text)))
