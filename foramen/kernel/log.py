"""One JSON line an event, with the trace id; field names that could hold PHI are dropped before anything is written."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import structlog

_DEEPEST_FRAMES = 8
_ALLOWED_FIELDS = frozenset(
    (
        *("event", "level", "timestamp", "trace_id", "service", "exception", "reason", "part", "pid", "port", "state"),
        *("route", "method", "status", "seconds", "count", "attempt", "client_id", "issue_code", "path"),
        *("task_id", "workflow_id", "pipeline", "model_version", "resource_type", "logical_id", "version_id"),
        *("study_instance_uid", "series_instance_uid", "sop_class_uid"),
    )
)


def _keep_allowed(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep only fields known to hold no PHI: an allow-list, so that a new field is silent until reviewed."""
    return {key: value for key, value in event.items() if key in _ALLOWED_FIELDS}


def _place_of_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write an exception as its class and where it came from; its message may quote values of a person."""
    given = event.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None
    if error is not None:
        frames = traceback.extract_tb(error.__traceback__)[-_DEEPEST_FRAMES:]
        places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
        event["exception"] = f"{type(error).__module__}.{type(error).__qualname__} at " + " < ".join(reversed(places))
    return event


class _StandardError:
    """Writes lines to what standard error is at that moment."""

    def msg(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)  # noqa: T201

    log = debug = info = warn = warning = error = critical = fatal = exception = msg


def configure_log(level: str, service: str) -> None:
    """Set up logging of this process: JSON lines on standard error."""
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper(), logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format='{"level":"%(levelname)s","event":"%(name)s"}')


def get_log() -> Any:
    """Return the structured logger."""
    return structlog.get_logger()


_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _place_of_exception,
    _keep_allowed,
    structlog.processors.JSONRenderer(ensure_ascii=False),
]
# Commands that set up no log keep these rules too. Standard output is a command's answer, often JSON: no line of the
# log belongs there.
structlog.configure(processors=_PROCESSORS, logger_factory=lambda *_: _StandardError())
