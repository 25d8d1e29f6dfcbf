"""The registry of search parameters, read from the generated table; it also drives the CapabilityStatement.

https://hl7.org/fhir/R4/searchparameter-registry.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

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

    def bases(self) -> tuple[int, ...]:
        """Index bases, one for each path: the value's hash is combined with them."""
        return tuple(path_base(self.resource_type, self.kind, path) for path in self.paths)


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
    return frozenset(_table()) - {"Parameters", "OperationOutcome"}


@lru_cache(maxsize=256)
def type_parameters(resource_type: str) -> TypeParameters:
    """Return the parameters of one type.

    Raises
    ------
    KeyError
        Not an R4 resource type.
    """
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
