"""`/apps/admin/health`: which parts answer, the keys that sign, the settings in force. Secrets are never settings."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from urllib.parse import urlsplit

import httpx
from starlette.responses import Response

from foramen.admin.layout import render
from foramen.admin.page import Call
from foramen.identity.database import utc_now
from foramen.identity.oauth.signing_keys import SigningKeys
from foramen.kernel.settings import Settings
from foramen.kernel.settings_zh import MEANINGS_ZH

_WAIT_S = 5.0
_DOTS = "••••"
_HIDDEN = frozenset({"database_url", "kms_command"})
"""Settings whose value may hold a password anywhere."""
_ORIGIN_ONLY = frozenset({"break_glass_alert_url"})
"""Addresses whose path is often their secret, as of a chat's webhook."""


@dataclass(frozen=True, slots=True)
class SettingLine:
    """One setting: its variable, the value in force, whether that is not the default, what it means."""

    variable: str
    value: str
    changed: bool
    description: str


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One signing key; `state` is ``active``, ``next`` or ``retired``."""

    kid: str
    alg: str
    state: str
    signs_from: datetime | None
    tokens_until: datetime | None


async def health_page(call: Call) -> Response:
    """Show how the system is and how it is set up."""
    parts = await _parts(call)
    return render(
        call,
        "health.html",
        parts=parts,
        keys=_keys(call.env.signer.keys),
        settings=_settings(call.env.settings, call.language),
        version=version("foramen"),
        python=platform.python_version(),
        now=utc_now(),
    )


async def _parts(call: Call) -> dict[str, bool] | None:
    """Ask the web process which of its parts are ready; None: it does not answer."""
    try:
        async with httpx.AsyncClient(timeout=_WAIT_S, transport=call.env.transport, trust_env=False) as http:
            answer = await http.get(f"{call.env.settings.internal_origin}/readyz")
            parts = answer.json()["parts"]
            return {str(name): bool(ready) for name, ready in parts.items()}
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _keys(keys: SigningKeys) -> list[KeyLine]:
    now = time.time()
    return [
        KeyLine(
            key.kid,
            key.alg,
            "active" if key.kid == keys.active(key.alg).kid else "next" if key.signs_from > now else "retired",
            datetime.fromtimestamp(key.signs_from, UTC) if key.signs_from else None,  # The first ones: from the start.
            datetime.fromtimestamp(key.tokens_until, UTC) if key.tokens_until else None,
        )
        for key in keys.all()
    ]


def _settings(settings: Settings, language: str) -> list[SettingLine]:
    """Return every setting, those that differ from the default first, with its meaning in the page's language."""
    prefix = str(settings.model_config.get("env_prefix", ""))
    lines = []
    for name, field in type(settings).model_fields.items():
        value, changed = getattr(settings, name), getattr(settings, name) != field.default
        said = "" if value is None else _shown(name, str(value))
        meaning = MEANINGS_ZH[name] if language == "zh" else field.description or ""
        lines.append(SettingLine(f"{prefix}{name.upper()}", said, changed, meaning))
    return sorted(lines, key=lambda line: not line.changed)


def _shown(name: str, value: str) -> str:
    """Return a setting as the page may show it: of an address neither user and password nor query and fragment."""
    if name in _HIDDEN and value:
        return _DOTS
    if "://" not in value:
        return value
    try:
        parts = urlsplit(value)
    except ValueError:
        return _DOTS
    host = f"{_DOTS}@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
    if name in _ORIGIN_ONLY:
        return f"{parts.scheme}://{host}/{_DOTS}"
    return f"{parts.scheme}://{host}{parts.path}{f'?{_DOTS}' if parts.query or parts.fragment else ''}"
