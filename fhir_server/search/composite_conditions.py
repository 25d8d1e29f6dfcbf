"""Composite parameters as conditions: a$b, each pair of values in the same element.

https://hl7.org/fhir/R4/search.html#composite
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fhir_server.model.references import normalise_reference
from fhir_server.search.composites import EXACT, group_base, rotate, single_parts
from fhir_server.search.conditions import AllOf, AnyPosting, Condition, NumberPair, RangeValues, Role
from fhir_server.search.hashing import hash64
from fhir_server.search.parameters import CompositeGroup, Parameter, TypeParameters, type_parameters
from fhir_server.search.ranges import date_condition, dates, quantity_condition, quantity_value
from fhir_server.search.strings import prefix_condition, string_condition
from fhir_server.search.text import parse_date, parse_number, split, unescape
from fhir_server.search.tokens import any_of, part_hashes, token_condition
from fhir_server.search.values import exact_hash
from foramen.kernel.errors import InvalidRequestError


def composite_condition(parameter: Parameter, values: list[str], own_url: str) -> Condition:
    """Return the condition of a composite parameter.

    Raises
    ------
    InvalidRequestError
        Not as many parts as the parameter has, a part that is not of its kind, or a form the index cannot answer
        (only the last part, or the last two when both are numbers, may be compared by range).
    """
    alternatives: list[Condition] = []
    for value in values:
        texts = split(value, "$")
        if len(texts) != len(parameter.part_kinds) or "" in texts:
            raise InvalidRequestError(
                f"{parameter.code} needs {len(parameter.part_kinds)} parts joined by $", issue_code="value"
            )
        alternatives += [_group(parameter, group, texts, own_url) for group in parameter.groups]
    return any_of(alternatives)


def _group(parameter: Parameter, group: CompositeGroup, texts: Sequence[str], own_url: str) -> Condition:
    kinds = parameter.part_kinds
    table = type_parameters(parameter.resource_type)
    singles = single_parts(table, kinds, group)
    if singles is not None:
        parts = zip(kinds, singles, texts, strict=True)
        return AllOf(tuple(_single(parameter, table, kind, path, text) for kind, path, text in parts))
    exact = len(kinds) - (2 if kinds[-2:] == ("number", "number") else 1)
    if any(kind not in EXACT for kind in kinds[:exact]):
        raise InvalidRequestError(f"{parameter.code} compares two ranges", issue_code="not-supported")
    heads = [group_base(parameter.resource_type, group)]
    for kind, text, leaves in zip(kinds[:exact], texts[:exact], group.parts[:exact], strict=True):
        found = _hashes(parameter, kind, text, leaves, own_url)
        heads = [rotate(head) ^ item for head in heads for item in found]
    last = tuple(rotate(head) for head in heads)
    if exact == len(kinds) - 2:
        return NumberPair(last, parse_number(parameter.code, texts[-2]), parse_number(parameter.code, texts[-1]))
    return _last(parameter, kinds[-1], texts[-1], last, group.parts[-1], own_url)


def _single(parameter: Parameter, table: TypeParameters, kind: str, path: str, text: str) -> Condition:
    """Return the condition of one part that is a parameter of its own."""
    data_types = frozenset(data_type for _, data_type in table.paths[kind][path])
    part = Parameter(parameter.resource_type, parameter.code, kind, (path,), data_types=data_types)
    match kind:
        case "token":
            found = token_condition(part, None, [text])
            if path == "code" and isinstance(found, AnyPosting) and not text.endswith("|"):
                return replace(found, role=Role.CODE, base=part.bases()[0])
            return found
        case "quantity":
            return quantity_condition(part, [text])
        case "date":
            return date_condition(part, dates(part, [text]))
    return string_condition(part, None, [text])


def _hashes(parameter: Parameter, kind: str, text: str, leaves: tuple[tuple[str, str], ...], own_url: str) -> list[int]:
    if kind == "token":
        return part_hashes(parameter.code, text, frozenset(name for _, name in leaves))
    if kind == "reference":
        return [hash64(normalise_reference(unescape(text), own_url))]
    if kind == "string":
        return [exact_hash(unescape(text))]
    return [hash64(unescape(text))]


def _last(
    parameter: Parameter,
    kind: str,
    text: str,
    heads: tuple[int, ...],
    leaves: tuple[tuple[str, str], ...],
    own_url: str,
) -> Condition:
    if kind == "date":
        return RangeValues("date_value", ((heads, parse_date(parameter.code, text)),))
    if kind == "number":
        return RangeValues("number_value", ((heads, parse_number(parameter.code, text)),))
    if kind == "quantity":
        unit, found = quantity_value(parameter.code, text)
        return RangeValues("number_value", ((tuple(head ^ unit for head in heads), found),))
    if kind == "string":
        return prefix_condition(heads, [unescape(text)])
    hashes = _hashes(parameter, kind, text, leaves, own_url)
    return AnyPosting(tuple(head ^ item for head in heads for item in hashes))
