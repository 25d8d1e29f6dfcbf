"""Rounds of a property test against one running server: what is drawn is stored, asked for, and compared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tests.contract.fhir.api import Api, running

Check = Callable[[Api, int, list[Any], list[Any]], Awaitable[None]]
"""Takes the server, the number of the round, the drawn resources and the drawn queries."""


def agrees(
    database_url: str, resources: SearchStrategy[list[Any]], queries: SearchStrategy[list[Any]], check: Check
) -> None:
    """Start a server and check 40 rounds; each round's number keeps its resources apart from the others'."""
    with asyncio.Runner() as runner:
        context = running(database_url)
        _, client = runner.run(context.__aenter__())
        api, rounds = Api(client), iter(range(1, 1_000_000))

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(resources, queries)
        def one(drawn: list[Any], asked: list[Any]) -> None:
            runner.run(_awaited(check(api, next(rounds), drawn, asked)))

        try:
            one()
        finally:
            runner.run(_awaited(context.__aexit__(None, None, None)))


async def _awaited(work: Awaitable[Any]) -> None:
    await work
