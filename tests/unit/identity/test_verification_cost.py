"""Verifying a token on the hot path costs less than 50 µs of CPU: what `foramen bench auth` prints, as a floor."""

from __future__ import annotations

from pathlib import Path

from foramen.commands.bench_auth import GOALS, verification_us


def test_a_known_token_is_verified_within_the_goal(tmp_path: Path):
    known_us, first_us = verification_us(tmp_path)
    assert known_us < GOALS["verification, µs"]
    assert first_us < 40 * GOALS["verification, µs"]
