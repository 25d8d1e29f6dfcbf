"""The grammar of `_filter`: tests joined by and, or, not and parentheses.

https://hl7.org/fhir/R4/search_filter.html. `and` binds more tightly than `or`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from foramen.kernel.errors import InvalidRequestError

OPERATORS = frozenset(
    {"eq", "ne", "co", "sw", "ew", "gt", "lt", "ge", "le", "ap", "sa", "eb", "pr", "po", "ss", "sb", "in", "ni", "re"}
)
_MAX_TESTS = 100
_TOKEN = re.compile(r"\s*(?:(?P<mark>[()\[\]])|(?P<string>\"(?:[^\"\\]|\\.)*\")|(?P<word>[^\s()\[\]\"]+))", re.DOTALL)
_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_:.-]*")


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison: ``path operator value``."""

    path: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Junction:
    """All (`and`) or any (`or`) of the filters."""

    word: str
    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """Not the filter."""

    filter: Filter


Filter = Test | Junction | Negation


def _bad(position: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"_filter cannot be read at character {position + 1}", issue_code="value", expression=("http._filter",)
    )


def parse_filter(text: str, max_depth: int) -> Filter:
    """Parse a filter.

    Raises
    ------
    InvalidRequestError
        Not a filter (the message tells the position), nested too deeply, or with too many tests.
    """
    return _Parser(text, max_depth).parse()


class _Parser:
    """Recursive descent; the depth is bounded."""

    def __init__(self, text: str, max_depth: int) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        self._next = 0
        self._tests = 0
        self._max_depth = max_depth
        self._end = len(text)
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise _bad(position)
            kind = match.lastgroup or ""
            self._tokens.append((kind, match.group(kind), match.start(kind)))
            position = match.end()

    def parse(self) -> Filter:
        found = self._any(0)
        if self._next != len(self._tokens):
            raise _bad(self._position())
        return found

    def _position(self) -> int:
        return self._tokens[self._next][2] if self._next < len(self._tokens) else self._end

    def _peek(self) -> str:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else ""

    def _take(self, kind: str) -> str:
        if self._next >= len(self._tokens) or self._tokens[self._next][0] != kind:
            raise _bad(self._position())
        self._next += 1
        return self._tokens[self._next - 1][1]

    def _expect(self, mark: str) -> None:
        if self._peek() != mark:
            raise _bad(self._position())
        self._next += 1

    def _any(self, depth: int) -> Filter:
        return self._joined("or", depth)

    def _joined(self, word: str, depth: int) -> Filter:
        below = self._one if word == "and" else lambda level: self._joined("and", level)
        found = [below(depth)]
        while self._peek().lower() == word:
            self._next += 1
            found.append(below(depth))
        return found[0] if len(found) == 1 else Junction(word, tuple(found))

    def _one(self, depth: int) -> Filter:
        if depth > self._max_depth:
            raise InvalidRequestError("_filter is nested too deeply", issue_code="too-costly")
        if self._peek() == "(":
            return self._parentheses(depth)
        if self._peek().lower() == "not" and self._after_next() == "(":
            self._next += 1
            return Negation(self._parentheses(depth))
        return self._test()

    def _after_next(self) -> str:
        return self._tokens[self._next + 1][1] if self._next + 1 < len(self._tokens) else ""

    def _parentheses(self, depth: int) -> Filter:
        self._expect("(")
        found = self._any(depth + 1)
        self._expect(")")
        return found

    def _test(self) -> Test:
        start = self._position()
        path = self._take("word")
        if self._peek() == "[":
            raise InvalidRequestError(
                "_filter does not support filters inside a path (name[…].name)",
                issue_code="not-supported",
                expression=("http._filter",),
            )
        if not _PATH.fullmatch(path):
            raise _bad(start)
        position = self._position()
        operator = self._take("word").lower()
        if operator not in OPERATORS:
            raise _bad(position)
        self._tests += 1
        if self._tests > _MAX_TESTS:
            raise InvalidRequestError("_filter has too many tests", issue_code="too-costly")
        return Test(path, operator, self._value())

    def _value(self) -> str:
        position = self._position()
        if self._next < len(self._tokens) and self._tokens[self._next][0] == "string":
            try:
                return str(orjson.loads(self._take("string")))
            except orjson.JSONDecodeError as exc:
                raise _bad(position) from exc
        return self._take("word")
