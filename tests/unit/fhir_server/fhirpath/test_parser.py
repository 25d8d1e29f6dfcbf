"""Text of FHIRPath to syntax tree: precedence, literals, faults with their position."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.expression import compile_expression
from fhir_server.fhirpath.lexer import MAX_LENGTH, tokens
from fhir_server.fhirpath.parser import parse
from fhir_server.fhirpath.syntax import Binary, Call, Literal, Member, Name, Tree, TypeTest, Unary


def shape(tree: Tree | None) -> str:
    if isinstance(tree, Binary):
        return f"({shape(tree.left)} {tree.operator} {shape(tree.right)})"
    if isinstance(tree, Unary):
        return f"{tree.operator}{shape(tree.operand)}"
    if isinstance(tree, TypeTest):
        return f"({shape(tree.operand)} {tree.operator} {tree.namespace}:{tree.name})"
    if isinstance(tree, Member):
        return f"{shape(tree.base)}.{tree.name}"
    if isinstance(tree, Call):
        return f"{shape(tree.base)}.{tree.name}({', '.join(shape(item) for item in tree.arguments)})"
    if isinstance(tree, Literal):
        return tree.text + tree.unit
    return tree.name if isinstance(tree, Name) else type(tree).__name__


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a or b and c", "(a or (b and c))"),
        ("a implies b or c", "(a implies (b or c))"),
        ("1 + 2 * 3 - 4", "((1 + (2 * 3)) - 4)"),
        ("a | b = c", "((a | b) = c)"),
        ("a > b is Integer", "(a > (b is :Integer))"),
        ("a as Quantity | b", "((a as :Quantity) | b)"),
        ("x is FHIR.Patient", "(x is FHIR:Patient)"),
        ("-a.count() = -5", "(-a.count() = -5)"),
        ("-1 + 2", "(-1 + 2)"),
        ("expansion.contains.contains", "expansion.contains.contains"),
        ("contains.code", "contains.code"),
        ("repeat(contains)", "NoneType.repeat(contains)"),
        ("a contains b", "(a contains b)"),
        ("text.`div`", "text.div"),
        ("a.div mod 2", "(a.div mod 2)"),
        ("4 days + 1 'kg'", "(4days + 1kg)"),
        ("a // end\n.b /* ** x */", "a.b"),
    ],
)
def test_precedence(text: str, expected: str) -> None:
    assert shape(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("a.", 2),
        ("a b", 2),
        ("a.where(x", 9),
        ("'open", 0),
        ("a[1", 3),
        ("a ~~ b", 3),
        ("1 + @2015-13", 4),
        ("nothing()", 0),
        ("a.nothing()", 2),
        ("a.where()", 2),
        ("a.where(b, c)", 2),
        ("a is Nothing", 2),
        ("a.ofType(Nothing)", 2),
        ("'\\q'", 0),
        ("", 0),
        ("/* x", 0),
        ("%", 1),
    ],
)
def test_faults_say_their_position_and_nothing_of_the_text(text: str, position: int) -> None:
    with pytest.raises(FhirPathError) as caught:
        compile_expression(text)
    assert caught.value.position == position
    assert f"(position {position + 1})" in caught.value.message
    assert caught.value.status == 400
    assert caught.value.issue_code == "invalid"


@pytest.mark.parametrize(
    "text",
    [
        "(" * 500 + "1" + ")" * 500,
        "-" * 500 + "1",
        "a" + ".b" * 5000,
        "1" + " + 1" * 4000,
        "a.where(" * 300 + "true" + ")" * 300,
        "a[" * 300 + "0" + "]" * 300,
        " " * (MAX_LENGTH + 1),
        "a implies " * 1000 + "b",
    ],
)
def test_deep_and_long_expressions_are_refused(text: str) -> None:
    with pytest.raises(FhirPathError):
        compile_expression(text)


WORDS = (
    *("a", "Patient", "name", "given", "$this", "$index", "$total", "%resource", "%x", "where", "exists", "(", ")"),
    *("[", "]", "{", "}", ".", ",", "+", "-", "*", "/", "&", "|", "=", "!=", "~", "!~", "<", "<=", "and", "or", "xor"),
    *("implies", "is", "as", "in", "contains", "div", "mod", "1", "2.5", "'x'", "@2015", "@T10", "4 'g'", "days", "//"),
)


@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join) | st.text(max_size=40))
@settings(max_examples=400, deadline=None)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse(text)
    except FhirPathError:
        return
    assert tokens(text)[-1].kind == "end"
