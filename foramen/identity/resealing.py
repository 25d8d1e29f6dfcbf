"""Seal what is stored again with the key and cipher of now, while servers work on the same rows.

NIST SP 800-57 part 1 §5.3.6. Each batch is a transaction; a row is replaced only if its value is still the one that was
read. What is done shows in the values themselves: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Update, bindparam, func, select, update

from foramen.identity.sealed_columns import SEALED_COLUMNS, SealedColumn
from foramen.identity.sealing import DataKeys
from foramen.kernel.errors import InteropError, UpstreamError

_BATCH = 200
_PASSES = 5


class Transaction(Protocol):
    """Opens a transaction."""

    def __call__(self) -> AbstractContextManager[Connection]:
        """Return it."""


@dataclass(slots=True)
class Resealed:
    """What a run did, by table: values sealed again, and values that no key opens (they stay as they are)."""

    done: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    left: int = 0

    @property
    def complete(self) -> bool:
        """Whether every value can be opened with the key and cipher of now."""
        return not self.left and not self.unreadable.total()


def reseal(transaction: Transaction, keys: DataKeys, columns: Iterable[SealedColumn] = SEALED_COLUMNS) -> Resealed:
    """Seal everything again that is not sealed with the key and cipher of now.

    Values that a server seals with the old key meanwhile are taken up by the next pass, of five at most.
    """
    result, columns = Resealed(), tuple(columns)
    for _ in range(_PASSES):
        result.unreadable.clear()
        for one in columns:
            _pass(transaction, keys, one, result)
        with transaction() as connection:
            waiting = sum(_count(connection, one, _not_current(one, keys)) for one in columns)
        result.left = waiting - result.unreadable.total()
        if result.left <= 0:
            result.left = 0
            break
    return result


def values_of(connection: Connection, key_id: str) -> int:
    """Count the values that a key has sealed."""
    return sum(
        _count(connection, one, (func.split_part(one.column, ":", place) == key_id) & one.column.startswith(version))
        for one in SEALED_COLUMNS
        for version, place in (("v1:", 2), ("v2:", 3))
    )


def _not_current(one: SealedColumn, keys: DataKeys) -> ColumnElement[bool]:
    return one.column.is_not(None) & ~one.column.startswith(keys.current_head, autoescape=True)


def _count(connection: Connection, one: SealedColumn, condition: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(one.table).where(condition)).scalar_one()


def _pass(transaction: Transaction, keys: DataKeys, one: SealedColumn, result: Resealed) -> None:
    after: Any = None
    while True:
        with transaction() as connection:
            bound = [one.table.c[name] for name in one.bound_to]
            statement = select(one.key_column, one.column, *bound).where(_not_current(one, keys))
            if after is not None:
                statement = statement.where(one.key_column > after)
            rows = connection.execute(statement.order_by(one.key_column).limit(_BATCH)).all()
            sealed = [
                {"row": key, "was": value, "now": again}
                for key, value, *binding in rows
                if (again := _again(keys, one, value, binding)) is not None
            ]
            result.unreadable[one.table.name] += len(rows) - len(sealed)
            if sealed:
                result.done[one.table.name] += connection.execute(_replacing(one), sealed).rowcount
        if len(rows) < _BATCH:
            return
        after = rows[-1][0]


def _replacing(one: SealedColumn) -> Update:
    unchanged = (one.key_column == bindparam("row")) & (one.column == bindparam("was"))
    return update(one.table).where(unchanged).values({one.name: bindparam("now")})


def _again(keys: DataKeys, one: SealedColumn, value: str, binding: list[Any]) -> str | None:
    """Seal a value again; None: no key opens it."""
    purpose = one.purpose(*binding)
    try:
        plain = keys.unseal(value, purpose)
    except UpstreamError:  # the keys cannot be read now: that says nothing about the value
        raise
    except InteropError:
        return None
    return keys.seal(plain, purpose)
