"""Turn what was sent and received into what a page shows: tables, code blocks, decoded tokens. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson

from foramen.launcher import walk
from foramen.launcher.faults import Place, rfc
from foramen.launcher.sending import json_of
from foramen.launcher.steps import HttpRequest
from foramen.launcher.tokens import decode
from foramen.launcher.trials import ANSWERED, READY, WAITING, Exchange, Trial

_SMART = "https://hl7.org/fhir/smart-app-launch/STU2.2"
PLACES: dict[str, Place] = {
    walk.DISCOVERY: Place("SMART 2.2, Conformance", f"{_SMART}/conformance.html#using-well-known"),
    walk.AUTHORIZE: Place(
        "SMART 2.2, Obtain authorization code", f"{_SMART}/app-launch.html#obtain-authorization-code"
    ),
    walk.CALLBACK: rfc(9207, "2"),
    walk.TOKEN: Place("SMART 2.2, Obtain access token", f"{_SMART}/app-launch.html#obtain-access-token"),
    walk.KEYS: rfc(7517, "5"),
    walk.PATIENT: rfc(6750, "2.1"),
    walk.OBSERVATIONS: rfc(6750, "2.1"),
    walk.STUDIES: Place(
        "DICOM PS3.18 §10.6", "https://dicom.nema.org/medical/dicom/current/output/html/part18.html#sect_10.6"
    ),
    walk.INTROSPECTION: Place("SMART 2.2, Token introspection", f"{_SMART}/token-introspection.html"),
    walk.REFRESH: Place("SMART 2.2, Refresh access token", f"{_SMART}/app-launch.html#refresh-access-token"),
    walk.REVOCATION: rfc(7009, "2"),
}
_TOKENS = {"access_token": "ACCESS_TOKEN", "refresh_token": "REFRESH_TOKEN", "id_token": "ID_TOKEN"}
_TIMES = ("exp", "iat", "auth_time")
Line = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A token of an answer: as text, and what it says if it is a JWT."""

    name: str
    text: str
    variable: str
    header: str = ""
    claims: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """One exchange as the page shows it; `parameters` and `claims` are (name, value, what it means)."""

    exchange: Exchange
    title: str
    lead: str
    place: Place
    message: str
    curl: str
    parameters: tuple[Line, ...]
    answer_headers: str
    answer: str
    plain: bool
    answered: tuple[Line, ...] = ()
    tokens: tuple[ShownToken, ...] = field(default=())

    @property
    def outcome(self) -> str:
        """How it ended: "good", "refused" or "none" (no answer; or it was the browser that got it)."""
        if self.exchange.status == 0:
            bad = any(not good for _, good, _ in self.exchange.checks)
            return "refused" if bad else "none"
        return "good" if self.exchange.status < 300 else "refused"


def cards_of(trial: Trial, said: dict[str, Any]) -> list[Card]:
    """Build the card of each exchange; `said` holds the words of the page's language."""
    seen = _variables(trial)
    return [_card(exchange, said, seen) for exchange in trial.exchanges]


def _card(exchange: Exchange, said: dict[str, Any], seen: dict[str, str]) -> Card:
    request = HttpRequest(exchange.method, exchange.url, exchange.headers, exchange.form)
    query = parse_qsl(urlsplit(exchange.url).query, keep_blank_values=True)
    named = list((exchange.form or {}).items()) if exchange.form else query
    explained = said["parameters"] if exchange.step != walk.STUDIES else {}
    body, plain = _shown(exchange)
    return Card(
        exchange=exchange,
        title=said["step_titles"][exchange.step],
        lead=said["step_leads"][exchange.step],
        place=PLACES[exchange.step],
        message=_brief(_message(request), seen),
        curl=request.as_curl(seen) if exchange.sender == "server" else "",
        parameters=tuple((name, _brief(value, seen), explained.get(name, "")) for name, value in named),
        answer_headers="\n".join(f"{name}: {value}" for name, value in exchange.answer_headers.items()),
        answer=_brief(body, seen),
        plain=plain,
        answered=_answered(exchange, said) if exchange.step in (walk.TOKEN, walk.REFRESH) else (),
        tokens=_tokens(exchange, said) if exchange.step in (walk.TOKEN, walk.REFRESH) else (),
    )


def _variables(trial: Trial) -> dict[str, str]:
    """Return every token the trial has seen, with the shell variable that stands for it."""
    found = {}
    for exchange in trial.exchanges:
        if exchange.form and "client_assertion" in exchange.form:
            found[exchange.form["client_assertion"]] = "ASSERTION"
        body = json_of(exchange)
        found.update({body[name]: word for name, word in _TOKENS.items() if isinstance(body.get(name), str)})
    return found


def _brief(text: str, seen: dict[str, str]) -> str:
    """Shorten the tokens of a text: a whole one is shown once, where it can be copied."""
    for token in seen:
        text = text.replace(token, f"{token[:10]}…{token[-6:]}" if len(token) > 24 else token)
    return text


def _message(request: HttpRequest) -> str:
    """Write the request as it goes over the wire, one parameter a line."""
    parts = urlsplit(request.url)
    query = "\n    ?" + "\n    &".join(parts.query.split("&")) if parts.query else ""
    lines = [f"{request.method} {parts.path}{query}", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    if request.body is not None:
        lines += ["", "\n&".join(request.body.split("&"))]
    return "\n".join(lines)


def _shown(exchange: Exchange) -> tuple[str, bool]:
    """Return the answer's body to read, and whether it is a page shown as its text."""
    kind = exchange.answer_headers.get("content-type", "")
    if "json" in kind:
        try:
            return orjson.dumps(orjson.loads(exchange.answer), option=orjson.OPT_INDENT_2).decode(), False
        except orjson.JSONDecodeError:
            return exchange.answer, False
    return (_text_of(exchange.answer), True) if "html" in kind else (exchange.answer, False)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.inside, self.lines = 0, list[str]()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.inside += tag in ("main",)

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag in ("main",)

    def handle_data(self, data: str) -> None:
        if self.inside and data.strip():
            self.lines.append(" ".join(data.split()))


def _text_of(html: str) -> str:
    parser = _Text()
    parser.feed(html)
    return "\n".join(parser.lines)


def _answered(exchange: Exchange, said: dict[str, Any]) -> tuple[Line, ...]:
    """Explain the members of a token response that are no tokens."""
    body = json_of(exchange)
    return tuple(
        (name, _plain(value), said["answers"].get(name, "")) for name, value in body.items() if name not in _TOKENS
    )


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _tokens(exchange: Exchange, said: dict[str, Any]) -> tuple[ShownToken, ...]:
    body = json_of(exchange)
    shown = []
    for name, variable in _TOKENS.items():
        text = body.get(name)
        if not isinstance(text, str):
            continue
        decoded = decode(text)
        if decoded is None:
            shown.append(ShownToken(name, text, variable))
            continue
        header = orjson.dumps(decoded.header, option=orjson.OPT_INDENT_2).decode()
        claims = tuple(
            (claim, _claim(claim, value), said["claims"].get(claim, "")) for claim, value in decoded.claims.items()
        )
        shown.append(ShownToken(name, text, variable, header, claims))
    return tuple(shown)


def _claim(name: str, value: Any) -> str:
    if name in _TIMES and isinstance(value, int):
        return f"{value} ({datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S}Z)"
    return _plain(value)


@dataclass(frozen=True, slots=True)
class Mark:
    """One step of the timeline: "done", "refused", "now", "open" (can be done) or "later"."""

    step: str
    state: str


def timeline(trial: Trial) -> list[Mark]:
    """Say how far a trial has come, step by step."""
    return [Mark(step, _state(trial, step)) for step in walk.ORDER]


def _state(trial: Trial, step: str) -> str:
    found = [exchange for exchange in trial.exchanges if exchange.step == step]
    if any(_refused(exchange) for exchange in found):
        return "refused"
    if found:
        return "now" if step == walk.AUTHORIZE and trial.phase == WAITING else "done"
    if step == walk.AUTHORIZE and trial.phase == READY:
        return "now"
    return "open" if step in walk.ACTIONS and trial.tokens and trial.phase == ANSWERED else "later"


def _refused(exchange: Exchange) -> bool:
    unanswered = exchange.status == 0 and exchange.sender == "server"
    return exchange.status >= 300 or unanswered or any(not good for _, good, _ in exchange.checks)
