"""The registry of search parameters, read from the generated table; it also drives the CapabilityStatement.

On top of R4 lie the custom parameters of a record. They belong to a `Registry`; the one in force is found through the
context (each web request and background task of a service carries its own), so that nothing has to hand it on.

https://hl7.org/fhir/R4/searchparameter-registry.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from fhir_server.search.blind import BlindIndex
from fhir_server.search.hashing import hash64

_FILE = Path(__file__).with_name("r4_search_parameters.json")


@dataclass(frozen=True, slots=True)
class CompositeGroup:
    """One base element of a composite parameter and the typed paths of its parts below it."""

    base: str
    parts: tuple[tuple[tuple[str, str], ...], ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One search parameter of one type."""

    resource_type: str
    code: str
    kind: str
    paths: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    data_types: frozenset[str] = frozenset()
    bit: int = 0
    part_kinds: tuple[str, ...] = ()
    groups: tuple[CompositeGroup, ...] = ()
    expression: str = ""
    incomplete: bool = False

    @property
    def is_custom(self) -> bool:
        """Whether it was added at run time; its presence is then a posting and not a bit of the row."""
        return bool(self.expression)

    def presence(self) -> int:
        """Posting of every resource that has a value of this custom parameter."""
        return self.bases()[0] ^ _PRESENT

    def bases(self) -> tuple[int, ...]:
        """Index bases, one for each path: the value's hash is combined with them."""
        return tuple(path_base(self.resource_type, self.kind, path) for path in self.paths)


_PRESENT = hash64("\x04present")
_NOTED: ContextVar[set[str] | None] = ContextVar("noted", default=None)


@contextmanager
def noting_incomplete() -> Iterator[set[str]]:
    """Collect the names of the types and parameters asked for inside whose index is not complete."""
    noted: set[str] = set()
    token = _NOTED.set(noted)
    try:
        yield noted
    finally:
        _NOTED.reset(token)


class _Noting(dict[str, "Parameter"]):
    """Parameters by code, of a type that has custom ones: to ask for an incomplete one is noted."""

    def get(self, code: str, default: Any = None) -> Any:
        found = super().get(code, default)
        if found is not None and found.incomplete and (noted := _NOTED.get()) is not None:
            noted.add(code)
        return found

    def __getitem__(self, code: str) -> Parameter:
        found: Parameter | None = self.get(code)
        if found is None:
            raise KeyError(code)
        return found


@dataclass(slots=True)
class TypeParameters:
    """Everything that can be searched in one resource type."""

    resource_type: str
    parameters: dict[str, Parameter]
    paths: dict[str, dict[str, list[tuple[str, str]]]]
    main_date: Parameter | None = None
    bits: dict[tuple[str, str], int] = field(default_factory=dict)


def path_base(resource_type: str, kind: str, identity: str) -> int:
    """Index base of one path of one type."""
    return hash64(f"{resource_type}:{kind}:{identity}")


def type_base(resource_type: str) -> int:
    """Posting of every resource of a type."""
    return hash64(f"{resource_type}:all")


def patient_base(resource_type: str) -> int:
    """Index base of membership in a patient's compartment."""
    return hash64(f"{resource_type}:compartment")


def patient_code_base(resource_type: str) -> int:
    """Index base of the pair (patient, code): the most frequent question of all."""
    return hash64(f"{resource_type}:patient+code")


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    table: dict[str, Any] = orjson.loads(_FILE.read_bytes())
    del table["header"]
    return table


@lru_cache(maxsize=1)
def resource_types() -> frozenset[str]:
    """All R4 resource types that can be stored."""
    return frozenset(_table()) - {"Parameters"}


class Registry:
    """R4's search parameters and, on top of them, the custom ones of one record."""

    def __init__(self) -> None:
        self.version = -1
        self.rebuilding: frozenset[str] = frozenset()
        self._types: dict[str, TypeParameters] = {}
        self.cache: dict[object, Any] = {}
        self.blind: BlindIndex | None = None
        self.sealing: object | None = None
        """Seals and opens stored content (store/sealed_content.py); None: nothing is sealed in this record."""

    def replace(self, custom: Sequence[Parameter], version: int, rebuilding: frozenset[str] = frozenset()) -> None:
        """Put other custom parameters in force.

        Parameters
        ----------
        rebuilding : types whose index is being made anew, so that searches may miss matches
        """
        types: dict[str, TypeParameters] = {}
        for parameter in custom:
            name = parameter.resource_type
            if name not in types:
                base = r4_parameters(name)
                types[name] = replace(base, parameters=_Noting(base.parameters))
            types[name].parameters[parameter.code] = parameter
        self._types, self.version, self.rebuilding, self.cache = types, version, rebuilding, {}

    def parameters(self, resource_type: str) -> TypeParameters:
        """Return the parameters of one type."""
        if resource_type in self.rebuilding and (noted := _NOTED.get()) is not None:
            noted.add(resource_type)
        return self._types.get(resource_type) or r4_parameters(resource_type)

    def has_custom(self, resource_type: str) -> bool:
        """Whether a type has custom parameters."""
        return resource_type in self._types


_IN_FORCE: ContextVar[Registry] = ContextVar("registry")
_latest = Registry()


def activate(registry: Registry) -> None:
    """Put a record's registry in force for the current context (and for threads, which have none of their own)."""
    global _latest
    _latest = registry
    _IN_FORCE.set(registry)


def registry() -> Registry:
    """Return the registry in force."""
    return _IN_FORCE.get(None) or _latest


@contextmanager
def without_blind_index() -> Iterator[None]:
    """Find index values in this context as they were before anything was sealed."""
    plain = copy(registry())
    plain.blind = None
    token = _IN_FORCE.set(plain)
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


def type_parameters(resource_type: str) -> TypeParameters:
    """Return the parameters of one type, custom ones included.

    Raises
    ------
    KeyError
        Not an R4 resource type.
    """
    return registry().parameters(resource_type)


@lru_cache(maxsize=256)
def r4_parameters(resource_type: str) -> TypeParameters:
    """Return R4's own parameters of one type."""
    entry = _table()[resource_type]
    paths = {
        kind: {identity: [(path, data_type) for path, data_type in leaves] for identity, leaves in table.items()}
        for kind, table in entry["paths"].items()
    }
    parameters: dict[str, Parameter] = {}
    for bit, (code, item) in enumerate(entry["parameters"].items()):
        kind = item["type"]
        data_types = {name for path in item.get("paths", ()) for _, name in paths[kind][path]}
        parameters[code] = Parameter(
            resource_type=resource_type,
            code=code,
            kind=kind,
            paths=tuple(item.get("paths", ())),
            targets=tuple(item.get("targets", ())),
            data_types=frozenset(data_types),
            bit=bit,
            part_kinds=tuple(item.get("kinds", ())),
            groups=tuple(
                CompositeGroup(group["base"], tuple(tuple((p, t) for p, t in part) for part in group["parts"]))
                for group in item.get("groups", ())
            ),
        )
    main = entry["main_date"]
    return TypeParameters(resource_type, parameters, paths, parameters[main] if main else None)
