"""Which studies move to the nearline folder, and which are packed there: by age, last access and state.

Only an operator asks; no client sees the answer. A study that waits for a patient or for a person's decision stays
online, whatever its age, unless its state is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import httpx
import psycopg

from dicomweb.lifecycle.nearline import Attachment
from foramen.kernel.errors import UpstreamError
from foramen.kernel.settings import Settings

_OLD = """s.study_date < %(oldest)s AND s.updated_at < now() - make_interval(days => %(age)s)
      AND s.state = ANY(%(states)s) AND NOT s.patient_conflict
      AND NOT EXISTS (SELECT FROM dicomweb.study_access a WHERE a.study_instance_uid = s.study_instance_uid
                      AND a.accessed_at >= now() - make_interval(days => %(unused)s))"""
_DUE = f"""
    SELECT s.study_instance_uid, array_agg(i.orthanc_id ORDER BY i.orthanc_id)
    FROM dicomweb.study s JOIN dicomweb.instance i USING (study_instance_uid)
    LEFT JOIN dicomweb.instance_file f USING (orthanc_id)
    LEFT JOIN dicomweb.indexed_file x USING (orthanc_id)
    LEFT JOIN dicomweb.nearline_file n ON n.attachment IN (f.attachment, x.attachment::text)
    WHERE {_OLD} AND n.attachment IS NULL
    GROUP BY s.study_instance_uid ORDER BY min(s.study_date) LIMIT %(most)s
"""  # noqa: S608  no value is put into it but this module's own text
_TO_PACK = f"""
    SELECT s.study_instance_uid, array_agg(n.attachment ORDER BY n.attachment)
    FROM dicomweb.study s JOIN dicomweb.nearline_file n USING (study_instance_uid)
    WHERE {_OLD} AND n.remote IS DISTINCT FROM 'there'
      AND (n.form = 'plain' OR n.unpacked_at < now() - make_interval(days => %(unused)s))
    GROUP BY s.study_instance_uid ORDER BY min(s.study_date) LIMIT %(most)s
"""  # noqa: S608  as above

_TO_OFFLOAD = f"""
    SELECT s.study_instance_uid, array_agg(n.attachment ORDER BY n.attachment)
    FROM dicomweb.study s JOIN dicomweb.nearline_file n USING (study_instance_uid)
    WHERE {_OLD} AND (n.remote IS DISTINCT FROM 'there'
                      OR n.unpacked_at < now() - make_interval(days => %(unused)s))
    GROUP BY s.study_instance_uid ORDER BY min(s.study_date) LIMIT %(most)s
"""  # noqa: S608  as above


@dataclass(frozen=True, slots=True)
class TierRules:
    """When images leave the fast folder, and when they are packed in the slow one.

    Parameters
    ----------
    move_after_days : age of the study by its date and by its last change here
    unused_days : nobody read it for as long
    states : of the study
    pack_after_days : as `move_after_days`, for packing; None: never
    offload_after_days : as `move_after_days`, for the bucket; None: never
    """

    move_after_days: int
    unused_days: int = 90
    states: tuple[str, ...] = ("registered",)
    pack_after_days: int | None = None
    offload_after_days: int | None = None


def tier_rules(settings: Settings) -> TierRules:
    """Return what the settings say."""
    states = tuple(state.strip() for state in settings.nearline_states.split(",") if state.strip())
    days = settings.nearline_after_days
    later = settings.nearline_compress_after_days, settings.nearline_s3_after_days
    return TierRules(days, settings.nearline_unused_days, states, *later)


def due(
    connection: psycopg.Connection[Any], today: date, rules: TierRules, most: int = 1000
) -> list[tuple[str, list[str]]]:
    """Return studies whose images are to move; the oldest first.

    Returns
    -------
    Study Instance UID and the Orthanc ids of its instances that are not in the nearline folder yet.
    """
    return _found(connection, _DUE, today, rules.move_after_days, rules, most)


def to_pack(
    connection: psycopg.Connection[Any], today: date, rules: TierRules, most: int = 1000
) -> list[tuple[str, list[str]]]:
    """Return studies whose nearline files are to be packed, or whose plain copies for a reader can go again.

    Returns
    -------
    Study Instance UID and the names of the files.
    """
    if rules.pack_after_days is None:
        return []
    return _found(connection, _TO_PACK, today, rules.pack_after_days, rules, most)


def to_offload(
    connection: psycopg.Connection[Any], today: date, rules: TierRules, most: int = 1000
) -> list[tuple[str, list[str]]]:
    """Return studies whose nearline files are to go to the bucket, or whose copies for a reader can go again.

    Returns
    -------
    Study Instance UID and the names of the files.
    """
    if rules.offload_after_days is None:
        return []
    return _found(connection, _TO_OFFLOAD, today, rules.offload_after_days, rules, most)


def _found(
    connection: psycopg.Connection[Any], query: str, today: date, days: int, rules: TierRules, most: int
) -> list[tuple[str, list[str]]]:
    oldest = f"{today - timedelta(days=days):%Y%m%d}"
    values = {"oldest": oldest, "age": days, "states": list(rules.states), "unused": rules.unused_days, "most": most}
    return [(str(row[0]), list(row[1])) for row in connection.execute(query, values).fetchall()]


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
