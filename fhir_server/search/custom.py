"""Search parameters added at run time: read a SearchParameter resource, and find its values with its own FHIRPath.

https://hl7.org/fhir/R4/searchparameter.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fhir_server.fhirpath.expression import Expression, compile_expression
from fhir_server.fhirpath.temporal import Temporal
from fhir_server.model.references import parse_reference
from fhir_server.search.parameters import Parameter, r4_parameters, registry, resource_types
from fhir_server.search.values import IndexValues, Leaf, leaf_for
from foramen.kernel.errors import InvalidRequestError, InvalidResourceError, Issue
from foramen.kernel.log import get_log

KIND_TYPES = {
    "token": {"CodeableConcept", "Coding", "Identifier", "ContactPoint", "code", "id", "string", "boolean", "uri"},
    "reference": {"Reference", "canonical", "uri", "url"},
    "date": {"date", "dateTime", "instant", "Period", "Timing"},
    "string": {"string", "markdown", "HumanName", "Address", "code", "id"},
    "quantity": {"Quantity", "Age", "Duration", "Count", "Distance", "Money", "Range"},
    "number": {"integer", "decimal", "positiveInt", "unsignedInt"},
    "uri": {"uri", "url", "canonical", "oid", "uuid"},
}
"""Data types whose values a kind of parameter can take (https://hl7.org/fhir/R4/search.html §3.1.1.4)."""
_DATA_TYPES = {"token": ("CodeableConcept", "Identifier"), "reference": ("Reference",)}
"""What the parser assumes of a custom parameter's elements: the values of every data type can be asked for."""
_SYSTEM = {
    "System.String": "string",
    "System.Boolean": "boolean",
    "System.Integer": "integer",
    "System.Decimal": "decimal",
}
"""Types of what an expression computes; computed dates and quantities are not indexed."""
_HOLDING = frozenset({"Identifier", "Reference"})
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_OFFICIAL = "http://hl7.org/fhir/SearchParameter/"


@dataclass(frozen=True, slots=True)
class Definition:
    """What a SearchParameter resource says, as far as searching needs it."""

    logical_id: str
    url: str
    code: str
    kind: str
    types: tuple[str, ...]
    expression: str
    targets: tuple[str, ...] = ()

    def parameters(self, identity: str, *, incomplete: bool) -> list[Parameter]:
        """Return the parameter of each type; `identity` keeps its index entries apart from all others'."""
        return [
            Parameter(
                resource_type=name,
                code=self.code,
                kind=self.kind,
                paths=(identity,),
                targets=self.targets,
                data_types=frozenset(_DATA_TYPES.get(self.kind, ())),
                bit=-1,
                expression=self.expression,
                incomplete=incomplete,
            )
            for name in self.types
        ]


def definition_of(data: dict[str, Any], logical_id: str, max_length: int) -> Definition | None:
    """Read an active SearchParameter.

    Parameters
    ----------
    data : the resource, structurally valid
    max_length : longest expression in characters

    Returns
    -------
    None when R4 itself has this parameter, so that there is nothing to add.

    Raises
    ------
    InvalidResourceError
        It cannot be indexed; one issue for each reason, with its `expression`.
    """
    kind, code, url = str(data.get("type")), str(data.get("code")), str(data.get("url", ""))
    types = tuple(sorted(set(data.get("base", ()))))
    if url.startswith(_OFFICIAL) and all(
        name in ("Resource", "DomainResource") or code in r4_parameters(name).parameters
        for name in types
        if name in resource_types() or name in ("Resource", "DomainResource")
    ):
        return None
    expression = data.get("expression")
    issues = [*_shape_issues(kind, code, types, expression, max_length)]
    if not issues:
        try:
            compile_expression(str(expression))
        except InvalidRequestError as exc:
            issues.append(_issue("invalid", f"The expression cannot be used: {exc.message}", "expression"))
    if issues:
        raise InvalidResourceError("The search parameter cannot take effect", issues=issues)
    targets = tuple(sorted(set(data.get("target", ())) & resource_types()))
    return Definition(logical_id, url, code, kind, types, str(expression), targets)


def _issue(code: str, text: str, element: str) -> Issue:
    return Issue(code, text, (f"SearchParameter.{element}",))


def _shape_issues(kind: str, code: str, types: tuple[str, ...], expression: Any, max_length: int) -> Iterator[Issue]:
    if kind not in KIND_TYPES:
        yield _issue("not-supported", "Custom parameters of this type are not supported (composite, special)", "type")
    if _CODE.fullmatch(code) is None:
        yield _issue("value", "A code has letters, digits and hyphens, at most 64, and begins with a letter", "code")
    if not isinstance(expression, str) or not expression.strip():
        yield _issue("required", "A search parameter needs a FHIRPath expression to take effect", "expression")
    elif len(expression) > max_length:
        yield _issue("too-costly", f"The expression is longer than {max_length} characters", "expression")
    if not types or set(types) - resource_types():
        yield _issue("not-supported", "Every base must be a concrete resource type", "base")
    elif any(code in r4_parameters(name).parameters for name in types):
        yield _issue("business-rule", "FHIR R4 has a parameter of this code for one of the bases", "code")


class CustomExtractor:
    """Finds the values of one custom parameter."""

    def __init__(self, parameter: Parameter, own_url: str) -> None:
        self._parameter = parameter
        self._own_url = own_url
        self._expression: Expression = compile_expression(parameter.expression)
        self._base = parameter.bases()[0]
        self._presence = parameter.presence()
        self._allowed = KIND_TYPES[parameter.kind]
        self._leaves: dict[str, Leaf] = {}

    def values(self, data: dict[str, Any]) -> list[tuple[str, Any]]:
        """Return (data type, value) of each element that the expression selects and the kind can take.

        An expression that fails on a resource has no value there: it must never stand in the way of a write.
        """
        try:
            nodes = self._expression.nodes(data, resolve=self._resolve)
        except (InvalidRequestError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as exc:
            get_log().warning("search parameter failed", code=self._parameter.code, exception=type(exc).__name__)
            return []
        found = [(_SYSTEM.get(n.type_name, n.type_name), n.value) for n in nodes]
        return [(name, value) for name, value in found if name in self._allowed and not isinstance(value, Temporal)]

    def extract(self, data: dict[str, Any], out: IndexValues) -> None:
        """Add the values of one resource to the index."""
        found = self._without_hidden(data)
        for name, value in found:
            leaf = self._leaves.get(name)
            if leaf is None:
                leaf = self._leaves[name] = leaf_for(
                    self._parameter.kind,
                    name,
                    self._base,
                    own_url=self._own_url,
                    is_main_date=False,
                    is_code=False,
                    in_compartment=False,
                    is_existence=False,
                )
            leaf(value, out)
        if found:
            out.postings.add(self._presence)

    def _without_hidden(self, data: dict[str, Any]) -> list[tuple[str, Any]]:
        """As `values`, but whole Identifiers alone show a national number: they are indexed with a key."""
        blind = registry().blind
        hidden = data if blind is None else blind.hidden(data)
        if hidden is data:
            return self.values(data)
        whole = [found for found in self.values(data) if found[0] in _HOLDING]
        return whole + [found for found in self.values(hidden) if found[0] not in _HOLDING]

    def _resolve(self, reference: str) -> dict[str, Any] | None:
        """Tell the type of a reference's target, which is all that `resolve() is T` asks; nothing is read."""
        parsed = parse_reference(reference, self._own_url)
        return None if parsed is None else {"resourceType": parsed[0], "id": parsed[1]}
