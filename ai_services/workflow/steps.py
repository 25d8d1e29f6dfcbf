"""How a run goes through its steps: each remembered, tried again where that helps, and always answered (stage 4).

DBOS replays a workflow function from its recorded steps, so it decides nothing by clock, chance or the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from dbos import DBOS
from dbos import error as dbos_error
from sqlalchemy.exc import SQLAlchemyError

from ai_services.workflow import claim, spool
from ai_services.workflow import services as worker_services
from ai_services.workflow.claim import TaskLostError
from ai_services.workflow.retry import RetryPolicy, may_pass
from foramen.kernel.errors import InteropError
from foramen.kernel.log import get_log

T = TypeVar("T")
active_runs: set[str] = set()
"""Runs that this process works on now."""


def step(name: str, function: Callable[..., T], *arguments: Any, policy: RetryPolicy | None = None) -> T:
    """Run one durable step: on a replay its recorded result is returned instead."""
    chosen = policy or worker_services.current().retry
    options = {
        "name": name,
        "retries_allowed": True,
        "max_attempts": chosen.attempts,
        "interval_seconds": chosen.first_pause_s,
        "backoff_rate": chosen.growth,
        "should_retry": may_pass,
    }
    return DBOS.run_step(options, function, *arguments)  # type: ignore[no-any-return]


def answer(task_id: str, run_id: str, trace_id: str, work: Callable[[], tuple[str, str]]) -> None:
    """Do the work of a Task and write its last word, whatever happens.

    Parameters
    ----------
    task_id, run_id : of the claim
    trace_id : named in the answer to a fault of ours, so that the log can be found
    work : runs the steps; returns kind and reference of the result
    """
    log = get_log()
    active_runs.add(run_id)
    try:
        _answer(task_id, run_id, trace_id, work, log)
    finally:
        active_runs.discard(run_id)


def _answer(task_id: str, run_id: str, trace_id: str, work: Callable[[], tuple[str, str]], log: Any) -> None:
    from ai_services.prediction import PipelineError  # brings NumPy, which an idle worker does without

    with structlog.contextvars.bound_contextvars(task_id=task_id, workflow_id=run_id, trace_id=trace_id):
        try:
            kind, reference = work()
            step("complete", _complete, task_id, run_id, kind, reference, policy=worker_services.current().closing)
            log.info("task completed")
        except TaskLostError:
            log.info("task lost", reason="cancelled, answered or taken over")
        except PipelineError as declined:
            status = "failed" if declined.retryable else "rejected"
            log.info("task declined", reason=declined.reason_code, state=status)
            _give_up(task_id, run_id, status, declined.reason_code, declined.text_zh, declined.text_en)
        except dbos_error.DBOSMaxStepRetriesExceeded as exhausted:
            _give_up(task_id, run_id, "failed", *_exhausted(exhausted, log))
        except (SQLAlchemyError, dbos_error.DBOSException) as outage:
            # The memory of the run failed, not the work: the Task stays ours and is taken up again when it is back.
            log.warning("run interrupted", reason=type(outage).__name__)
            raise
        except InteropError as refused:
            log.warning("task failed", issue_code=refused.issue_code, status=refused.status)
            _give_up(task_id, run_id, "failed", *_unexpected(trace_id))
        except Exception:
            log.exception("task failed")
            _give_up(task_id, run_id, "failed", *_unexpected(trace_id))
        spool.forget(run_id)


def _complete(task_id: str, run_id: str, kind: str, reference: str) -> str:
    services = worker_services.current()
    services.wait(claim.complete(services.fhir, task_id, run_id, kind, reference))
    return reference


def _give_up(task_id: str, run_id: str, status: str, code: str, text_zh: str, text_en: str) -> None:
    policy = worker_services.current().closing
    step("give-up", _write_reason, task_id, run_id, status, code, text_zh, text_en, policy=policy)


def _write_reason(task_id: str, run_id: str, status: str, code: str, text_zh: str, text_en: str) -> str:
    services = worker_services.current()
    services.wait(
        claim.give_up(services.fhir, task_id, run_id, status=status, code=code, text_zh=text_zh, text_en=text_en)
    )
    return status


def _exhausted(exhausted: dbos_error.DBOSMaxStepRetriesExceeded, log: Any) -> tuple[str, str, str]:
    from ai_services.prediction import PipelineError

    last = exhausted.errors[-1] if exhausted.errors else None
    if isinstance(last, PipelineError):
        return last.reason_code, last.text_zh, last.text_en
    text = last.message if isinstance(last, InteropError) else "A part that the analysis needs does not answer"
    log.warning("task failed", reason=text)
    return "upstream-unavailable", f"所需服务无响应，未能完成分析（{text}）", text


def _unexpected(trace_id: str) -> tuple[str, str, str]:
    return "unexpected", f"未能完成分析，追踪号 {trace_id}", f"Could not look; trace id {trace_id}"
