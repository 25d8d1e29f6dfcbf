"""How long what a URL names has to be kept, asked of the index: `lifecycle.retention` decides."""

from __future__ import annotations

from datetime import UTC, date, datetime

from dicomweb.lifecycle.retention import RecordType, RetentionRules, require_expired, strictest
from dicomweb.rejection.rows import Connection, Target
from foramen.kernel.settings import Settings

_KINDS = """SELECT DISTINCT e.own_output FROM dicomweb.series e
    WHERE e.study_instance_uid = %s AND (%s::text IS NULL OR e.series_instance_uid = %s)"""


def require_terms_ended(connection: Connection, target: Target, settings: Settings) -> None:
    """Refuse to give up what has to be kept.

    Whether somebody was an inpatient the index does not know: images count as an inpatient's, the longest. The period
    runs from the study's date; a study without one is always kept.

    Raises
    ------
    ConflictError
        It has to be kept.
    """
    rules = RetentionRules(
        settings.retention_inpatient_years, settings.retention_outpatient_years, settings.retention_own_output_years
    )
    found = connection.execute(_KINDS, (target.study, target.series, target.series)).fetchall()
    kinds: list[RecordType] = ["own-output" if row[0] else "inpatient" for row in found]
    row = connection.execute(
        "SELECT study_date FROM dicomweb.study WHERE study_instance_uid = %s", (target.study,)
    ).fetchone()
    day = _day(row[0] if row else None)
    require_expired(strictest(kinds, rules), day, datetime.now(UTC).date(), rules)


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:8]}") if text else None
    except ValueError:
        return None
