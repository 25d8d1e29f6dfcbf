"""The cookies of the sign-in pages: HttpOnly, SameSite=Lax, `__Host-` and Secure under https.

https://www.rfc-editor.org/rfc/rfc6265 and OWASP Session Management Cheat Sheet
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.environment import Environment
from foramen.identity.opaque_tokens import new_opaque_token

SESSION, CSRF, LANGUAGE = "foramen-session", "foramen-csrf", "foramen-language"
SIGN_IN, DEVICE, DONE = "foramen-sign-in", "foramen-device", "foramen-done"
_MAX_LENGTH = 128


def _name(env: Environment, name: str) -> str:
    return f"__Host-{name}" if env.secure else name


def read_cookie(env: Environment, request: Request, name: str) -> str | None:
    """Return a cookie of ours; one that is too long to be ours counts as absent."""
    value = request.cookies.get(_name(env, name))
    return value if value and len(value) <= _MAX_LENGTH else None


def set_cookie(env: Environment, response: Response, name: str, value: str, max_age_s: int | None = None) -> None:
    """Set a cookie of ours."""
    response.set_cookie(
        _name(env, name), value, max_age=max_age_s, path="/", secure=env.secure, httponly=True, samesite="lax"
    )


def clear_cookie(env: Environment, response: Response, name: str) -> None:
    """Remove a cookie of ours."""
    response.delete_cookie(_name(env, name), path="/", secure=env.secure, httponly=True, samesite="lax")


def csrf_binding(env: Environment, request: Request) -> tuple[str, bool]:
    """Return what the form token is bound to — the session, or a cookie before sign-in — and whether it is new."""
    bound = read_cookie(env, request, SESSION) or read_cookie(env, request, CSRF)
    return (bound, False) if bound else (new_opaque_token(), True)
