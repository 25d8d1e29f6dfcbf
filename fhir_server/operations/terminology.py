"""The terminology operations: `$lookup`, `$validate-code`, `$subsumes`, `$expand`, `$translate`.

https://hl7.org/fhir/R4/terminology-service.html. What is not known here is an error, never "not valid".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any

import orjson
from starlette.responses import Response

from fhir_server.interactions.read import visible
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.model.validation import check_limits, validate
from fhir_server.operations import terminology_answers as answers
from fhir_server.operations.parameters import Parameters, parameters_of, parameters_response
from fhir_server.route import Handler, Route
from fhir_server.server import Call
from fhir_server.terminology_source import shown_to
from foramen.kernel.errors import InvalidRequestError, NotFoundError
from terminology.model import Validation
from terminology.service import EXPANSION_PARAMETERS

_LANGUAGE = ("displayLanguage",)
_CODE = ("code", "system", "version", "coding")
_LOOKUP = (*_CODE, *_LANGUAGE, "property")
_VALIDATE = (*_CODE, *_LANGUAGE, "url", "codeableConcept", "display", "abstract")
_VALIDATE_SYSTEM = (*_VALIDATE, "codeSystem")
_VALIDATE_SET = (*_VALIDATE, "valueSet", "valueSetVersion", "systemVersion")
_SUBSUMES = ("codeA", "codeB", "codingA", "codingB", "system", "version")
_TRANSLATE = (
    *("url", "conceptMap", "conceptMapVersion", *_CODE, "codeableConcept"),
    *("source", "target", "targetsystem", "reverse"),
)
_MAX_CODINGS = 50


@dataclass(frozen=True, slots=True)
class _Code:
    """A code a client asks about."""

    system: str | None
    code: str
    version: str | None = None
    display: str | None = None


async def lookup(call: Call) -> Response:
    """Return what is known about a code."""
    parameters = await parameters_of(call)
    parameters.check_known(_LOOKUP)
    asked = _single(parameters)
    if asked.system is None:
        raise _missing("system")
    wanted = parameters.texts("property")
    found = await call.server.terminology.lookup(asked.system, asked.code, asked.version)
    return parameters_response(answers.lookup_parts(found, parameters.text("displayLanguage"), wanted))


async def validate_code_system(call: Call) -> Response:
    """Say whether a code is in a code system."""
    parameters = await parameters_of(call, single="codeSystem")
    parameters.check_known(_VALIDATE_SYSTEM)
    resource = await _given(call, parameters, "codeSystem")
    url = parameters.text("url") or parameters.text("system")
    found = []
    for asked in _codes(parameters):
        if resource is not None and asked.system not in (None, resource.get("url")):
            found.append(Validation(False, "The code is of another code system", system=asked.system))
            continue
        if url is not None and asked.system not in (None, url):
            found.append(Validation(False, "The code is of another code system", system=asked.system))
            continue
        found.append(
            await call.server.terminology.validate_code(
                value_set=None,
                system=asked.system or url,
                code=asked.code,
                display=asked.display,
                version=asked.version,
                resource=resource,
            )
        )
    return _validated(found)


async def validate_value_set(call: Call) -> Response:
    """Say whether a code is in a value set."""
    parameters = await parameters_of(call, single="valueSet")
    parameters.check_known(_VALIDATE_SET)
    resource = await _given(call, parameters, "valueSet")
    url = _canonical(parameters, "valueSetVersion")
    if resource is None and url is None:
        raise _missing("url")
    version = parameters.text("systemVersion")
    found = [
        await call.server.terminology.validate_code(
            value_set=url,
            system=asked.system,
            code=asked.code,
            display=asked.display,
            version=asked.version or version,
            resource=resource,
        )
        for asked in _codes(parameters)
    ]
    return _validated(found)


def _validated(found: list[Validation]) -> Response:
    """Answer for a CodeableConcept as a whole: one valid coding is enough, an unknown one matters only without it."""
    best = next((item for item in found if item.result), None)
    unknown = next((item for item in found if item.result is None), None)
    if best is None and unknown is not None:
        raise NotFoundError(unknown.message)
    return parameters_response(answers.validation_parts(best or found[0]))


async def subsumes(call: Call) -> Response:
    """Compare two codes of a code system."""
    parameters = await parameters_of(call, single="codeSystem")
    parameters.check_known(_SUBSUMES)
    resource = await _stored(call)
    first, second = _pair(parameters, "A"), _pair(parameters, "B")
    system = parameters.text("system") or first.system or second.system or (resource or {}).get("url")
    if system is None:
        raise _missing("system")
    if any(item.system not in (None, system) for item in (first, second)) or (
        resource is not None and resource.get("url") != system
    ):
        raise InvalidRequestError("The two codes must be of the same code system", issue_code="value")
    version = parameters.text("version") or first.version or second.version
    outcome = await call.server.terminology.subsumes(system, first.code, second.code, version, resource)
    return parameters_response([{"name": "outcome", "valueCode": outcome}])


async def expand(call: Call) -> Response:
    """List the codes of a value set."""
    parameters = await parameters_of(call, single="valueSet")
    parameters.check_known(EXPANSION_PARAMETERS)
    resource = await _given(call, parameters, "valueSet")
    url = _canonical(parameters, "valueSetVersion")
    if resource is None and url is None:
        raise _missing("url")
    for flag in ("excludeNested", "excludeNotForUI", "excludePostCoordinated"):
        parameters.boolean(flag)  # The answer is flat and without post-coordinated codes either way.
    found = await call.server.terminology.expand(
        url,
        resource=resource,
        filter=_filter(parameters),
        count=parameters.integer("count"),
        offset=parameters.integer("offset") or 0,
        active_only=parameters.boolean("activeOnly"),
        designations=parameters.boolean("includeDesignations"),
        language=parameters.text("displayLanguage"),
    )
    asked = [(item.name, item.value) for item in parameters if item.name in answers.ECHOED]
    body = answers.expansion(found, asked, definition=parameters.boolean("includeDefinition"))
    return Response(orjson.dumps(body), media_type=MEDIA_TYPE)


async def translate(call: Call) -> Response:
    """Find what concept maps give for a code."""
    parameters = await parameters_of(call, single="conceptMap")
    parameters.check_known(_TRANSLATE)
    resource = await _given(call, parameters, "conceptMap")
    url = _canonical(parameters, "conceptMapVersion")
    translations = []
    for asked in _codes(parameters):
        if asked.system is None:
            raise _missing("system")
        translations.append(
            await call.server.terminology.translate(
                system=asked.system,
                code=asked.code,
                url=url,
                resource=resource,
                target_system=parameters.text("targetsystem"),
                source=parameters.text("source"),
                target=parameters.text("target"),
                reverse=parameters.boolean("reverse"),
            )
        )
    return parameters_response(answers.translation_parts(translations))


def _filter(parameters: Parameters) -> str:
    """Return the text to filter by; forms send it empty before anything is typed."""
    item = parameters.one("filter")
    return "" if item is None or item.value == "" else parameters.required_text("filter")


def _missing(name: str) -> InvalidRequestError:
    where = f"Parameters.parameter.where(name='{name}')"
    return InvalidRequestError(f"{name} is required", issue_code="required", expression=(where,))


def _canonical(parameters: Parameters, version: str) -> str | None:
    url, number = parameters.text("url"), parameters.text(version)
    return f"{url}|{number}" if url and number and "|" not in url else url


async def _given(call: Call, parameters: Parameters, name: str) -> dict[str, Any] | None:
    """Return the resource the operation is about: of the URL's instance, or sent along."""
    sent = parameters.resource(name)
    stored = await _stored(call)
    if sent is None:
        return stored
    if stored is not None:
        raise InvalidRequestError(f"{name} cannot be sent to an instance", issue_code="invalid")
    if sent.resource_type != call.resource_type:
        raise InvalidRequestError(f"{name} must be a {call.resource_type}", issue_code="value")
    check_limits(sent, call.server.limits)
    validate(sent)
    data: dict[str, Any] = sent.data
    return {**data, "meta": {}}  # Not the stored resource of the same id and version.


async def _stored(call: Call) -> dict[str, Any] | None:
    if not call.logical_id:
        return None
    compartment = call.access.compartment_key(call.resource_type, "r")
    found = await call.server.current.read(call.resource_type, call.logical_id)
    if call.access.wall is not None:
        async with call.server.connections.lend() as connection:
            await call.access.learn(connection, found)
    resource: dict[str, Any] = visible(found, call.resource_type, compartment, call.access).data()
    return resource


def _coding(value: dict[str, Any]) -> _Code:
    code = value.get("code")
    if not isinstance(code, str) or not code:
        raise InvalidRequestError("A coding needs a code", issue_code="required")
    named = {name: value.get(name) for name in ("system", "version", "display")}
    if any(not isinstance(item, str | None) for item in named.values()):
        raise InvalidRequestError("The elements of a coding are texts", issue_code="value")
    return _Code(named["system"], code, named["version"], named["display"])


def _codes(parameters: Parameters) -> list[_Code]:
    """Return the codes asked about: `code` and `system`, `coding`, or all codings of `codeableConcept`.

    Raises
    ------
    InvalidRequestError
        None of them, or more than one.
    """
    code = parameters.text("code")
    coding = parameters.element("coding", "valueCoding")
    concept = parameters.element("codeableConcept", "valueCodeableConcept") if "codeableConcept" in parameters else None
    if [code, coding, concept].count(None) != 2:
        raise InvalidRequestError("One of code, coding or codeableConcept is needed", issue_code="required")
    if code is not None:
        version, display = parameters.text("version"), parameters.text("display")
        return [_Code(parameters.text("system"), code, version, display)]
    if coding is not None:
        return [_coding(coding)]
    codings = concept.get("coding") if concept is not None else None
    if not isinstance(codings, list) or not 0 < len(codings) <= _MAX_CODINGS:
        text = f"codeableConcept needs 1 to {_MAX_CODINGS} codings"
        raise InvalidRequestError(text, issue_code="required")
    return [_coding(item if isinstance(item, dict) else {}) for item in codings]


def _single(parameters: Parameters) -> _Code:
    return _codes(parameters)[0]


def _pair(parameters: Parameters, letter: str) -> _Code:
    code, coding = parameters.text(f"code{letter}"), parameters.element(f"coding{letter}", "valueCoding")
    if (code is None) == (coding is None):
        raise InvalidRequestError(f"One of code{letter} or coding{letter} is needed", issue_code="required")
    return _coding(coding) if coding is not None else _Code(None, code or "")


def _for_caller(handler: Handler) -> Handler:
    """Let an operation find only those stored resources that its caller may read."""

    @wraps(handler)
    async def answer(call: Call) -> Response:
        with shown_to(call.access):
            return await handler(call)

    return answer


def _routes() -> Iterator[Route]:
    served: tuple[tuple[str, str, Handler, bool], ...] = (
        ("CodeSystem", "lookup", lookup, False),
        ("CodeSystem", "validate-code", validate_code_system, True),
        ("CodeSystem", "subsumes", subsumes, True),
        ("ValueSet", "validate-code", validate_value_set, True),
        ("ValueSet", "expand", expand, True),
        ("ConceptMap", "translate", translate, True),
    )
    for resource_type, name, handler, on_instance in served:
        definition = f"http://hl7.org/fhir/OperationDefinition/{resource_type}-{name}"
        for path in (f"{resource_type}/${name}", f"{resource_type}/{{id}}/${name}")[: 2 if on_instance else 1]:
            for method in ("GET", "POST"):
                yield Route(method, path, _for_caller(handler), "r", "operation", definition=definition)


ROUTES: tuple[Route, ...] = tuple(_routes())
