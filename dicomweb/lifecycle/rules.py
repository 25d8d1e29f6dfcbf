"""Which studies move to the nearline folder: by age and state. Only an operator asks; no client sees the answer.

A study that waits for a patient or for a person's decision stays online, whatever its age.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import httpx
import psycopg

from dicomweb.lifecycle.nearline import Attachment
from foramen.kernel.errors import UpstreamError

_DUE = """
    SELECT s.study_instance_uid, array_agg(i.orthanc_id ORDER BY i.orthanc_id)
    FROM dicomweb.study s JOIN dicomweb.instance i USING (study_instance_uid)
    WHERE s.study_date < %s AND s.updated_at < now() - make_interval(days => %s)
      AND s.state = 'registered' AND NOT s.patient_conflict
    GROUP BY s.study_instance_uid ORDER BY min(s.study_date) LIMIT %s
"""


def due(
    connection: psycopg.Connection[Any], today: date, after_days: int, most: int = 1000
) -> list[tuple[str, list[str]]]:
    """Return studies that are older than `after_days`, by their date and by their last change here; oldest first.

    Returns
    -------
    Study Instance UID and the Orthanc ids of its instances.
    """
    oldest = f"{today - timedelta(days=after_days):%Y%m%d}"
    return [(str(row[0]), list(row[1])) for row in connection.execute(_DUE, (oldest, after_days, most)).fetchall()]


def attachment(http: httpx.Client, study: str, orthanc_id: str) -> Attachment | None:
    """Return the file of an instance in the archive's folder; None: the archive no longer has it.

    Raises
    ------
    UpstreamError
        The archive does not answer.
    """
    try:
        response = http.get(f"/instances/{orthanc_id}/attachments/dicom/info")
        if response.status_code == 404:
            return None
        response.raise_for_status()
        return Attachment(str(response.json()["Uuid"]), study)
    except (httpx.HTTPError, KeyError, ValueError) as exc:
        raise UpstreamError("The image archive does not answer") from exc
