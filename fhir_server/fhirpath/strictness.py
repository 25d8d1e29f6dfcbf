"""Semantic errors that the syntax tree alone shows (strict mode).

http://hl7.org/fhirpath/N1/#type-safety-and-strict-evaluation
"""

from __future__ import annotations

from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.parser import type_specifier
from fhir_server.fhirpath.syntax import Binary, Call, Index, Member, Tree, TypeTest, Unary
from fhir_server.fhirpath.type_table import table_of

_UNORDERED = {"children", "descendants"}
_NEED_ORDER = {"first", "last", "tail", "skip", "take"}


def _parts(tree: Tree) -> list[Tree]:
    if isinstance(tree, Call):
        return [*([tree.base] if tree.base is not None else []), *tree.arguments]
    if isinstance(tree, Member):
        return [tree.base]
    if isinstance(tree, Index):
        return [tree.base, tree.index]
    if isinstance(tree, Binary):
        return [tree.left, tree.right]
    return [tree.operand] if isinstance(tree, Unary | TypeTest) else []


def check_strictness(tree: Tree) -> None:
    """Refuse order taken from unordered collections, and elements that a cast's type does not have.

    Raises
    ------
    FhirPathError
        With the position.
    """
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        waiting += _parts(part)
        base = part.base if isinstance(part, Call | Member | Index) else None
        takes_order = isinstance(part, Index) or (isinstance(part, Call) and part.name in _NEED_ORDER)
        if takes_order and isinstance(base, Call) and base.name in _UNORDERED:
            raise FhirPathError("this collection has no order", part.position)
        if isinstance(part, Member) and base is not None:
            table = table_of(_cast(base))
            if table is not None and part.name not in table.elements:
                raise FhirPathError(f"there is no element {part.name[:60]}", part.position)


def _cast(tree: Tree) -> str:
    if isinstance(tree, TypeTest) and tree.operator == "as":
        return tree.name
    if isinstance(tree, Call) and tree.name in ("as", "ofType") and len(tree.arguments) == 1:
        return type_specifier(tree.arguments[0])[1]
    return ""
