"""How long a medical record has to be kept. Pure.

医疗机构病历管理规定 (2013) art. 29: outpatient and emergency records at least 15 years, inpatient records at least 30,
from the last visit. UNVERIFIED: the article is quoted from memory, a lawyer has to confirm it; the years are settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

NOT_MEDICAL = frozenset(
    (
        *("Patient", "RelatedPerson", "Person", "Consent", "Account", "AuditEvent", "Provenance", "Group", "Binary"),
        *("Schedule", "Appointment", "AppointmentResponse", "Coverage", "Task", "List"),
    )
)
"""Types that are no part of a medical record by themselves."""
_INPATIENT = frozenset({"IMP", "ACUTE", "NONAC"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Years:
    """For how many years after the last visit a record is kept."""

    outpatient: int
    inpatient: int


@dataclass(slots=True)
class LastVisit:
    """What is known of the last visit, resource by resource.

    Parameters
    ----------
    last : the latest date in the medical record; None: no resource has a date
    written : when something of it was last written, which counts when nothing has a date
    classes : codes of `Encounter.class`; "" for an Encounter without
    """

    now: datetime
    last: datetime | None = None
    written: datetime | None = None
    classes: set[str] = field(default_factory=set)
    resources: int = 0

    def add(self, resource: dict[str, Any], latest: int | None, written: datetime) -> None:
        """Take one resource of the record.

        Parameters
        ----------
        latest : end of its main date in microseconds since 1970, None without one; a future one counts as today
        """
        if resource["resourceType"] in NOT_MEDICAL:
            return
        self.resources += 1
        if resource["resourceType"] == "Encounter":
            self.classes.add(str((resource.get("class") or {}).get("code", "")))
        self.written = max(self.written or written, written)
        if latest is not None:
            seconds = min(latest / 1e6, self.now.timestamp())
            at = _EPOCH + timedelta(seconds=seconds)
            self.last = max(self.last or at, at)

    def kept_until(self, years: Years) -> datetime | None:
        """Return the moment until which the record has to be kept; None: there is no medical record, or it is over.

        The longer time holds unless every Encounter is known to be no inpatient one, and there is one.
        """
        if not self.resources:
            return None
        ambulatory = bool(self.classes) and "" not in self.classes and not self.classes & _INPATIENT
        found = self.last or self.written or self.now
        until = _later(found, years.outpatient if ambulatory else years.inpatient)
        return until if until > self.now else None


def _later(at: datetime, years: int) -> datetime:
    try:
        return at.replace(year=at.year + years)
    except ValueError:  # 29 February
        return at.replace(year=at.year + years, month=3, day=1)
