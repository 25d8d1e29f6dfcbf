"""`_sort` by any parameter: which index, or which place in the stored JSON, a key is read from.

https://hl7.org/fhir/R4/search.html#sort
"""

from __future__ import annotations

import re

import orjson

from fhir_server.search.conditions import SortKey, SortKind
from fhir_server.search.modifiers import shown
from fhir_server.search.parameters import Parameter, type_parameters
from foramen.kernel.errors import InvalidRequestError

_INDEXED = {
    "date": SortKind.DATE,
    "string": SortKind.STRING,
    "number": SortKind.NUMBER,
    "quantity": SortKind.NUMBER,
    "uri": SortKind.STRING,
}
_VALUE = {
    "CodeableConcept": ".coding.code",
    "Coding": ".code",
    "Identifier": ".value",
    "ContactPoint": ".value",
    "Reference": ".reference",
    "Resource": ".id",
}
"""Data type → what of it is compared: the code, the identifier's value, the reference as written."""
_STEP = re.compile(r"([A-Za-z0-9]+)((?:\[[^\]]*\])*)(?:\.|$)")
_FILTER = re.compile(r"\[([^\]=]*)(?:=([^\]]*))?\]")


def sort_keys(resource_type: str, value: str, most: int) -> tuple[SortKey, ...]:
    """Parse the value of `_sort`.

    Raises
    ------
    InvalidRequestError
        An unknown parameter, a composite, or too many keys.
    """
    items = [item for item in value.split(",") if item]
    if len(items) > most:
        raise InvalidRequestError("_sort has too many keys", issue_code="too-costly")
    return tuple(sort_key(resource_type, item) for item in items)


def sort_key(resource_type: str, text: str) -> SortKey:
    """Parse one key: a parameter's code, with a minus sign for descending."""
    descending, code = text.startswith("-"), text.removeprefix("-")
    if code == "_lastUpdated":
        return SortKey(SortKind.LAST_UPDATED, descending=descending)
    if code == "_id":
        return SortKey(SortKind.ID, descending=descending)
    if code == "_score":
        raise InvalidRequestError("_sort by _score is not supported", issue_code="not-supported")
    parameters = type_parameters(resource_type)
    parameter = parameters.parameters.get(code)
    if parameter is None:
        raise InvalidRequestError(
            f"_sort names {shown(code)}, which {resource_type} cannot be searched by", issue_code="value"
        )
    main = parameters.main_date
    if parameter.kind == "date" and main is not None and main.paths == parameter.paths:
        return SortKey(SortKind.MAIN_DATE, descending=descending)
    if parameter.kind in _INDEXED:
        return SortKey(_INDEXED[parameter.kind], parameter.bases(), descending)
    if parameter.kind in ("token", "reference"):
        return SortKey(SortKind.CONTENT, (), descending, json_paths(parameter))
    raise InvalidRequestError(f"_sort by a {parameter.kind} ({code}) is not supported", issue_code="not-supported")


def json_paths(parameter: Parameter) -> tuple[str, ...]:
    """Return the SQL/JSON paths of a parameter's values (lax mode: arrays open by themselves).

    Raises
    ------
    InvalidRequestError
        A custom parameter, whose expression has no such path.
    """
    table = type_parameters(parameter.resource_type).paths.get(parameter.kind, {})
    found = [
        _json_path(path) + ("" if identity.endswith("#true") else _VALUE.get(data_type, ""))
        for identity in parameter.paths
        for path, data_type in table.get(identity, ())
    ]
    if not found:
        raise InvalidRequestError(f"_sort by {shown(parameter.code)} is not supported", issue_code="not-supported")
    return tuple(dict.fromkeys(found))


def _json_path(path: str) -> str:
    text = "$"
    for name, filters in _STEP.findall(path):
        text += f'."{name}"'
        for key, expected in _FILTER.findall(filters):
            if expected == "":  # [0]: the first entry of a Bundle.
                text += f"[{key}]"
            elif key == "extension":
                text += f" ? (exists(@.extension ? (@.url == {_quoted(expected)})))"
            else:
                text += f" ? (@.{key} == {_quoted(expected)})"
    return text


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()
