"""Pratt parser: text of FHIRPath → syntax tree.

http://hl7.org/fhirpath/N1/#operator-precedence
"""

from __future__ import annotations

from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.lexer import Token, tokens
from fhir_server.fhirpath.syntax import (
    Binary,
    Call,
    Empty,
    Index,
    Literal,
    Member,
    Name,
    Special,
    Tree,
    TypeTest,
    Unary,
    Variable,
)

MAX_NESTING = 64
_UNARY = 11
_BINDING = {
    **dict.fromkeys(("*", "/", "div", "mod"), 10),
    **dict.fromkeys(("+", "-", "&"), 9),
    **dict.fromkeys(("is", "as"), 8),
    "|": 7,
    **dict.fromkeys(("<=", "<", ">", ">="), 6),
    **dict.fromkeys(("=", "~", "!=", "!~"), 5),
    **dict.fromkeys(("in", "contains"), 4),
    "and": 3,
    **dict.fromkeys(("or", "xor"), 2),
    "implies": 1,
}
CALENDAR_UNITS = frozenset(
    name + plural
    for name in ("year", "month", "week", "day", "hour", "minute", "second", "millisecond")
    for plural in ("", "s")
)
# Words that are operators only; `is`, `as`, `in` and `contains` are names of elements too (`expansion.contains`).
_WORDS = {"div", "mod", "and", "or", "xor", "implies"}


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._next = 0
        self._nesting = 0

    def parse(self) -> Tree:
        tree = self._expression(0)
        if self._peek().kind != "end":
            raise FhirPathError("the expression should end here", self._peek().position)
        return tree

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _advance(self) -> Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _is(self, operator: str) -> bool:
        token = self._peek()
        return token.kind == "operator" and token.text == operator

    def _expect(self, operator: str) -> None:
        if not self._is(operator):
            raise FhirPathError(f"expected {operator}", self._peek().position)
        self._next += 1

    def _expression(self, binding: int) -> Tree:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise FhirPathError(f"the expression is nested deeper than {MAX_NESTING} levels", self._peek().position)
        left = self._unary()
        length = 0
        while True:
            token = self._peek()
            power = _BINDING.get(token.text, 0) if token.kind in ("operator", "name") else 0
            if power <= binding:
                break
            self._next += 1
            length += 1
            if length > MAX_NESTING * 4:
                raise FhirPathError("the expression has too many operators", token.position)
            if token.text in ("is", "as"):
                namespace, name = self._type_name()
                left = TypeTest(token.position, token.text, left, namespace, name)
            else:
                left = Binary(token.position, token.text, left, self._expression(power))
        self._nesting -= 1
        return left

    def _unary(self) -> Tree:
        token = self._peek()
        if token.kind == "operator" and token.text in "+-":
            self._next += 1
            return Unary(token.position, token.text, self._expression(_UNARY))
        return self._invocations(self._term())

    def _invocations(self, tree: Tree) -> Tree:
        length = 0
        while True:
            length += 1
            if length > MAX_NESTING * 4:
                raise FhirPathError("the path is too long", self._peek().position)
            if self._is("."):
                self._next += 1
                token = self._advance()
                if token.kind not in ("name", "quoted"):
                    raise FhirPathError("expected a name", token.position)
                tree = self._call(tree, token) if self._is("(") else Member(token.position, tree, token.text)
            elif self._is("["):
                position = self._advance().position
                tree = Index(position, tree, self._expression(0))
                self._expect("]")
            else:
                return tree

    def _call(self, base: Tree | None, token: Token) -> Call:
        self._expect("(")
        arguments: list[Tree] = []
        while not self._is(")"):
            if arguments:
                self._expect(",")
            arguments.append(self._expression(0))
        self._next += 1
        return Call(token.position, base, token.text, tuple(arguments))

    def _term(self) -> Tree:
        token = self._advance()
        position = token.position
        if token.kind == "operator":
            return self._bracket(token)
        if token.kind == "number":
            return self._number(token)
        if token.kind in ("string", "temporal"):
            return Literal(position, token.kind, token.text)
        if token.kind == "dollar":
            return Special(position, token.text)
        if token.kind == "quoted":
            return self._call(None, token) if self._is("(") else Name(position, token.text)
        if token.kind == "name" and token.text not in _WORDS:
            if self._is("("):
                return self._call(None, token)
            if token.text in ("true", "false"):
                return Literal(position, "boolean", token.text)
            return Name(position, token.text)
        raise FhirPathError("an operand is missing", position)

    def _bracket(self, token: Token) -> Tree:
        if token.text == "(":
            tree = self._expression(0)
            self._expect(")")
            return tree
        if token.text == "{":
            self._expect("}")
            return Empty(token.position)
        if token.text == "%":
            name = self._advance()
            if name.kind not in ("name", "quoted", "string"):
                raise FhirPathError("expected the name of a variable", name.position)
            return Variable(token.position, name.text)
        raise FhirPathError("an operand is missing", token.position)

    def _number(self, token: Token) -> Tree:
        unit = self._peek()
        if unit.kind == "string":
            self._next += 1
            return Literal(token.position, "quantity", token.text, unit.text)
        if unit.kind == "name" and unit.text in CALENDAR_UNITS:
            self._next += 1
            return Literal(token.position, "quantity", token.text, unit.text, is_calendar=True)
        return Literal(token.position, "number", token.text)

    def _type_name(self) -> tuple[str, str]:
        names = [self._name_part()]
        if self._is("."):
            self._next += 1
            names.append(self._name_part())
        return (names[0], names[1]) if len(names) == 2 else ("", names[0])

    def _name_part(self) -> str:
        token = self._advance()
        if token.kind not in ("name", "quoted"):
            raise FhirPathError("expected the name of a type", token.position)
        return token.text


def parse(text: str) -> Tree:
    """Parse an expression.

    Raises
    ------
    FhirPathError
        Not FHIRPath; says the position.
    """
    return _Parser(text).parse()


def type_specifier(tree: Tree) -> tuple[str, str]:
    """Read the argument of ``is()``, ``as()``, ``ofType()`` as (namespace or "", name)."""
    if isinstance(tree, Name):
        return "", tree.name
    if isinstance(tree, Member) and isinstance(tree.base, Name):
        return tree.base.name, tree.name
    raise FhirPathError("expected the name of a type", tree.position)
