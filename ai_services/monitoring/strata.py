"""Which groups a study belongs to: site, scanner, sex, age band. Pure; what is not known is a group of its own.

Bands are wide and ages stop at 80, so that a small cell names nobody.
"""

from __future__ import annotations

from datetime import date
from typing import Any

Resource = dict[str, Any]
KINDS = ("site", "scanner", "sex", "age")
UNKNOWN = "unknown"
_BANDS = ((0, "0-39"), (40, "40-59"), (60, "60-79"), (80, "80+"))


def strata_of(patient: Resource, scanner: str | None, effective: str) -> dict[str, str]:
    """Groups of one study by kind.

    Parameters
    ----------
    patient : the Patient
    scanner : manufacturer and model, None where the archive does not say
    effective : FHIR date of the examination
    """
    site = str(patient.get("managingOrganization", {}).get("reference", "")).removeprefix("Organization/")
    return {
        "site": site or UNKNOWN,
        "scanner": scanner or UNKNOWN,
        "sex": str(patient.get("gender") or UNKNOWN),
        "age": age_band(str(patient.get("birthDate", "")), effective),
    }


def age_band(born: str, on: str) -> str:
    """Band of the age at a day; dates may be shorter than a day, and then the younger band is taken."""
    try:
        birth, day = date.fromisoformat(_whole(born, "12-31")), date.fromisoformat(_whole(on, "01-01"))
    except ValueError:
        return UNKNOWN
    years = day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))
    if not 0 <= years <= 130:
        return UNKNOWN
    return [name for least, name in _BANDS if years >= least][-1]


def _whole(text: str, rest: str) -> str:
    """A FHIR date (YYYY, YYYY-MM or longer) as a day."""
    return text[:10] if len(text) >= 10 else f"{text}-{rest[3:]}" if len(text) == 7 else f"{text}-{rest}"
