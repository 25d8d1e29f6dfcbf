"""String functions. Regular expressions run under a time limit.

http://hl7.org/fhirpath/N1/#string-manipulation
"""

from __future__ import annotations

import base64
import binascii
import html
import json
from collections.abc import Callable
from functools import lru_cache

import regex

from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.errors import FhirPathCostError, FhirPathError
from fhir_server.fhirpath.functions.registry import eager
from fhir_server.fhirpath.values import EMPTY, Items, boolean, make, single, system

MAX_PATTERN = 2000


def _text(items: Items, what: str) -> str | None:
    node = single(items, what)
    if node is None:
        return None
    value = system(node)
    if type(value) is not str:
        if node.value is None:
            return None
        raise FhirPathError(f"{what} takes a string")
    return value


def _integer(items: Items, what: str) -> int | None:
    node = single(items, what)
    value = None if node is None else system(node)
    if value is not None and type(value) is not int:
        raise FhirPathError(f"{what} takes an integer")
    return value


def _test(name: str, decide: Callable[[str, str], bool]) -> None:
    @eager(name, 1)
    def _run(context: Context, items: Items, argument: Items) -> Items:
        text, other = _text(items, f"{name}()"), _text(argument, f"{name}()")
        return EMPTY if text is None or other is None else boolean(decide(text, other))


_test("startsWith", lambda text, other: text.startswith(other))
_test("endsWith", lambda text, other: text.endswith(other))
_test("contains", lambda text, other: other in text)


def _change(name: str, change: Callable[[str], str]) -> None:
    @eager(name)
    def _run(context: Context, items: Items) -> Items:
        text = _text(items, f"{name}()")
        return EMPTY if text is None else context.text(change(text))


_change("upper", str.upper)
_change("lower", str.lower)
_change("trim", str.strip)


@eager("length")
def _length(context: Context, items: Items) -> Items:
    text = _text(items, "length()")
    return EMPTY if text is None else make(len(text))


@eager("indexOf", 1)
def _index_of(context: Context, items: Items, argument: Items) -> Items:
    text, other = _text(items, "indexOf()"), _text(argument, "indexOf()")
    return EMPTY if text is None or other is None else make(text.find(other))


@eager("lastIndexOf", 1)
def _last_index_of(context: Context, items: Items, argument: Items) -> Items:
    text, other = _text(items, "lastIndexOf()"), _text(argument, "lastIndexOf()")
    return EMPTY if text is None or other is None else make(text.rfind(other))


@eager("substring", 1, 2)
def _substring(context: Context, items: Items, start: Items, length: Items | None = None) -> Items:
    text, first = _text(items, "substring()"), _integer(start, "substring()")
    if text is None or first is None or not 0 <= first < len(text):
        return EMPTY
    count = None if length is None else _integer(length, "substring()")
    return make(text[first:] if count is None else text[first : first + max(count, 0)])


@eager("replace", 2)
def _replace(context: Context, items: Items, pattern: Items, substitution: Items) -> Items:
    text, old, new = _text(items, "replace()"), _text(pattern, "replace()"), _text(substitution, "replace()")
    if text is None or old is None or new is None:
        return EMPTY
    context.spend((text.count(old) * len(new)) // 64)
    return context.text(text.replace(old, new))


@lru_cache(maxsize=512)
def _pattern(text: str) -> regex.Pattern[str]:
    if len(text) > MAX_PATTERN:
        raise FhirPathCostError(f"a regular expression is longer than {MAX_PATTERN} characters")
    try:
        return regex.compile(text, regex.DOTALL | regex.VERSION0)
    except (regex.error, RecursionError) as exc:
        raise FhirPathError("this is no regular expression") from exc


def _matching(name: str, find: Callable[[regex.Pattern[str], str, float], object]) -> None:
    @eager(name, 1)
    def _run(context: Context, items: Items, argument: Items) -> Items:
        text, pattern = _text(items, f"{name}()"), _text(argument, f"{name}()")
        if text is None or pattern is None:
            return EMPTY
        compiled = _pattern(pattern)
        return boolean(context.match(lambda seconds: find(compiled, text, seconds)) is not None)


_matching("matches", lambda pattern, text, seconds: pattern.search(text, timeout=seconds))
_matching("matchesFull", lambda pattern, text, seconds: pattern.fullmatch(text, timeout=seconds))


@eager("replaceMatches", 2)
def _replace_matches(context: Context, items: Items, pattern: Items, substitution: Items) -> Items:
    text, old = _text(items, "replaceMatches()"), _text(pattern, "replaceMatches()")
    new = _text(substitution, "replaceMatches()")
    if text is None or old is None or new is None:
        return EMPTY
    if not old:
        return make(text)
    # $1 and ${name} are groups; a backslash is just a backslash.
    template = regex.sub(r"\$(?:(\d+)|\{(\w+)\})", r"\\g<\1\2>", new.replace("\\", "\\\\"))
    compiled = _pattern(old)
    try:
        return context.text(context.match(lambda seconds: compiled.sub(template, text, timeout=seconds)))
    except (regex.error, IndexError) as exc:
        raise FhirPathError("the substitution names no group of the pattern") from exc


@eager("toChars")
def _to_chars(context: Context, items: Items) -> Items:
    text = _text(items, "toChars()")
    context.spend(len(text or ""))
    return [node for character in text or "" for node in make(character)]


@eager("split", 1)
def _split(context: Context, items: Items, separator: Items) -> Items:
    text, mark = _text(items, "split()"), _text(separator, "split()")
    if text is None or mark is None:
        return EMPTY
    parts = text.split(mark) if mark else list(text)
    context.spend(len(parts))
    return [node for part in parts for node in make(part)]


@eager("join", 0, 1)
def _join(context: Context, items: Items, separator: Items = EMPTY) -> Items:
    texts = [_text([node], "join()") for node in items]
    return context.text((_text(separator, "join()") or "").join(text for text in texts if text is not None))


_ENCODE: dict[str, Callable[[str], str]] = {
    "hex": lambda text: text.encode().hex(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "urlbase64": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
}
_DECODE: dict[str, Callable[[str], str]] = {
    "hex": lambda text: bytes.fromhex(text).decode(),
    "base64": lambda text: base64.b64decode(text, validate=True).decode(),
    "urlbase64": lambda text: base64.b64decode(text, altchars=b"-_", validate=True).decode(),
}
_ESCAPE: dict[str, Callable[[str], str]] = {"html": html.escape, "json": lambda text: json.dumps(text)[1:-1]}
_UNESCAPE: dict[str, Callable[[str], str]] = {
    "html": html.unescape,
    "json": lambda text: str(json.loads(f'"{text}"', strict=False)),
}


def _coding(name: str, formats: dict[str, Callable[[str], str]]) -> None:
    @eager(name, 1)
    def _run(context: Context, items: Items, argument: Items) -> Items:
        text, form = _text(items, f"{name}()"), _text(argument, f"{name}()")
        if text is None or form not in formats:
            return EMPTY
        try:
            return context.text(formats[form](text))
        except (ValueError, binascii.Error):
            return EMPTY


_coding("encode", _ENCODE)
_coding("decode", _DECODE)
_coding("escape", _ESCAPE)


@eager("unescape", 1)
def _unescape(context: Context, items: Items, argument: Items) -> Items:
    text, form = _text(items, "unescape()"), _text(argument, "unescape()")
    if text is None or form not in _UNESCAPE:
        return EMPTY
    try:
        return context.text(_UNESCAPE[form](text))
    except ValueError:
        return make(text)
