"""What of the study index a caller may see: the ONE place that turns access into a condition inside SQL, before paging.

Every statement that answers a client with studies, series or instances takes its condition from here. What limits a
caller comes from *limits*, asked in turn: the token's patient, the institutions' walls, Consents and restrictions, what
this installation made itself. A further limit is one more object with `clauses`, given to `Visibility`: no statement
changes. DICOM PS3.18 §8.2 leaves access to the server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dicomweb.institutions import Bounds, Institutions
from foramen.kernel.access_context import AccessContext, Reach


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition, as a template with one `{}` for each value: cast each, e.g. ``s.patient_ref = {}::text``.

    Parameters
    ----------
    template : on alias `s` (dicomweb.study), or `e` (dicomweb.series) too when `of_series`
    of_series : whether it looks at series: a study is then shown when one of its series is
    """

    template: str
    values: tuple[Any, ...] = ()
    of_series: bool = False


class Limit(Protocol):
    """One reason not to see everything."""

    async def clauses(self, context: AccessContext, action: str | None) -> Sequence[Clause]:
        """Return what must hold, all of it; nothing: this limit leaves the caller everything.

        Parameters
        ----------
        action : of ImagingStudy, as SMART names it; None: another right than one of ImagingStudy admitted the call

        Raises
        ------
        ForbiddenError, UpstreamError
            It may not be asked at all, or cannot be decided now: nothing is shown.
        """
        ...

    def as_of(self, context: AccessContext) -> float:
        """When what `clauses` just told was read (`time.monotonic`); infinity: it follows from the token alone."""
        ...


@dataclass(frozen=True, slots=True)
class Shelf:
    """The three levels that a statement reads. Rows of `instance` are what counts (ADR 0042)."""

    study: str = "dicomweb.study"
    series: str = "dicomweb.series"
    instance: str = "dicomweb.instance"


COUNTED = Shelf()
REJECTED_FOR_QUALITY = Shelf("dicomweb.quality_study", "dicomweb.quality_series", "dicomweb.quality_instance")
"""What was rejected for quality reasons, and nothing else."""


@dataclass(frozen=True, slots=True)
class LookingAtRejected(AccessContext):
    """A caller who asked in so many words for what was rejected for quality reasons, and may see it."""


@dataclass(frozen=True, slots=True)
class Visible:
    """A decided condition.

    Parameters
    ----------
    sql : on aliases s (dicomweb.study) and e (dicomweb.series)
    study_sql : on alias s alone: the study itself, and at least one of its series, may be seen
    series_sql : on alias e alone, of a study that is already admitted; ``true``: all of its series are shown
    values : of the placeholders; `sql` and `study_sql` hold every one of them
    as_of : when the oldest of what decided was read (`time.monotonic`); infinity: it follows from the token alone
    shelf : the tables that aliases s and e, and i (instances), stand for
    """

    sql: str
    study_sql: str
    series_sql: str
    values: list[Any]
    as_of: float = math.inf
    shelf: Shelf = COUNTED

    @property
    def all_series(self) -> bool:
        """Whether no series of a visible study is hidden: then what the writer counted may be told."""
        return self.series_sql == "true"


class TokenLimit:
    """The token's patient, when only a patient scope grants the action."""

    async def clauses(self, context: AccessContext, action: str | None) -> Sequence[Clause]:
        """See `Limit`."""
        patient = None if action is None else patient_limit(context, action)
        return () if patient is None else (Clause("s.patient_ref = {}::text", (patient,)),)

    def as_of(self, context: AccessContext) -> float:
        """See `Limit`."""
        return math.inf


class InstitutionWall:
    """Whose patients they are. A study without a patient, or whose patient nobody manages, is behind every wall."""

    def __init__(self, institutions: Institutions) -> None:
        self._institutions = institutions

    async def clauses(self, context: AccessContext, action: str | None) -> Sequence[Clause]:
        """See `Limit`."""
        bounds: Bounds | None = await self._institutions.bounds(context)
        if bounds is None:
            return ()
        values = (bounds.organization, list(bounds.patients))
        return (Clause("(s.institution = {}::text OR s.patient_ref = ANY({}::text[]))", values),)

    def as_of(self, context: AccessContext) -> float:
        """See `Limit`."""
        return self._institutions.as_of(context)


class Visibility:
    """All limits together."""

    def __init__(self, *limits: Limit) -> None:
        self._limits = limits

    async def visible(self, context: AccessContext, action: str | None, *, start: int = 1) -> Visible:
        """Decide what a caller may see.

        Parameters
        ----------
        action : ``s`` to search, ``r`` to read; None: see `Limit.clauses`
        start : number of the first placeholder

        Raises
        ------
        ForbiddenError
            No scope grants the action.
        UpstreamError
            A limit cannot be decided now: nothing may be shown.
        """
        of_study: list[str] = []
        of_series: list[str] = []
        values: list[Any] = []
        as_of = math.inf
        for limit in self._limits:
            clauses = await limit.clauses(context, action)
            as_of = min(as_of, limit.as_of(context))
            for clause in clauses:
                first = start + len(values)
                places = (f"${number}" for number in range(first, first + len(clause.values)))
                (of_series if clause.of_series else of_study).append(clause.template.format(*places))
                values += clause.values
        shelf = REJECTED_FOR_QUALITY if isinstance(context, LookingAtRejected) else COUNTED
        return _joined(of_study, of_series, values, as_of, shelf)


def visibility(institutions: Institutions, *limits: Limit) -> Visibility:
    """Return the limits of this installation; `limits` are those that the record decides (ADR 0040)."""
    return Visibility(TokenLimit(), InstitutionWall(institutions), *limits)


def patient_limit(context: AccessContext, action: str) -> str | None:
    """`Patient/id` the token is bound to, or None when it reaches every study.

    Raises
    ------
    ForbiddenError
        No scope grants the action on ImagingStudy, or only granular ones: their queries cannot be asked of images.
    """
    context.require_whole_type("ImagingStudy", action)
    return None if context.reach("ImagingStudy", action) is Reach.EVERYTHING else f"Patient/{context.patient}"


def _joined(of_study: list[str], of_series: list[str], values: list[Any], as_of: float, shelf: Shelf) -> Visible:
    study = " AND ".join(of_study) or "true"
    if not of_series:
        return Visible(study, study, "true", values, as_of, shelf)
    series = " AND ".join(of_series)
    one = f"EXISTS (SELECT 1 FROM {shelf.series} e WHERE e.study_instance_uid = s.study_instance_uid AND {series})"  # noqa: S608  our own clauses
    return Visible(f"{study} AND {series}", f"{study} AND {one}", series, values, as_of, shelf)
