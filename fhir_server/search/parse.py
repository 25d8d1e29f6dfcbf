"""Parse a FHIR search into conditions; a parameter that is not known is refused or reported, never guessed.

https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from fhir_server.model.references import LOGICAL_ID
from fhir_server.search import filter_conditions, result_parameters
from fhir_server.search.age import age_condition
from fhir_server.search.blind import BlindIndex
from fhir_server.search.composite_conditions import composite_condition
from fhir_server.search.conditions import (
    AnyPosting,
    Chained,
    Condition,
    FullText,
    InList,
    InValueSet,
    Keys,
    LastUpdated,
    Near,
    Nothing,
    Present,
    ReferenceTree,
    ReverseChained,
    SearchRequest,
    Selection,
)
from fhir_server.search.filters import parse_filter
from fhir_server.search.full_text import text_query
from fhir_server.search.hashing import resource_key
from fhir_server.search.modifiers import check_modifier, refuse, shown
from fhir_server.search.parameters import Parameter, r4_parameters, registry, resource_types, type_parameters
from fhir_server.search.ranges import date_condition, dates, number_condition, quantity_condition
from fhir_server.search.references import (
    CANONICAL,
    LITERAL,
    asked_references,
    leads_to_patient,
    part_of,
    reference_condition,
)
from fhir_server.search.strings import hierarchy_condition, string_condition, uri_condition
from fhir_server.search.text import parse_date, split, unescape
from fhir_server.search.tokens import any_of, is_bare, token_condition
from fhir_server.settings import FhirSettings
from foramen.kernel.errors import ForbiddenError, InvalidRequestError

if TYPE_CHECKING:
    from fhir_server.access.policy import Access  # which parses the queries of granular scopes

_MAX_BRANCHES = 2000
"""Most parameters one request may come to when its chains run through references without a named type."""
_KM_PER_MILE = 1.609344


class UnknownParameterError(InvalidRequestError):
    """No such search parameter; lenient handling turns it into a warning."""

    issue_code = "not-supported"


@dataclass(frozen=True, slots=True)
class Name:
    """A parameter's name, taken apart: ``code:modifier.rest``."""

    code: str
    modifier: str | None
    rest: str | None


def parse_name(text: str) -> Name:
    """Take a parameter's name apart."""
    head, dot, rest = text.partition(".")
    code, _, modifier = head.partition(":")
    return Name(code, modifier or None, rest if dot else None)


class SearchParser:
    """Parses searches of one caller: chained selections carry that caller's compartment."""

    def __init__(self, settings: FhirSettings, own_url: str, access: Access) -> None:
        self._settings = settings
        self._own_url = own_url
        self._access = access
        self._branches = 0

    def parse(
        self, resource_type: str, pairs: list[tuple[str, str]], *, strict: bool, action: str = "s"
    ) -> SearchRequest:
        """Parse all parameters of a search on one type.

        Raises
        ------
        InvalidRequestError
            A bad value or modifier, too many, or (strict) an unknown parameter.
        ForbiddenError
            The caller may not search this type, or one that a chain leads to.
        """
        if len(pairs) > self._settings.max_parameters:
            raise InvalidRequestError("The search has too many parameters", issue_code="too-costly")
        request = SearchRequest(
            Selection(resource_type), count=self._settings.page_size, most_sorted=self._settings.max_sorted_by_content
        )
        conditions: list[Condition] = []
        for name, value in pairs:
            if "\x00" in name or "\x00" in value:
                raise InvalidRequestError("A parameter holds a NUL character", issue_code="value")
            try:
                if not result_parameters.apply(name, value, request, self._settings):
                    conditions.append(self.condition(resource_type, name, value))
                    request.echo.append((name, value))
            except UnknownParameterError:
                if strict:
                    raise
                request.unknown.append(name)
        request.selection = self.selection(resource_type, conditions, action)
        return request

    def selection(self, resource_type: str, conditions: list[Condition], action: str = "s") -> Selection:
        """Return a selection under the caller's access.

        Raises
        ------
        ForbiddenError
            The caller may not do this with the type.
        """
        allowed = self._access.condition(resource_type, action)
        return Selection(resource_type, (*conditions, *((allowed,) if allowed else ())))

    def condition(self, resource_type: str, name: str, value: str, depth: int = 0) -> Condition:
        """Parse one parameter, chains and `_has` included.

        Raises
        ------
        UnknownParameterError
            The type has no such parameter.
        InvalidRequestError
            A bad value or modifier, or a chain that is too long.
        """
        self._branches += 1
        if depth > self._settings.max_chain_depth:
            raise InvalidRequestError("The chain is too long", issue_code="too-costly")
        if self._branches > _MAX_BRANCHES:
            raise InvalidRequestError("The chain has too many branches; name the types", issue_code="too-costly")
        if name.startswith("_has:"):
            return self._has(resource_type, name, value, depth)
        parts = parse_name(name)
        special = self._special(resource_type, parts, value)
        if special is not None:
            return special
        parameter = type_parameters(resource_type).parameters.get(parts.code)
        if parameter is None:
            raise UnknownParameterError(
                f"{resource_type} has no search parameter {shown(parts.code)}", expression=(f"http.{shown(name)}",)
            )
        if parts.rest is not None:
            return self._chain(parameter, parts, value, depth)
        check_modifier(parameter, parts.modifier)
        if parts.modifier == "missing":
            return _missing(parameter, value)
        values = self.values(name, value)
        if parameter.is_custom or parts.modifier in _LOOKED_UP or "ap" in value or len(value) > _SHORT:
            return self.typed(parameter, parts.modifier, values)
        return _plain(resource_type, parts.code, parts.modifier, tuple(values), self._own_url, registry().blind)

    def values(self, name: str, value: str) -> list[str]:
        """Split the alternatives of a value.

        Raises
        ------
        InvalidRequestError
            Too many, or an empty one.
        """
        if value.count(",") >= self._settings.max_values and "\\" not in value:
            raise InvalidRequestError(f"{shown(name)} has too many values", issue_code="too-costly")
        values = split(value, ",")
        if len(values) > self._settings.max_values:
            raise InvalidRequestError(f"{shown(name)} has too many values", issue_code="too-costly")
        if "" in values:
            raise InvalidRequestError(
                f"{shown(name)} has an empty value", issue_code="value", expression=(f"http.{shown(name)}",)
            )
        return values

    def typed(self, parameter: Parameter, modifier: str | None, values: list[str]) -> Condition:
        """Return the condition of a parameter of the table."""
        if parameter.kind == "token" and modifier in ("in", "not-in"):
            return any_of([self._in_value_set(parameter, modifier, unescape(value)) for value in values])
        if parameter.kind == "reference" and modifier in ("above", "below"):
            return any_of([self._hierarchy(parameter, modifier, unescape(value)) for value in values])
        return _typed(parameter, modifier, values, self._own_url)

    # Parameters of every type that no table holds

    def _special(self, resource_type: str, parts: Name, value: str) -> Condition | None:
        code = parts.code
        if code not in _SPECIAL and (resource_type, code) not in _COMPUTED:
            return None
        if parts.rest is not None:
            raise InvalidRequestError(f"{code} is not a reference and cannot be chained", issue_code="value")
        if code == "_query":
            raise InvalidRequestError("Named queries (_query) are not supported", issue_code="not-supported")
        if parts.modifier is not None and (code, parts.modifier) not in (("_id", "not"), ("_lastUpdated", "missing")):
            raise refuse(code, parts.modifier)
        match code:
            case "_id":
                return self._ids(resource_type, parts, value)
            case "_lastUpdated" if parts.modifier is None:
                return LastUpdated(tuple(parse_date(code, item) for item in self.values(code, value)))
            case "_lastUpdated":
                return Keys((), negated=_boolean("_lastUpdated:missing", value) is False)
            case "_type":
                return self._types(resource_type, value)
            case "_list":
                return self._list(resource_type, value)
            case "_filter":
                return self._filter(resource_type, value)
            case "age":
                today = datetime.now(UTC).date()
                return any_of([age_condition(item, today) for item in self.values(code, value)])
            case "near":
                return any_of([_near(item) for item in self.values(code, value)])
        if not self._settings.full_text:
            raise InvalidRequestError(
                f"{code} cannot be searched: the full-text index is switched off", issue_code="not-supported"
            )
        field = "narrative" if code == "_text" else "content"
        return any_of([FullText(field, text_query(code, unescape(item))) for item in self.values(code, value)])

    def _ids(self, resource_type: str, parts: Name, value: str) -> Condition:
        names = [item.removeprefix(f"{resource_type}/") for item in self.values("_id", value)]
        return Keys(tuple(resource_key(resource_type, item) for item in names), parts.modifier == "not")

    def _types(self, resource_type: str, value: str) -> Condition:
        names = self.values("_type", value)
        if not resource_types().issuperset(names):
            raise InvalidRequestError("_type names an unknown resource type", issue_code="value")
        return Keys((), negated=True) if resource_type in names else Nothing()

    def _list(self, resource_type: str, value: str) -> Condition:
        if value.startswith("$"):
            raise InvalidRequestError("Functional lists ($current-…) are not supported", issue_code="not-supported")
        logical_id = value.removeprefix("List/")
        if not LOGICAL_ID.fullmatch(logical_id):
            raise InvalidRequestError("_list needs the id of a List", issue_code="value")
        key = Keys((resource_key("List", logical_id),))
        return InList(resource_type, self.selection("List", [key], "r"))

    def _filter(self, resource_type: str, value: str) -> Condition:
        if len(value) > self._settings.max_filter_length:
            raise InvalidRequestError("_filter is too long", issue_code="too-costly")
        tree = parse_filter(value, self._settings.max_filter_depth)
        return filter_conditions.condition_of(tree, resource_type, self)

    # What needs the terminology or other resources first

    def _in_value_set(self, parameter: Parameter, modifier: str, value: str) -> Condition:
        found: str | Selection = value
        logical_id = value.removeprefix("ValueSet/")
        if ":" not in value and LOGICAL_ID.fullmatch(logical_id):
            found = self.selection("ValueSet", [Keys((resource_key("ValueSet", logical_id),))], "r")
        negated = modifier == "not-in"
        return InValueSet(parameter.bases(), found, negated, is_bare(parameter), f"{parameter.code}:{modifier}")

    def _hierarchy(self, parameter: Parameter, modifier: str, value: str) -> Condition:
        if parameter.data_types.isdisjoint(LITERAL) or ("|" in value and ":" in value):
            return hierarchy_condition(parameter, modifier, [value])
        references = [
            item
            for item in asked_references(parameter, None, value, self._own_url)
            if item.partition("/")[0] in resource_types() and part_of(item.partition("/")[0]) is not None
        ]
        if len(references) != 1:
            raise InvalidRequestError(
                f"{parameter.code}:{modifier} needs Type/id of a type with a hierarchy", issue_code="value"
            )
        target, _, logical_id = references[0].partition("/")
        root = self.selection(target, [Keys((resource_key(target, logical_id),))])
        return ReferenceTree(parameter.bases(), root, modifier == "above")

    # Chains

    def _chain(self, parameter: Parameter, parts: Name, value: str, depth: int) -> Condition:
        if parameter.kind != "reference" or parts.rest is None:
            raise InvalidRequestError(f"{parameter.code} is not a reference and cannot be chained", issue_code="value")
        if parts.modifier is not None and parts.modifier not in resource_types():
            raise InvalidRequestError("The chain names an unknown resource type", issue_code="value")
        targets = (parts.modifier,) if parts.modifier else parameter.targets or tuple(sorted(resource_types()))
        selections, known, refusal = [], False, None
        for target in targets:
            try:
                inner = self.condition(target, parts.rest, value, depth + 1)
            except UnknownParameterError:
                continue
            known = True
            try:
                selections.append(self.selection(target, [inner]))
            except ForbiddenError as exc:
                refusal = exc
        if not known:
            raise UnknownParameterError(
                f"No target of {parameter.code} has the chained parameter", expression=(f"http.{parameter.code}",)
            )
        if not selections and refusal is not None:
            raise refusal
        return self._links(parameter, tuple(selections))

    def _links(self, parameter: Parameter, targets: tuple[Selection, ...]) -> Condition:
        """Return the chain by literal references, by canonical URLs, or by both, as the elements are typed."""
        by_patient = leads_to_patient(parameter) and {target.resource_type for target in targets} == {"Patient"}
        found: list[Condition] = []
        if not parameter.data_types or not parameter.data_types.isdisjoint(LITERAL):
            found.append(Chained(parameter.bases(), targets, by_patient, code=parameter.code, own_url=self._own_url))
        if not parameter.data_types.isdisjoint(CANONICAL):
            named = tuple(item for item in targets if "url" in type_parameters(item.resource_type).parameters)
            if named or not found:
                found.append(Chained(parameter.bases(), named, canonical=True))
        return any_of(found)

    def _has(self, resource_type: str, name: str, value: str, depth: int) -> Condition:
        match = re.fullmatch(r"_has:([A-Z][A-Za-z]+):([A-Za-z0-9_-]+):(.+)", name)
        if match is None or match.group(1) not in resource_types():
            raise InvalidRequestError("_has needs the form _has:Type:reference:parameter", issue_code="value")
        source, code, rest = match.groups()
        parameter = type_parameters(source).parameters.get(code)
        if parameter is None or parameter.kind != "reference":
            raise UnknownParameterError(f"{source} has no reference parameter {shown(code)}")
        if parameter.targets and resource_type not in parameter.targets:
            raise InvalidRequestError(f"{source}.{code} never refers to {resource_type}", issue_code="value")
        inner = self.selection(source, [self.condition(source, rest, value, depth + 1)])
        by_patient = resource_type == "Patient" and leads_to_patient(parameter)
        chained = ReverseChained(parameter.bases(), inner, resource_type, by_patient, code=code, own_url=self._own_url)
        found: list[Condition] = []
        if not parameter.data_types or not parameter.data_types.isdisjoint(LITERAL):
            found.append(chained)
        if not parameter.data_types.isdisjoint(CANONICAL) and "url" in type_parameters(resource_type).parameters:
            found.append(replace(chained, by_patient=False, canonical=True))
        return any_of(found) if found else Nothing()


_SPECIAL = frozenset({"_id", "_lastUpdated", "_type", "_list", "_filter", "_query", "_text", "_content"})

_COMPUTED = frozenset({("Location", "near"), ("Patient", "age")})


_LOOKED_UP = frozenset({"in", "not-in", "above", "below"})
"""Modifiers whose conditions hold selections under the caller's access."""


_SHORT = 100
"""Characters of a value whose condition is kept."""


@lru_cache(maxsize=8192)
def _plain(
    resource_type: str, code: str, modifier: str | None, values: tuple[str, ...], own_url: str, _: BlindIndex | None
) -> Condition:
    """Return the condition of a parameter of R4 that depends on nothing but its values; the same are asked often.

    And on what hides national identifiers: another key or list of systems has conditions of its own.
    """
    return _typed(r4_parameters(resource_type).parameters[code], modifier, list(values), own_url)


def _typed(parameter: Parameter, modifier: str | None, values: list[str], own_url: str) -> Condition:
    match parameter.kind:
        case "token":
            return token_condition(parameter, modifier, values)
        case "string":
            return string_condition(parameter, modifier, values)
        case "reference":
            return reference_condition(parameter, modifier, values, own_url)
        case "uri":
            return uri_condition(parameter, modifier, values)
        case "date":
            return date_condition(parameter, dates(parameter, values))
        case "number":
            return number_condition(parameter, values)
        case "quantity":
            return quantity_condition(parameter, values)
        case "composite":
            return composite_condition(parameter, values, own_url)
    raise UnknownParameterError(f"{shown(parameter.code)} is of a kind that cannot be searched")


def _boolean(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise InvalidRequestError(f"{name} needs true or false", issue_code="value", expression=(f"http.{name}",))
    return value == "true"


def _missing(parameter: Parameter, value: str) -> Condition:
    wanted = not _boolean(f"{parameter.code}:missing", value)
    if parameter.is_custom:
        return AnyPosting((parameter.presence(),), negated=not wanted)
    return Present(1 << parameter.bit, wanted)


def _near(value: str) -> Condition:
    """Parse ``latitude|longitude[|distance[|unit]]``; without a distance, 50 km."""
    parts = split(value, "|")
    units = {"km": 1.0, "m": 0.001, "[mi_us]": _KM_PER_MILE, "[mi_i]": _KM_PER_MILE, "mi": _KM_PER_MILE}
    try:
        numbers = [float(part) for part in parts[:3] if part]
    except ValueError:
        numbers = []
    unit = units.get(parts[3] if len(parts) > 3 and parts[3] else "km")
    if len(parts) > 4 or len(numbers) not in (2, 3) or "" in parts[:2] or unit is None:
        raise InvalidRequestError("near needs latitude|longitude|distance|unit (km, m, [mi_us])", issue_code="value")
    latitude, longitude, distance = (*numbers, 50.0)[:3]
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180 and 0 <= distance * unit <= 25_000):
        raise InvalidRequestError("near has a latitude, longitude or distance out of range", issue_code="value")
    return Near(latitude, longitude, distance * unit)


__all__ = ["Name", "SearchParser", "UnknownParameterError", "parse_name"]
