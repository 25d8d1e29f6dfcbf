"""Syntax tree of FHIRPath: what the parser gives and the compiler takes.

http://hl7.org/fhirpath/N1/grammar.html
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tree:
    """Any part of an expression; `position` is its place in the text."""

    position: int


@dataclass(frozen=True, slots=True)
class Empty(Tree):
    """``{}``."""


@dataclass(frozen=True, slots=True)
class Literal(Tree):
    """A constant: kind is boolean, string, number, temporal or quantity (value and unit)."""

    kind: str
    text: str
    unit: str = ""
    is_calendar: bool = False


@dataclass(frozen=True, slots=True)
class Name(Tree):
    """An identifier where an expression starts: an element of the context, or the name of its type."""

    name: str


@dataclass(frozen=True, slots=True)
class Member(Tree):
    """``base.name``."""

    base: Tree
    name: str


@dataclass(frozen=True, slots=True)
class Index(Tree):
    """``base[index]``."""

    base: Tree
    index: Tree


@dataclass(frozen=True, slots=True)
class Call(Tree):
    """``base.name(arguments)``; without a base the function works on the context."""

    base: Tree | None
    name: str
    arguments: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Unary(Tree):
    """``+x`` and ``-x``."""

    operator: str
    operand: Tree


@dataclass(frozen=True, slots=True)
class Binary(Tree):
    """``left operator right``."""

    operator: str
    left: Tree
    right: Tree


@dataclass(frozen=True, slots=True)
class TypeTest(Tree):
    """``operand is T`` and ``operand as T``."""

    operator: str
    operand: Tree
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Special(Tree):
    """One of ``$this``, ``$index``, ``$total``."""

    name: str


@dataclass(frozen=True, slots=True)
class Variable(Tree):
    """``%name``."""

    name: str
