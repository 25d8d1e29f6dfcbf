"""Parse a FHIR search into conditions; a parameter that is not known is refused or reported, never guessed.

https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeGuard

from fhir_server.access.compartments import patient_compartment
from fhir_server.access.policy import Access
from fhir_server.model.references import LOGICAL_ID, normalise_reference, parse_reference
from fhir_server.search import result_parameters
from fhir_server.search.composites import group_base, rotate
from fhir_server.search.conditions import (
    AnyOf,
    AnyPosting,
    Chained,
    Condition,
    Keys,
    LastUpdated,
    MainDate,
    Nothing,
    Present,
    Range,
    RangeValues,
    ReverseChained,
    SearchRequest,
    Selection,
    StringValues,
)
from fhir_server.search.hashing import hash64, resource_key
from fhir_server.search.parameters import Parameter, patient_code_base, resource_types, type_parameters
from fhir_server.search.text import parse_date, parse_number, split, unescape
from fhir_server.search.values import (
    exact_hash,
    identifier_hash,
    normalise,
    of_type_hash,
    token_hashes,
)
from fhir_server.settings import FhirSettings
from foramen.kernel.errors import ForbiddenError, InvalidRequestError

_MODIFIERS = {
    "token": {"not", "missing", "of-type"},
    "string": {"exact", "contains", "missing"},
    "reference": {"identifier", "missing"},
    "uri": {"missing"},
    "date": {"missing"},
    "number": {"missing"},
    "quantity": {"missing"},
    "composite": set[str](),
}
_MAX_CHAIN = 5


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
        request = SearchRequest(Selection(resource_type), count=self._settings.page_size)
        named: list[tuple[str, str, Condition]] = []
        for name, value in pairs:
            if "\x00" in name or "\x00" in value:
                raise InvalidRequestError("A parameter holds a NUL character", issue_code="value")
            try:
                if not result_parameters.apply(name, value, request, self._settings):
                    named.append((name, value, self.condition(resource_type, name, value)))
                    request.echo.append((name, value))
            except UnknownParameterError:
                if strict:
                    raise
                request.unknown.append(name)
        request.selection = self._selection(resource_type, _patient_code(resource_type, named), action)
        return request

    def _selection(self, resource_type: str, conditions: list[Condition], action: str = "s") -> Selection:
        allowed = self._access.condition(resource_type, action)
        return Selection(resource_type, (*conditions, *((allowed,) if allowed else ())))

    def condition(self, resource_type: str, name: str, value: str, depth: int = 0) -> Condition:
        """Parse one parameter."""
        if depth > _MAX_CHAIN:
            raise InvalidRequestError("The chain is too long", issue_code="too-costly")
        if name.startswith("_has:"):
            return self._has(name, value, depth)
        parts = parse_name(name)
        if parts.code == "_id":
            return self._ids(resource_type, parts, value)
        if parts.code == "_lastUpdated" and parts.modifier is None:
            return LastUpdated(tuple(parse_date(name, item) for item in self._values(name, value)))
        parameter = type_parameters(resource_type).parameters.get(parts.code)
        if parameter is None:
            raise UnknownParameterError(f"{resource_type} has no search parameter {_shown(parts.code)}")
        if parts.rest is not None:
            return self._chain(parameter, parts, value, depth)
        if parts.modifier == "missing":
            return _missing(parameter, value)
        allowed = _MODIFIERS[parameter.kind]
        names_type = parameter.kind == "reference" and parts.modifier in resource_types()
        if parts.modifier is not None and parts.modifier not in allowed and not names_type:
            raise InvalidRequestError(
                f"{parameter.code} does not support the modifier :{_shown(parts.modifier)}",
                issue_code="not-supported",
            )
        return self._typed(parameter, parts.modifier, self._values(name, value))

    def _values(self, name: str, value: str) -> list[str]:
        values = split(value, ",")
        if len(values) > self._settings.max_values:
            raise InvalidRequestError(f"{_shown(name)} has too many values", issue_code="too-costly")
        if "" in values:
            raise InvalidRequestError(f"{_shown(name)} has an empty value", issue_code="value")
        return values

    def _ids(self, resource_type: str, parts: Name, value: str) -> Condition:
        if parts.modifier not in (None, "not") or parts.rest is not None:
            raise InvalidRequestError("_id does not support this modifier", issue_code="not-supported")
        names = [item.removeprefix(f"{resource_type}/") for item in self._values("_id", value)]
        return Keys(tuple(resource_key(resource_type, item) for item in names), parts.modifier == "not")

    def _typed(self, parameter: Parameter, modifier: str | None, values: list[str]) -> Condition:
        match parameter.kind:
            case "token":
                return _token(parameter, modifier, values)
            case "string":
                return _string(parameter, modifier, values)
            case "reference":
                return self._reference(parameter, modifier, values)
            case "uri":
                hashes = [hash64(unescape(value)) for value in values]
                return AnyPosting(tuple(base ^ value for base in parameter.bases() for value in hashes))
            case "date":
                return _date(parameter, [parse_date(parameter.code, value) for value in values])
            case "number":
                ranges = [parse_number(parameter.code, value) for value in values]
                return RangeValues("number_value", tuple((parameter.bases(), found) for found in ranges))
            case "quantity":
                return RangeValues("number_value", tuple(_quantity(parameter, value) for value in values))
        return self._composite(parameter, values)

    def _reference(self, parameter: Parameter, modifier: str | None, values: list[str]) -> Condition:
        hashes: list[int] = []
        for value in map(unescape, values):
            if modifier == "identifier":
                hashes += [identifier_hash(found) for found in _token_variants(value, exact=True)]
            else:
                hashes += self._reference_hashes(parameter, modifier, value)
        if not hashes:
            return Nothing()
        return AnyPosting(tuple(base ^ found for base in parameter.bases() for found in hashes))

    def _reference_hashes(self, parameter: Parameter, modifier: str | None, value: str) -> list[int]:
        if "Reference" not in parameter.data_types and "Resource" not in parameter.data_types:
            return [hash64(normalise_reference(value, self._own_url))]
        parsed = parse_reference(value, self._own_url)
        if parsed is not None:
            allowed = (modifier,) if modifier else parameter.targets
            return [hash64(f"{parsed[0]}/{parsed[1]}")] if not allowed or parsed[0] in allowed else []
        if LOGICAL_ID.fullmatch(value):
            targets = (modifier,) if modifier else parameter.targets or tuple(sorted(resource_types()))
            return [hash64(f"{target}/{value}") for target in targets]
        return [hash64(value)]

    def _composite(self, parameter: Parameter, values: list[str]) -> Condition:
        alternatives: list[Condition] = []
        for value in values:
            texts = split(value, "$")
            if len(texts) != len(parameter.part_kinds):
                raise InvalidRequestError(f"{parameter.code} needs parts joined by $", issue_code="value")
            for group in parameter.groups:
                heads = [group_base(parameter.resource_type, group)]
                for kind, text, leaves in zip(parameter.part_kinds[:-1], texts[:-1], group.parts[:-1], strict=True):
                    found = self._part_hashes(parameter, kind, text, leaves)
                    heads = [rotate(head) ^ item for head in heads for item in found]
                last = tuple(rotate(head) for head in heads)
                alternatives.append(
                    self._last_part(parameter, parameter.part_kinds[-1], texts[-1], last, group.parts[-1])
                )
        return alternatives[0] if len(alternatives) == 1 else AnyOf(tuple(alternatives))

    def _part_hashes(
        self, parameter: Parameter, kind: str, text: str, leaves: tuple[tuple[str, str], ...]
    ) -> list[int]:
        if kind == "token":
            return _token_variants(unescape(text), exact=any(name == "Identifier" for _, name in leaves))
        if kind == "reference":
            return [hash64(normalise_reference(unescape(text), self._own_url))]
        if kind == "string":
            return [exact_hash(unescape(text))]
        return [hash64(unescape(text))]

    def _last_part(
        self,
        parameter: Parameter,
        kind: str,
        text: str,
        heads: tuple[int, ...],
        leaves: tuple[tuple[str, str], ...],
    ) -> Condition:
        if kind == "date":
            return RangeValues("date_value", ((heads, parse_date(parameter.code, text)),))
        if kind == "number":
            return RangeValues("number_value", ((heads, parse_number(parameter.code, text)),))
        if kind == "quantity":
            unit, found = _quantity_value(parameter.code, text)
            return RangeValues("number_value", ((tuple(head ^ unit for head in heads), found),))
        if kind == "string":
            return StringValues(heads, (normalise(unescape(text)),))
        hashes = self._part_hashes(parameter, kind, text, leaves)
        return AnyPosting(tuple(head ^ item for head in heads for item in hashes))

    def _chain(self, parameter: Parameter, parts: Name, value: str, depth: int) -> Condition:
        if parameter.kind != "reference" or parts.rest is None:
            raise InvalidRequestError(f"{parameter.code} is not a reference and cannot be chained", issue_code="value")
        targets = (parts.modifier,) if parts.modifier else parameter.targets or tuple(sorted(resource_types()))
        if parts.modifier is not None and parts.modifier not in resource_types():
            raise InvalidRequestError("The chain names an unknown resource type", issue_code="value")
        selections, known, refusal = [], False, None
        for target in targets:
            try:
                inner = self.condition(target, parts.rest, value, depth + 1)
            except UnknownParameterError:
                continue
            known = True
            try:
                selections.append(self._selection(target, [inner]))
            except ForbiddenError as exc:
                refusal = exc
        if not known:
            raise UnknownParameterError(f"No target of {parameter.code} has the chained parameter")
        if not selections and refusal is not None:
            raise refusal
        return Chained(parameter.bases(), tuple(selections))

    def _has(self, name: str, value: str, depth: int) -> Condition:
        match = re.fullmatch(r"_has:([A-Z][A-Za-z]+):([A-Za-z-]+):(.+)", name)
        if match is None or match.group(1) not in resource_types():
            raise InvalidRequestError("_has needs the form _has:Type:reference:parameter", issue_code="value")
        source, code, rest = match.groups()
        parameter = type_parameters(source).parameters.get(code)
        if parameter is None or parameter.kind != "reference":
            raise UnknownParameterError(f"{source} has no reference parameter {_shown(code)}")
        inner = self.condition(source, rest, value, depth + 1)
        return ReverseChained(parameter.bases(), self._selection(source, [inner]))


def _shown(name: str) -> str:
    """Name of a parameter for a message: letters only, so that no value can slip in."""
    return re.sub(r"[^A-Za-z0-9_:.-]", "", name)[:60]


def _missing(parameter: Parameter, value: str) -> Condition:
    if value not in ("true", "false"):
        raise InvalidRequestError(f"{parameter.code}:missing needs true or false", issue_code="value")
    return Present(1 << parameter.bit, value == "false")


def _token_variants(text: str, *, exact: bool, folded: bool = False) -> list[int]:
    """Hashes that one token value asks for: code, system|code, |code or system|."""
    system, bar, code = text.rpartition("|") if "|" in text else ("", "", text)
    if bar and not code:
        return [hash64(system + "|")]
    kinds = ([True] if exact else []) + ([False] if folded or not exact else [])
    hashes = []
    for kind in kinds:
        plain, qualified = token_hashes(system or None, code, exact=kind)[:2]
        hashes.append(qualified if bar else plain)
    return hashes


def _token(parameter: Parameter, modifier: str | None, values: list[str]) -> Condition:
    exact = "Identifier" in parameter.data_types
    hashes: list[int] = []
    for value in values:
        parts = [unescape(part) for part in split(value, "|")]
        if modifier == "of-type":
            if len(parts) != 3:
                raise InvalidRequestError(f"{parameter.code}:of-type needs system|code|value", issue_code="value")
            hashes.append(of_type_hash(*parts))
            continue
        if len(parts) > 2:
            raise InvalidRequestError(f"{parameter.code} needs system|code", issue_code="value")
        text = "|".join(parts)
        hashes += _token_variants(text, exact=exact, folded=bool(parameter.data_types - {"Identifier"}))
        if len(parts) == 2 and parts[1] and parameter.data_types & {"code", "boolean", "id", "string"}:
            # The element holds a bare code: its system is implied by its binding.
            hashes += _token_variants(parts[1], exact=False)
    if any(path.endswith("#true") for path in parameter.paths):
        return _existence(parameter, values, modifier)
    return AnyPosting(tuple(base ^ value for base in parameter.bases() for value in hashes), modifier == "not")


def _existence(parameter: Parameter, values: list[str], modifier: str | None) -> Condition:
    """`Patient.deceased`: false is what no element says."""
    if len(values) != 1 or values[0] not in ("true", "false"):
        raise InvalidRequestError(f"{parameter.code} needs true or false", issue_code="value")
    yes = token_hashes(None, "true")[0]
    negated = (values[0] == "false") != (modifier == "not")
    return AnyPosting(tuple(base ^ yes for base in parameter.bases()), negated)


def _string(parameter: Parameter, modifier: str | None, values: list[str]) -> Condition:
    texts = [unescape(value) for value in values]
    if modifier == "exact":
        return AnyPosting(tuple(base ^ exact_hash(text) for base in parameter.bases() for text in texts))
    return StringValues(parameter.bases(), tuple(normalise(text) for text in texts), modifier == "contains")


def _date(parameter: Parameter, ranges: list[Range]) -> Condition:
    main = type_parameters(parameter.resource_type).main_date
    if main is not None and main.paths == parameter.paths:
        return MainDate(tuple(ranges))
    return RangeValues("date_value", tuple((parameter.bases(), found) for found in ranges))


def _quantity_value(code: str, text: str) -> tuple[int, Range]:
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) not in (1, 3):
        raise InvalidRequestError(f"{code} needs number or number|system|code", issue_code="value")
    found = parse_number(code, parts[0])
    if len(parts) == 1 or not parts[2]:
        return 0, found
    return hash64(f"{parts[1]}|{parts[2]}"), found


def _quantity(parameter: Parameter, text: str) -> tuple[tuple[int, ...], Range]:
    unit, found = _quantity_value(parameter.code, text)
    return tuple(base ^ unit for base in parameter.bases()), found


def _patient_code(resource_type: str, named: list[tuple[str, str, Condition]]) -> list[Condition]:
    """Answer "this patient, this code" from the index made for that pair; the patient stays as a second check.

    The pair is indexed by compartment, which may be wider than the parameter that was asked. A posting is path XOR
    value, so the value's hash comes out again by XOR with the path.
    """
    conditions = [condition for _, _, condition in named]
    parameters = type_parameters(resource_type).parameters
    code, patient = parameters.get("code"), parameters.get("patient")
    if code is None or patient is None or code.kind != "token" or not patient_compartment().get(resource_type):
        return conditions
    if len(code.paths) != 1 or len(patient.paths) != 1:
        return conditions
    codes = [
        (place, condition.hashes[0])
        for place, (name, value, condition) in enumerate(named)
        if name == "code" and not value.endswith("|") and _is_single(condition)
    ]
    patients = [condition.hashes[0] for name, _, condition in named if name == "patient" and _is_single(condition)]
    if not codes or not patients:
        return conditions
    place, code_hash = codes[0]
    pair = patient_code_base(resource_type) ^ patients[0] ^ patient.bases()[0] ^ code_hash ^ code.bases()[0]
    del conditions[place]
    return [AnyPosting((pair,)), *conditions]


def _is_single(condition: Condition) -> TypeGuard[AnyPosting]:
    return isinstance(condition, AnyPosting) and len(condition.hashes) == 1 and not condition.negated
