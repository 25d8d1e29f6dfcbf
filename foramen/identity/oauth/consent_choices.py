"""The consent page's choices: each scope taken apart into what reads and what writes, and put together again. Pure.

The form sends back names of parts; what is granted is built from the scope that was asked for, never from the form.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from foramen.identity.oauth.scopes import LAUNCH_SCOPES, OPENID_SCOPES
from foramen.kernel.access_context import Scope, parse_scope

READ, WRITE, IDENTITY, STAY, CONTEXT = "read", "write", "identity", "stay", "context"
GROUPS = (READ, WRITE, IDENTITY, STAY)
_ACTIONS = {READ: "rs", WRITE: "cud"}
_FIELD = "allow:"


@dataclass(frozen=True, slots=True)
class Choice:
    """One line of the page that the person may uncheck.

    `group` is one of `GROUPS`, or `CONTEXT` for what gives no right by itself and cannot be unchecked.
    """

    group: str
    scope: str

    @property
    def field(self) -> str:
        """Name of the form field."""
        return f"{_FIELD}{self.scope}"


def choices(scope: str) -> list[Choice]:
    """Return the lines for a requested scope, in the order asked."""
    return list(dict.fromkeys(choice for text in scope.split() for choice in _parts(text)))


def _parts(text: str) -> Iterator[Choice]:
    parsed = parse_scope(text)
    if parsed is None:
        yield Choice(_plain_group(text), text)
        return
    for group in _ACTIONS:
        part = _part(parsed, group)
        if part is not None:
            yield Choice(group, str(part))


def _part(scope: Scope, group: str) -> Scope | None:
    actions = "".join(action for action in scope.actions if action in _ACTIONS[group])
    return replace(scope, actions=actions) if actions else None


def _plain_group(text: str) -> str:
    if text in LAUNCH_SCOPES:
        return CONTEXT
    if text in OPENID_SCOPES:
        return IDENTITY
    return STAY if text.endswith("_access") else WRITE  # foramen/admin changes the installation


def chosen(scope: str, fields: Collection[str], *, read_only: bool = False) -> str:
    """Return what the person left of a requested scope.

    Parameters
    ----------
    fields : names of the form fields that came back checked
    read_only : take every part that writes away, whatever is checked

    Returns
    -------
    Scopes separated by spaces; those left whole keep the client's spelling. Empty when no right is left.
    """
    kept: list[str] = []
    rights = False
    for text in scope.split():
        parts = list(_parts(text))
        left = [part for part in parts if _is_kept(part, fields, read_only=read_only)]
        if left:
            kept.append(text if len(left) == len(parts) else left[0].scope)
            rights = rights or left[0].group != CONTEXT
    return " ".join(kept) if rights else ""


def _is_kept(choice: Choice, fields: Collection[str], *, read_only: bool) -> bool:
    if choice.group == CONTEXT:
        return True
    return choice.field in fields and not (read_only and choice.group == WRITE)
