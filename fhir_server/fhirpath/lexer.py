"""Tokens of FHIRPath.

http://hl7.org/fhirpath/N1/grammar.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fhir_server.fhirpath.errors import FhirPathError

MAX_LENGTH = 16_384
_ESCAPES = {"'": "'", '"': '"', "`": "`", "\\": "\\", "/": "/", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_TOKEN = re.compile(
    r"""
    (?P<skip>\s+|//[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)
  | (?P<temporal>@(?:\d{4}(?:-\d\d(?:-\d\d)?)?
        (?:T(?:\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?(?:Z|[+-]\d\d:\d\d)?)?)?
        |T\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?))
  | (?P<number>\d+(?:\.\d+)?)
  | (?P<string>'(?:[^'\\]|\\.)*')
  | (?P<quoted>`(?:[^`\\]|\\.)*`)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<dollar>\$(?:this|index|total)\b)
  | (?P<operator><=|>=|!=|!~|[-.()\[\]{},+*/&|<>=~%])
    """,
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Token:
    """One token: `kind` is the group's name, `text` its unescaped text, `position` where it starts."""

    kind: str
    text: str
    position: int


def _unescaped(body: str, position: int) -> str:
    def replaced(match: re.Match[str]) -> str:
        escape = match.group(1)
        if len(escape) == 5:
            return chr(int(escape[1:], 16))
        if escape not in _ESCAPES:
            raise FhirPathError("there is no such escape in a string", position)
        return _ESCAPES[escape]

    return _ESCAPE.sub(replaced, body) if "\\" in body else body


def tokens(text: str) -> list[Token]:
    """Return the tokens, the last of kind ``end``.

    Raises
    ------
    FhirPathError
        A character that starts no token, an unclosed string or comment, a text that is too long.
    """
    if len(text) > MAX_LENGTH:
        raise FhirPathError(f"the expression is longer than {MAX_LENGTH} characters")
    found: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise FhirPathError("this cannot be read", position)
        kind, value = str(match.lastgroup), match.group()
        if kind == "operator" and value == "/" and text.startswith("/*", position):
            raise FhirPathError("a comment is not closed", position)
        if kind in ("string", "quoted"):
            value = _unescaped(value[1:-1], position)
        if kind != "skip":
            found.append(Token(kind, value, position))
        position = match.end()
    found.append(Token("end", "", len(text)))
    return found
