"""Which faults are tried again, and how often a request is begun anew."""

from __future__ import annotations

import pytest

from ai_services.prediction import PipelineError
from ai_services.workflow.claim import next_run_id, run_number
from ai_services.workflow.retry import CLOSING_POLICY, RetryPolicy, may_pass
from foramen.kernel.errors import (
    ForbiddenError,
    InteropError,
    InvalidResourceError,
    NotFoundError,
    PreconditionError,
    UpstreamError,
)


@pytest.mark.parametrize("error", [UpstreamError("x"), PreconditionError("x"), InteropError("x")])
def test_faults_that_pass(error: Exception) -> None:
    assert may_pass(error)


@pytest.mark.parametrize(
    "error",
    [
        ForbiddenError("x"),
        NotFoundError("x"),
        InvalidResourceError("x"),
        ValueError("x"),
        PipelineError("not-lumbar-mr", "no", "否"),
    ],
)
def test_faults_that_stay(error: Exception) -> None:
    assert not may_pass(error)


def test_a_pipeline_says_itself_whether_later_may_help() -> None:
    assert may_pass(PipelineError("busy", "busy", "忙", retryable=True))


def test_work_waits_minutes_and_the_last_word_longer() -> None:
    def total_s(policy: RetryPolicy) -> float:
        return sum(policy.first_pause_s * policy.growth**attempt for attempt in range(policy.attempts - 1))

    assert 120 < total_s(RetryPolicy()) < 600
    assert total_s(CLOSING_POLICY) > 3600


def test_runs_of_one_request_are_numbered() -> None:
    assert run_number("abc-v3") == 1
    assert next_run_id("abc-v3") == "abc-v3.2"
    assert next_run_id("abc-v3.2") == "abc-v3.3"
    assert run_number("abc-v3.3") == 3
