"""How long events stay, whatever somebody configured. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fhir_server.audit.retention import is_past_retention, kept_since

_NOW = datetime(2026, 11, 22, tzinfo=UTC)


def ago(days: float) -> datetime:
    return _NOW - timedelta(days=days)


@pytest.mark.parametrize(("asked", "days"), [(180, 180), (1095, 1095), (179, 180), (0, 180), (-400, 180)])
def test_nothing_younger_than_180_days_goes(asked: int, days: int):
    assert kept_since(asked, _NOW) == ago(days)
    assert not is_past_retention(ago(days), ago(days), asked, _NOW)
    assert is_past_retention(ago(days + 0.01), ago(days + 0.01), asked, _NOW)


@pytest.mark.parametrize(("written", "sealed"), [(400, None), (400, 10), (10, 400), (10, 10)])
def test_what_is_not_sealed_or_was_sealed_or_written_lately_stays(written: int, sealed: int | None):
    assert not is_past_retention(ago(written), ago(sealed) if sealed is not None else None, 180, _NOW)
