"""Turn the FHIRPath of R4 search parameters into typed JSON paths; a form that is not understood is an error.

https://hl7.org/fhir/R4/searchparameter-registry.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fhir_server.generate.definitions import Definitions, json_names

# Data types each kind of search parameter can be asked about (https://hl7.org/fhir/R4/search.html §3.1.1.4).
KIND_TYPES = {
    "token": {"CodeableConcept", "Coding", "Identifier", "ContactPoint", "code", "id", "string", "boolean", "uri"},
    "reference": {"Reference", "canonical", "uri", "Resource"},
    "date": {"date", "dateTime", "instant", "Period", "Timing"},
    "string": {"string", "markdown", "HumanName", "Address", "code"},
    "quantity": {"Quantity", "Age", "Duration", "Count", "Distance", "Money", "Range", "SampledData"},
    "number": {"integer", "decimal", "positiveInt", "unsignedInt", "Range"},
    "uri": {"uri", "url", "canonical", "oid", "uuid"},
}
_TOKEN = re.compile(
    r"(?P<exists>\.exists\(\) and \S+ != false$)"
    r"|\.where\(resolve\(\) is (?P<target>\w+)\)"
    r"|\.where\(hasExtension\('(?P<has>[^']+)'\)\)"
    r"|\.where\((?P<key>\w+)\s*=\s*'(?P<value>[^']+)'\)"
    r"|\.?extension\('(?P<extension>[^']+)'\)"
    r"|\.(?:as|ofType)\((?P<cast>\w+)\)"
    r"|\[(?P<index>\d+)\]"
    r"|\.?(?P<name>\w+)"
)


class UnknownExpressionError(ValueError):
    """The expression has a form that the generator does not know."""


@dataclass(frozen=True)
class Branch:
    """One typed path: `identity` names what is indexed, `path` how to find it in JSON."""

    identity: str
    path: str
    data_type: str
    target: str | None = None


def split_branches(expression: str) -> list[str]:
    """Split at the top-level unions and rewrite ``(A as T)`` as ``A.as(T)``."""
    branches = [branch.strip() for branch in expression.split("|")]
    rewritten = []
    for branch in branches:
        text = re.sub(r"^\((\S+) as (\w+)\)", r"\1.as(\2)", branch)
        text = re.sub(r"^(\S+) as (\w+)$", r"\1.as(\2)", text)
        rewritten.append(text)
    return rewritten


@dataclass
class _State:
    identity: str
    path: str
    data_type: str
    pending: list[tuple[str, str]]


def branches_of(definitions: Definitions, root: str, text: str, kind: str) -> list[Branch]:
    """Resolve one branch below the type `root` to typed JSON paths."""
    states = [_State("", "", root, [])]
    target: str | None = None
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UnknownExpressionError(text)
        position = match.end()
        found = match.groupdict()
        if found["target"]:
            target = found["target"]
        elif found["exists"]:
            return [Branch(states[0].identity + "#true", path, name, None) for path, name in _names(states[0])]
        elif found["cast"]:
            states = [
                _State(state.identity, path, name, [])
                for state in states
                for path, name in _names(state)
                if name.lower() == found["cast"].lower()
            ]
        elif found["key"]:
            suffix = f"[{found['key']}={found['value']}]"
            states = [_State(s.identity + suffix, s.path + suffix, s.data_type, s.pending) for s in _settle(states)]
        elif found["has"]:
            suffix = f"[extension={found['has']}]"
            states = [_State(s.identity + suffix, s.path + suffix, s.data_type, []) for s in _settle(states)]
        elif found["index"]:
            states = [_State(s.identity, s.path + f"[{found['index']}]", s.data_type, []) for s in _settle(states)]
        elif found["extension"]:
            states = [_extension(state, found["extension"], definitions) for state in _settle(states)]
        else:
            states = _step(definitions, states, found["name"])
            if not states:
                raise UnknownExpressionError(f"{root}: {text}")
    leaves = [
        Branch(state.identity, path, name, target)
        for state in states
        for path, name in _names(state)
        if name in KIND_TYPES[kind]
    ]
    if not leaves:
        raise UnknownExpressionError(f"{root}: {text} has no {kind}: {[list(_names(s)) for s in states]}")
    return leaves


def _names(state: _State) -> list[tuple[str, str]]:
    return state.pending or [(state.path, state.data_type)]


def _settle(states: list[_State]) -> list[_State]:
    return [_State(s.identity, path, name, []) for s in states for path, name in _names(s)]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _step(definitions: Definitions, states: list[_State], name: str) -> list[_State]:
    following = []
    for state in _settle(states):
        table = definitions.elements.get(state.data_type, {})
        element = table.get(name) or table.get(f"{name}[x]")
        if element is None:
            continue
        pending = [(_join(state.path, json_name), kind) for json_name, kind in json_names(element)]
        if len(pending) == 1:
            following.append(_State(_join(state.identity, name), *pending[0], []))
        else:
            following.append(_State(_join(state.identity, name), "", "", pending))
    return following


def _extension(state: _State, url: str, definitions: Definitions) -> _State:
    element = definitions.elements["Extension"]["value[x]"]
    path = _join(state.path, f"extension[url={url}]")
    return _State(path, "", "", [(f"{path}.{json_name}", kind) for json_name, kind in json_names(element)])
