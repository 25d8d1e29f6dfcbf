"""How often and how long a step is tried again, and after which faults (stage 4).

Only faults of a part we depend on pass by themselves; a refusal or a broken input does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from foramen.kernel.errors import (
    ConflictError,
    InteropError,
    NotAuthenticatedError,
    PreconditionError,
    ThrottledError,
    UpstreamError,
)

_PASSING = (UpstreamError, ThrottledError, NotAuthenticatedError, PreconditionError, ConflictError)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts of a step with growing pauses.

    Parameters
    ----------
    attempts : in all; 9 attempts from 1 s doubling give a part about four minutes to come back
    first_pause_s, growth : pause before the second attempt, and how it grows
    """

    attempts: int = 9
    first_pause_s: float = 1.0
    growth: float = 2.0


# A Task must not stay in progress for ever, so its last word is tried for about an hour longer than the work itself.
CLOSING_POLICY = RetryPolicy(attempts=240, first_pause_s=2.0, growth=1.03)


def may_pass(error: BaseException) -> bool:
    """Whether trying again may help.

    412 and 409 are among them: somebody changed a resource between our read and our write, so the step reads again.
    """
    from ai_services.prediction import PipelineError  # brings NumPy, which an idle worker does without

    if isinstance(error, PipelineError):
        return error.retryable
    return isinstance(error, _PASSING) or (isinstance(error, InteropError) and error.status >= 500)
