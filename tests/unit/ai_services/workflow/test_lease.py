"""Signs of life in a real database: who gives one is alive, who is silent or hangs is not."""

from __future__ import annotations

import time

import psycopg
import pytest

from ai_services.models.migrations import migrate
from ai_services.workflow.lease import Keeper, Sign, alive, give_sign

SIGN = Sign("worker-a", "cpu", "all")


def test_who_was_silent_for_a_lease_is_not_alive(database_url: str) -> None:
    migrate(database_url)
    give_sign(database_url, SIGN)
    assert alive(database_url, 5) == {"worker-a"}
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE ai.worker SET beat_at = now() - interval '6 s'")
    assert alive(database_url, 5) == frozenset()
    give_sign(database_url, SIGN)
    assert alive(database_url, 5) == {"worker-a"}


def test_a_keeper_gives_signs_until_the_loop_hangs(database_url: str) -> None:
    migrate(database_url)
    keeper = Keeper(database_url, SIGN, 0.6)
    keeper.start()
    began = time.monotonic()
    while time.monotonic() - began < 1.5:
        keeper.went_round()
        time.sleep(0.05)
    assert alive(database_url, 0.6) == {"worker-a"}
    deadline = time.monotonic() + 20  # nothing goes round any more
    while alive(database_url, 0.6) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(database_url, 0.6) == frozenset()
    keeper.stop()


def test_no_sign_without_the_table(database_url: str) -> None:
    with pytest.raises(psycopg.Error):
        Keeper(database_url, SIGN, 1).start()
