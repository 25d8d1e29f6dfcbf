"""Rules of forwarding and prefetching: data, written by `foramen forward` and `foramen prefetch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dicomweb.instance_header import tag_of, text_values
from dicomweb.study_index import IndexedSeries
from foramen.kernel.errors import NotFoundError

_MODALITY, _BODY_PART = tag_of("Modality"), tag_of("BodyPartExamined")


@dataclass(frozen=True, slots=True)
class SeriesRule:
    """Which series a rule is for; nothing named: all.

    Parameters
    ----------
    peer : AE title of the destination, or of the source
    since : studies that were registered before do not start it
    """

    name: str
    peer: str
    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    since: datetime
    own_output: bool = False

    def covers(self, series: IndexedSeries) -> bool:
        """Whether a series falls under the rule."""
        if series.own_output and not self.own_output:
            return False
        modality = (text_values(series.attributes.get(_MODALITY, {})) or [""])[0]
        part = (text_values(series.attributes.get(_BODY_PART, {})) or [""])[0]
        return (not self.modalities or modality in self.modalities) and self.covers_body_part(part)

    def covers_body_part(self, part: str) -> bool:
        """Whether a Body Part Examined falls under the rule; one that is absent does, as many devices leave it out."""
        return not self.body_parts or not part or part.upper() in self.body_parts


def rule_of(row: Any, peer: str) -> SeriesRule:
    """Build a rule from its row; `peer` is the column that names the other side."""
    own = bool(row["own_output"]) if peer == "destination" else False
    return SeriesRule(row["name"], row[peer], tuple(row["modalities"]), tuple(row["body_parts"]), row["since"], own)


def add_forward_rule(
    database_url: str,
    name: str,
    destination: str,
    *,
    modalities: Sequence[str] = (),
    body_parts: Sequence[str] = (),
    own_output: bool = False,
) -> None:
    """Add a rule, or replace it.

    Raises
    ------
    NotFoundError
        There is no such destination.
    """
    query = """INSERT INTO dicomweb.forward_rule (name, destination, modalities, body_parts, own_output)
        VALUES (%s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET destination = EXCLUDED.destination,
        modalities = EXCLUDED.modalities, body_parts = EXCLUDED.body_parts, own_output = EXCLUDED.own_output,
        active = true"""
    _insert(database_url, query, (name, destination, _upper(modalities), _upper(body_parts), own_output))


def add_prefetch_rule(
    database_url: str,
    name: str,
    source: str,
    *,
    modalities: Sequence[str] = (),
    body_parts: Sequence[str] = (),
    years: int = 5,
    most: int = 5,
) -> None:
    """Add a rule, or replace it; see `add_forward_rule`."""
    query = """INSERT INTO dicomweb.prefetch_rule (name, source, modalities, body_parts, years, most)
        VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET source = EXCLUDED.source,
        modalities = EXCLUDED.modalities, body_parts = EXCLUDED.body_parts, years = EXCLUDED.years,
        most = EXCLUDED.most, active = true"""
    _insert(database_url, query, (name, source, _upper(modalities), _upper(body_parts), years, most))


def remove_rule(database_url: str, kind: str, name: str) -> None:
    """Remove a rule with what it has still to do; `kind` is "forward" or "prefetch".

    Raises
    ------
    NotFoundError
        There is none.
    """
    table = {"forward": "forward_rule", "prefetch": "prefetch_rule"}[kind]
    with psycopg.connect(database_url) as connection:
        if connection.execute(f"DELETE FROM dicomweb.{table} WHERE name = %s", (name,)).rowcount == 0:  # noqa: S608  one of two
            raise NotFoundError("No such rule")


def rules_status(database_url: str, kind: str) -> list[dict[str, Any]]:
    """Each rule with how many of its jobs are in which state, the oldest that waits and the latest fault."""
    rule, job, peer = {
        "forward": ("forward_rule", "forward_job", "destination"),
        "prefetch": ("prefetch_rule", "prefetch_job", "source"),
    }[kind]
    query = f"""
        SELECT r.name, r.{peer}, r.modalities, r.body_parts, r.active,
               (SELECT coalesce(jsonb_object_agg(state, number), '{{}}'::jsonb) FROM
                   (SELECT state, count(*) AS number FROM dicomweb.{job} j WHERE j.rule_name = r.name GROUP BY 1) c)
                   AS jobs,
               (SELECT min(due_at) FROM dicomweb.{job} j WHERE j.rule_name = r.name AND state = 'waiting') AS next_at,
               (SELECT last_fault FROM dicomweb.{job} j WHERE j.rule_name = r.name AND last_fault IS NOT NULL
                ORDER BY due_at DESC LIMIT 1) AS last_fault
        FROM dicomweb.{rule} r ORDER BY r.name"""  # noqa: S608  names out of the table above
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        rows = connection.execute(query).fetchall()
    return [row | {"next_at": row["next_at"].isoformat() if row["next_at"] else None} for row in rows]


def retry_failed(database_url: str, kind: str, name: str) -> int:
    """Try the failed jobs of a rule again; returns how many."""
    job = {"forward": "forward_job", "prefetch": "prefetch_job"}[kind]
    query = f"""UPDATE dicomweb.{job} SET state = 'waiting', attempts = 0, due_at = now()
                WHERE rule_name = %s AND state = 'failed'"""  # noqa: S608  one of two
    with psycopg.connect(database_url) as connection:
        return connection.execute(query, (name,)).rowcount


def _insert(database_url: str, query: str, values: tuple[Any, ...]) -> None:
    try:
        with psycopg.connect(database_url) as connection:
            connection.execute(query, values)
    except psycopg.errors.ForeignKeyViolation as exc:
        raise NotFoundError("No such AE account") from exc


def _upper(values: Sequence[str]) -> list[str]:
    return [value.strip().upper() for value in values if value.strip()]
