"""System values of items: the implicit conversion of FHIR types, equality, equivalence, order and keys for sets.

https://hl7.org/fhir/R4/fhirpath.html#types, http://hl7.org/fhirpath/N1/#equality
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from fhir_server.fhirpath import quantity as quantities
from fhir_server.fhirpath import temporal as temporals
from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.node import Node
from fhir_server.fhirpath.quantity import DECIMAL, Quantity, decimal_of, in_range
from fhir_server.fhirpath.temporal import Temporal, parse_temporal
from fhir_server.fhirpath.type_table import SYSTEM_OF

SystemValue = bool | int | Decimal | str | Temporal | Quantity
Items = list[Node]
Spend = Callable[[int], None]

TRUE: Items = [Node(True, "System.Boolean")]
FALSE: Items = [Node(False, "System.Boolean")]
EMPTY: Items = []


def boolean(value: bool | None) -> Items:
    """Collection of a truth value; None is unknown, the empty collection. Never change the list."""
    return TRUE if value else EMPTY if value is None else FALSE


def make(value: SystemValue | None) -> Items:
    """Collection of one System value; empty for None and for numbers that are not finite or not in range."""
    if value is None:
        return EMPTY
    kind = type(value)
    if kind is bool:
        return TRUE if value else FALSE
    if kind is int:
        return [Node(value, "System.Integer")] if -(2**31) <= value < 2**31 else EMPTY  # type: ignore[operator]
    if isinstance(value, Decimal):
        return [Node(value, "System.Decimal")] if in_range(value) else EMPTY
    if isinstance(value, Temporal):
        return [Node(value, f"System.{value.kind}")]
    return [Node(value, "System.Quantity" if isinstance(value, Quantity) else "System.String")]


def system(node: Node) -> SystemValue | None:
    """System value of an item, or None when it has none (complex types, primitives without a value)."""
    value = node.value
    kind = SYSTEM_OF.get(node.type_name)
    if kind is None or value is None:
        return None
    if kind == "String" or kind == "Boolean":
        return value if type(value) is (str if kind == "String" else bool) else None
    if kind == "Decimal":
        return decimal_of(value)
    if kind == "Integer":
        return value if type(value) is int else None
    if kind == "Quantity":
        return value if type(value) is Quantity else quantities.from_fhir(value) if type(value) is dict else None
    return value if type(value) is Temporal else parse_temporal(value, kind) if type(value) is str else None


def single(items: Items, what: str) -> Node | None:
    """Return the only item, None when there is none.

    Raises
    ------
    FhirPathError
        Several items where one is allowed.
    """
    if len(items) > 1:
        raise FhirPathError(f"{what} takes one item, not a collection")
    return items[0] if items else None


def truth(items: Items, what: str = "a criterion") -> bool | None:
    """Boolean of a collection by singleton evaluation: one item that is no boolean counts as true."""
    if not items:
        return None
    node = single(items, what)
    if node is None or (node.value is None and node.type_name == "boolean"):
        return None
    return node.value if type(node.value) is bool else True


def _number(value: Any) -> bool:
    return type(value) is int or type(value) is Decimal


def equal(left: Node, right: Node, spend: Spend) -> bool | None:
    """``=`` of two items; None when it is unknown (precision, units, offsets). `spend` counts the work."""
    first, second = system(left), system(right)
    if first is None or second is None:
        if first is not None or second is not None:
            return False
        same = left.value is right.value or _deep_key(left.value, spend) == _deep_key(right.value, spend)
        return bool(same and _deep_key(left.extra, spend) == _deep_key(right.extra, spend))
    if type(first) is Temporal and type(second) is Temporal:
        if not temporals.is_comparable_kind(first, second):
            return False
        order = temporals.compare(first, second)
        return None if order is None else order == 0
    if type(first) is Quantity or type(second) is Quantity:
        pair = _as_quantities(first, second)
        return False if pair is None else _equal_quantities(*pair)
    if _number(first) and _number(second):
        return first == second
    return type(first) is type(second) and first == second


def _equal_quantities(left: Quantity, right: Quantity) -> bool | None:
    # Months and years of the calendar have no fixed length in UCUM: unknown, not unequal.
    order = quantities.compare(left, right)
    if order is None:
        return None if left.is_calendar != right.is_calendar else False if _both_units(left, right) else None
    return order == 0


def _both_units(left: Quantity, right: Quantity) -> bool:
    return quantities.compare(left, left) == 0 and quantities.compare(right, right) == 0


def _as_quantities(first: SystemValue, second: SystemValue) -> tuple[Quantity, Quantity] | None:
    pair = [
        Quantity(Decimal(value)) if _number(value) else value  # type: ignore[arg-type]
        for value in (first, second)
    ]
    if type(pair[0]) is Quantity and type(pair[1]) is Quantity:
        return pair[0], pair[1]
    return None


def equal_collections(left: Items, right: Items, spend: Spend) -> bool | None:
    """``=``: same items in the same order; None when either side is empty or an item's equality is unknown."""
    if not left or not right:
        return None
    if len(left) != len(right):
        return False
    unknown = False
    for one, other in zip(left, right, strict=True):
        result = equal(one, other, spend)
        if result is False:
            return False
        unknown = unknown or result is None
    return None if unknown else True


def equivalent(left: Node, right: Node, spend: Spend) -> bool:
    """``~`` of two items."""
    first, second = system(left), system(right)
    if first is None or second is None:
        if first is not None or second is not None:
            return False
        return bool(_deep_key(left.value, spend, True) == _deep_key(right.value, spend, True))
    if type(first) is Temporal and type(second) is Temporal:
        return temporals.is_comparable_kind(first, second) and temporals.compare(first, second) == 0
    if type(first) is Quantity or type(second) is Quantity:
        pair = _as_quantities(first, second)
        return pair is not None and quantities.is_equivalent(*pair)
    if isinstance(first, str) and isinstance(second, str):
        return folded(first) == folded(second)
    if _number(first) and _number(second):
        return quantities.equivalent_decimals(Decimal(first), Decimal(second))  # type: ignore[arg-type]
    return type(first) is type(second) and first == second


def folded(text: str) -> str:
    """Text as ``~`` compares it: no case, one kind of space."""
    return " ".join(text.lower().split())


def order(left: Node, right: Node, operator: str) -> int | None:
    """Order of two items for ``< <= > >=``; None when it is unknown.

    Raises
    ------
    FhirPathError
        The types have no order, or not with each other.
    """
    first, second = system(left), system(right)
    if isinstance(first, str) and isinstance(second, str):
        return (first > second) - (first < second)
    if _number(first) and _number(second):
        return (first > second) - (first < second)  # type: ignore[operator]
    if type(first) is Temporal and type(second) is Temporal and temporals.is_comparable_kind(first, second):
        return temporals.compare(first, second)
    if (type(first) is Quantity or type(second) is Quantity) and first is not None and second is not None:
        pair = _as_quantities(first, second)
        if pair is not None:
            return quantities.compare(*pair)
    if (first is None and SYSTEM_OF.get(left.type_name)) or (second is None and SYSTEM_OF.get(right.type_name)):
        return None
    raise FhirPathError(f"{operator} does not compare these types")


def key(node: Node, spend: Spend) -> Any:
    """Hashable key: items that are certainly equal (and only these) have the same key."""
    value = system(node)
    if value is None:
        kind, part = ("complex", node.value) if node.value is not None else ("none", node.extra)
        return kind, _deep_key(part, spend)
    if _number(value):
        return ("number", value)
    if type(value) is Temporal:
        at = value.interval()
        return ("time" if value.kind == "Time" else "date", at, value.offset is None)
    if type(value) is Quantity:
        base = quantities.base_key(value)
        return ("quantity", base)
    return (type(value).__name__, value)


def _deep_key(value: Any, spend: Spend, fold: bool = False) -> Any:
    if type(value) is dict:
        spend(len(value))
        return frozenset((name, _deep_key(item, spend, fold)) for name, item in value.items())
    if type(value) is list:
        spend(len(value))
        parts = [_deep_key(item, spend, fold) for item in value]
        return frozenset(parts) if fold else tuple(parts)
    if type(value) is bool:
        return ("boolean", value)
    if type(value) is float:
        return decimal_of(value)
    if type(value) is Decimal:
        return value
    return folded(value) if fold and type(value) is str else value


def rounded(value: Decimal, places: int) -> Decimal:
    """Round half up, as ``round()`` does; not finite when the value has no room for so many places."""
    return value.quantize(Decimal(1).scaleb(-places), rounding="ROUND_HALF_UP", context=DECIMAL)


def whole(value: Decimal, rounding: str) -> int | None:
    """Integer of a decimal, None when it is out of range."""
    return int(value.to_integral_value(rounding)) if value.is_finite() and value.adjusted() < 10 else None
