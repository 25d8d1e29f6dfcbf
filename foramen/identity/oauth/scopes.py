"""Which of the requested scopes are granted: intersections of SMART v2 (and v1) scopes with their queries, pure.

A scope without a query covers the same with one; of two queries both have to be fulfilled. Nothing is ever widened.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

from foramen.kernel import scope_query
from foramen.kernel.access_context import ADMINISTRATOR, GATEWAY, Scope, parse_scope, parse_scopes

OPENID_SCOPES = ("openid", "fhirUser", "profile")
LAUNCH_SCOPES = ("launch", "launch/patient", "launch/encounter")
REFRESH_SCOPES = ("offline_access", "online_access")
PLAIN_SCOPES = (*OPENID_SCOPES, *LAUNCH_SCOPES, *REFRESH_SCOPES)
_ORDER = "cruds"
_KEPT = 1024
"""Answers kept of each question below: they depend on nothing but the texts, and the same apps ask day in, day out."""
_LONGEST_KEPT = 4096


class Permitted(tuple[Scope, ...]):
    """What may be granted: scopes that know their hash and their spelling, each made once."""

    @cached_property
    def text(self) -> str:
        """Scopes separated by spaces."""
        return " ".join(map(str, self))

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash


def _meet(left: Scope, right: Scope) -> Scope | None:
    """What both scopes grant, or None."""
    if left.context != right.context or (
        "*" not in (left.resource_type, right.resource_type) and left.resource_type != right.resource_type
    ):
        return None
    kind = right.resource_type if left.resource_type == "*" else left.resource_type
    actions = "".join(action for action in _ORDER if left.covers(kind, action) and right.covers(kind, action))
    return Scope(left.context, kind, actions, scope_query.both(left.query, right.query)) if actions else None


def _covered(scope: Scope, scopes: Sequence[Scope]) -> bool:
    """Whether the scopes together grant everything `scope` grants."""
    return all(
        any(
            other.context == scope.context
            and other.covers(scope.resource_type, action)
            and other.asks_no_more_than(scope)
            for other in scopes
        )
        for action in scope.actions
    )


def _merged(scopes: Sequence[Scope]) -> list[Scope]:
    """Unite scopes of one type and query, and drop actions that another of them grants already."""
    actions: dict[tuple[str, str, str], set[str]] = {}
    for scope in scopes:
        actions.setdefault((scope.context, scope.resource_type, scope.query), set()).update(scope.actions)
    united = [Scope(*key[:2], _in_order(granted), key[2]) for key, granted in actions.items()]
    merged = []
    for scope in united:
        others = [other for other in united if other is not scope]
        own = {action for action in scope.actions if not _covered(replace(scope, actions=action), others)}
        if own:
            merged.append(replace(scope, actions=_in_order(own)))
    return merged


def _in_order(actions: set[str]) -> str:
    return "".join(action for action in _ORDER if action in actions)


def intersect(requested: Scope, allowed: Sequence[Scope]) -> list[Scope]:
    """Return the part of one requested scope that `allowed` covers, as a minimal list."""
    return _merged([common for item in allowed if (common := _meet(requested, item)) is not None])


def grant(
    requested: str,
    registered: str,
    permitted: Sequence[Scope],
    contexts: Sequence[str],
    *,
    administrator: bool = False,
) -> str:
    """Decide the granted scope.

    Parameters
    ----------
    requested : what the client asks for; what is not understood grants nothing
    registered : scope of the client's registration
    permitted : what the person behind the request may be granted (`roles.role_scopes`); for a service, its registration
    contexts : the contexts this grant type may carry ("patient", "user" or "system")
    administrator : whether the person may be granted ``foramen/admin`` (a client has to be registered with it, too)

    Returns
    -------
    Granted scopes separated by spaces, in the order asked; a scope granted in full keeps the client's spelling.
    """
    decide = _granted if len(requested) + len(registered) <= _LONGEST_KEPT else _granted.__wrapped__
    held = permitted if isinstance(permitted, Permitted) else Permitted(permitted)
    return decide(requested, registered, held, tuple(contexts), administrator)


@lru_cache(maxsize=_KEPT)
def _granted(
    requested: str, registered: str, permitted: tuple[Scope, ...], contexts: tuple[str, ...], administrator: bool
) -> str:
    known = {*PLAIN_SCOPES, ADMINISTRATOR} if administrator else set(PLAIN_SCOPES)
    known |= {GATEWAY} if contexts == ("system",) else set()  # For our own services; nobody else is registered for it.
    registered_scopes, plain = parse_scopes(registered), set(registered.split()) & known
    granted: list[str] = []
    for text in dict.fromkeys(requested.split()):
        scope = parse_scope(text)
        if scope is None:
            granted += [text] if text in plain else []
        elif scope.context in contexts:
            first = intersect(scope, registered_scopes)
            final = _merged([part for item in first for part in intersect(item, permitted)])
            granted += [text] if _covered(scope, final) else [str(part) for part in final]
    return " ".join(dict.fromkeys(granted))


def covers(whole: str, part: str) -> bool:
    """Whether one scope string grants everything that another does."""
    return (_covers if len(whole) + len(part) <= _LONGEST_KEPT else _covers.__wrapped__)(whole, part)


@lru_cache(maxsize=_KEPT)
def _covers(whole: str, part: str) -> bool:
    texts, scopes = whole.split(), parse_scopes(whole)
    return all(
        text in texts or ((scope := parse_scope(text)) is not None and _covered(scope, scopes)) for text in part.split()
    )


def within(requested: str, limit: str) -> str:
    """Return what of one scope string another grants too, spelled as the first where nothing is lost."""
    texts, scopes = limit.split(), parse_scopes(limit)
    left: list[str] = []
    for text in requested.split():
        scope = parse_scope(text)
        if scope is None:
            left += [text] if text in texts else []
        else:
            left += [text] if _covered(scope, scopes) else [str(part) for part in intersect(scope, scopes)]
    return " ".join(dict.fromkeys(left))


def narrowed(requested: str, original: str) -> str | None:
    """Return the requested scope if it lies within the original one, else None (RFC 6749 §6: refresh never widens)."""
    return requested if covers(original, requested) else None


def resource_scopes(scope: str) -> tuple[Scope, ...]:
    """Return the resource scopes of a scope string."""
    return _parsed(scope) if len(scope) <= _LONGEST_KEPT else parse_scopes(scope)


_parsed = lru_cache(maxsize=_KEPT)(parse_scopes)


def unknown_scopes(scope: str) -> list[str]:
    """Return the scopes that mean nothing here; used where an operator types them."""
    known = (*PLAIN_SCOPES, ADMINISTRATOR)
    return [text for text in scope.split() if text not in known and parse_scope(text) is None]
