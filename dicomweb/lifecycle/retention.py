"""How long a study has to be kept, by its kind. Pure. The years are settings, and UNVERIFIED as law: ask a lawyer.

Nothing here deletes: it says what may not be deleted yet, and what could be reviewed for deletion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from foramen.kernel.errors import ConflictError

RecordType = Literal["inpatient", "outpatient", "own-output"]


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """Years from the study's date on, by kind of record."""

    inpatient_years: int
    outpatient_years: int
    own_output_years: int

    def years(self, record_type: RecordType) -> int:
        """Return the years of a kind."""
        chosen = {"inpatient": self.inpatient_years, "outpatient": self.outpatient_years}
        return chosen.get(record_type, self.own_output_years)


def keep_until(record_type: RecordType, last_day: date, rules: RetentionRules) -> date:
    """Return the first day on which a record may be removed (29 February counts to 1 March)."""
    year = last_day.year + rules.years(record_type)
    try:
        return last_day.replace(year=year)
    except ValueError:
        return date(year, 3, 1)


def strictest(record_types: Sequence[RecordType], rules: RetentionRules) -> RecordType:
    """Return the kind that is kept longest; of unknown kind: as an inpatient's."""
    return max(record_types, key=rules.years) if record_types else "inpatient"


def require_expired(record_type: RecordType, last_day: date | None, today: date, rules: RetentionRules) -> None:
    """Refuse to remove what has to be kept; a study without a date always has to.

    Raises
    ------
    ConflictError
        It has to be kept.
    """
    if last_day is None or today < keep_until(record_type, last_day, rules):
        raise ConflictError("The retention period of this record has not ended")
