"""Tasks about a study that is rejected as a whole are no workitems: they would tell of it (DICOM PS3.18 §11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dicomweb.visibility import Clause
from foramen.kernel.access_context import AccessContext

_SHOWN = Clause("""(NOT EXISTS (SELECT 1 FROM dicomweb.rejected_instance r
        WHERE r.study_instance_uid = s.study_instance_uid)
    OR EXISTS (SELECT 1 FROM dicomweb.instance i WHERE i.study_instance_uid = s.study_instance_uid))""")


class _Limit(Protocol):
    async def clauses(self, context: AccessContext, action: str | None) -> Sequence[Clause]: ...


class WithoutRejected:
    """Adds to what a limit hides."""

    def __init__(self, limit: _Limit) -> None:
        self._limit = limit

    async def clauses(self, context: AccessContext, action: str | None) -> Sequence[Clause]:
        """See `dicomweb.visibility.Limit`."""
        return (*await self._limit.clauses(context, action), _SHOWN)
