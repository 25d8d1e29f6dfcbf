"""Work done by two statements with no transaction around them: one reads and holds nothing, one writes if that stands.

BEGIN, locks, COMMIT and their round trips cost an authorization more than all it decides (ADR 0046). What it reads
tells the versions of the rows it went by (`xmin`, https://www.postgresql.org/docs/18/ddl-system-columns.html); the one
statement that writes holds these rows and writes nothing where one of them is another by now. Then, and whenever the
work asks anything else, it is done again in a transaction that holds what it reads (`IdentityDatabase.run`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import Connection, Executable, Insert, Select
from sqlalchemy.dialects.postgresql import asyncpg as dialect

T = TypeVar("T")
_DIALECT = dialect.dialect()  # type: ignore[no-untyped-call]


class NeedsTransaction(Exception):
    """The work asks or writes what the two statements do not hold."""


class Ready:
    """A statement as text and the order of its parameters, made once."""

    def __init__(self, statement: Select[Any] | Insert) -> None:
        compiled: Any = statement.compile(dialect=_DIALECT)
        self.text = str(compiled)
        self._names: list[str] = compiled.positiontup
        self._fixed: dict[str, Any] = compiled.params

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the parameters in order; what is not among the values has a fixed one."""
        return [values[name] if name in values else self._fixed[name] for name in self._names]


@dataclass(frozen=True, slots=True, eq=False)
class TwoStatements:
    """Which statements of some work, as it does them in a transaction, are done by which ones without it.

    Parameters
    ----------
    first : what the work asks first, holding it
    reading : the same columns without a hold; then single permissions and loans as JSON, then the guards by name
    rights : what the work asks for those with
    last : the one statement by which it writes
    writing : the same where the rows of the guards still are the same, held; it returns a row where it wrote
    guards : names of the last columns of `reading`, and of parameters of `writing`
    """

    first: Executable
    reading: Ready
    rights: Executable
    last: Executable
    writing: Ready
    guards: tuple[str, ...]


class _Right(NamedTuple):
    permission: str
    effect: str | None
    until: datetime | None
    lender: str | None


class _Rows:
    """What was read, as SQLAlchemy's `Result` gives it."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def one(self) -> Any:
        return self._rows[0]

    def all(self) -> Sequence[Any]:
        return self._rows


class _Read:
    """Stands for a connection: answers from what was read, keeps what is to be written."""

    def __init__(self, statements: TwoStatements, row: tuple[Any, ...]) -> None:
        self._statements = statements
        ends = len(row) - len(statements.guards)
        self._row, self._rights = row[: ends - 1], row[ends - 1]
        self.guards = dict(zip(statements.guards, row[ends:], strict=True))
        self.written: Mapping[str, Any] | None = None

    def execute(self, statement: Executable, values: Any = None) -> _Rows:
        known = self._statements
        if self.written is not None:
            raise NeedsTransaction
        if statement is known.first:
            return _Rows([self._row])
        if statement is known.rights:
            return _Rows([_right(*one) for one in self._rights or ()])
        if statement is known.last:
            self.written = values
            return _Rows(())
        raise NeedsTransaction


def _right(permission: str, effect: str | None, until: str | None, lender: str | None) -> _Right:
    return _Right(permission, effect, datetime.fromisoformat(until) if until else None, lender)


class Reading:
    """What the first statement read, and what came of it."""

    def __init__(self, statements: TwoStatements, row: tuple[Any, ...]) -> None:
        self._statements, self._read = statements, _Read(statements, row)

    def decide(self, work: Callable[[Connection], T]) -> T:
        """Do the work on what was read.

        Raises
        ------
        NeedsTransaction
            It asks for more, or what it goes by cannot be held: nobody is signed in, or nothing was found.
        """
        if None in self._read.guards.values():
            raise NeedsTransaction
        return work(cast(Connection, self._read))

    def writing(self) -> tuple[str, list[Any]] | None:
        """Return the statement that writes and its parameters; None: there is nothing to write."""
        if self._read.written is None:
            return None
        ready = self._statements.writing
        return ready.text, ready.arguments({**self._read.written, **self._read.guards})
