"""CAS 3.0 as a client: the login redirect, ticket validation at `/p3/serviceValidate`, single logout by POST.

https://apereo.github.io/cas/7.1.x/protocol/CAS-Protocol-Specification.html §2.1, §2.5, §2.8, Appendix A and C.
The parser takes no DTD, no entity and no network: CAS's answers need none.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lxml import etree

from foramen.identity.federation.logout_token import OutsideLogout
from foramen.identity.federation.oidc import with_query
from foramen.identity.federation.outgoing import call, reach_of
from foramen.identity.federation.outside_identity import OutsideIdentity, OutsideRefused
from foramen.identity.federation.providers import Provider

_CAS = "{http://www.yale.edu/tp/cas}"
_SAMLP, _SAML = "{urn:oasis:names:tc:SAML:2.0:protocol}", "{urn:oasis:names:tc:SAML:2.0:assertion}"
_LONGEST_TICKET, _LONGEST_USER, _LARGEST_LOGOUT = 256, 255, 16 * 1024


def login_url(provider: Provider, service: str, *, fresh: bool) -> str:
    """Return where the browser goes to sign in out there; `renew` asks for the password whatever session there is."""
    parameters = {"service": service, **({"renew": "true"} if fresh else {})}
    return with_query(f"{provider.issuer.rstrip('/')}/login", parameters)


def logout_url(provider: Provider, back: str) -> str:
    """Return where the browser goes to sign out there."""
    return with_query(f"{provider.issuer.rstrip('/')}/logout", {"service": back})


async def validate(provider: Provider, service: str, ticket: str, *, fresh: bool) -> OutsideIdentity:
    """Validate a service ticket (§2.5).

    Raises
    ------
    OutsideRefused
        The ticket is not accepted, or the answer cannot be read.
    UpstreamError
        The CAS server does not answer.
    """
    if not ticket.startswith(("ST-", "PT-")) or len(ticket) > _LONGEST_TICKET or not ticket.isprintable():
        raise OutsideRefused("no ticket")
    parameters = {"service": service, "ticket": ticket, "format": "XML", **({"renew": "true"} if fresh else {})}
    url = with_query(f"{provider.issuer.rstrip('/')}/p3/serviceValidate", parameters)
    response = await call(reach_of(provider), "GET", url)
    if response.status_code != 200:
        raise OutsideRefused("the ticket was not accepted")
    found = parse_answer(provider, response.content, ticket)
    if fresh and found.authenticated_at is None:
        return replace(found, authenticated_at=found.issued_at)  # `renew` at validation says so (§2.5.1)
    return found


def parse_answer(provider: Provider, content: bytes, ticket: str) -> OutsideIdentity:
    """Read the answer to a validation (Appendix A).

    Raises
    ------
    OutsideRefused
        It is no success, or not of the form.
    """
    root = read_xml(content)
    success = root.findall(f"{_CAS}authenticationSuccess")
    if root.tag != f"{_CAS}serviceResponse" or len(root) != 1 or len(success) != 1:
        raise OutsideRefused("the ticket was not accepted")
    if success[0].find(f"{_CAS}proxies") is not None:
        raise OutsideRefused("a proxy ticket is not accepted")
    users = [_text(element) for element in success[0].findall(f"{_CAS}user")]
    if len(users) != 1 or not 0 < len(users[0]) <= _LONGEST_USER or not users[0].isprintable():
        raise OutsideRefused("no user")
    claims: dict[str, Any] = {}
    for attribute in success[0].iterfind(f"{_CAS}attributes/{_CAS}*"):
        claims.setdefault(etree.QName(attribute).localname, []).append(_text(attribute))
    claims["preferred_username"] = users[0]
    moment = _moment(next(iter(claims.get("authenticationDate", [])), ""))
    return OutsideIdentity(
        issuer=provider.issuer,
        subject=users[0],
        claims=claims,
        issued_at=datetime.now(UTC),
        sid=ticket_sid(ticket),
        authenticated_at=moment,
    )


def ticket_sid(ticket: str) -> str:
    """Return the name of the session that a ticket opened; the ticket itself is not kept."""
    return hashlib.sha256(ticket.encode()).hexdigest()


def _text(element: Any) -> str:
    if len(element):  # an element, a comment or an instruction inside a text would cut it short
        raise OutsideRefused("the answer is not of the form")
    return (element.text or "").strip()


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.partition("[")[0])  # "2026-11-22T10:00:00Z[UTC]"
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def read_xml(content: bytes) -> Any:
    """Read XML without DTD, entities and network.

    Raises
    ------
    OutsideRefused
        It is not well-formed, or has a DTD.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, remove_pis=False
    )
    try:
        root = etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError) as exc:
        raise OutsideRefused("the answer is not XML") from exc
    document: Any = root.getroottree().docinfo
    if document.doctype or any(isinstance(node, etree._Entity) for node in root.iter()):
        raise OutsideRefused("the answer has a DTD")
    return root


def parse_logout(provider: Provider, content: str) -> OutsideLogout:
    """Read a single logout (§2.8, Appendix C): it is believed as it knows the ticket, which only CAS, we and the
    browser have seen; it can end the session of that ticket and nothing else.

    Raises
    ------
    OutsideRefused
        It is not of the form.
    """
    if len(content) > _LARGEST_LOGOUT:
        raise OutsideRefused("logout: too large")
    root = read_xml(content.encode())
    indexes = root.findall(f"{_SAMLP}SessionIndex")
    if root.tag != f"{_SAMLP}LogoutRequest" or len(indexes) != 1:
        raise OutsideRefused("logout: not of the form")
    ticket = _text(indexes[0])
    if not 0 < len(ticket) <= _LONGEST_TICKET:
        raise OutsideRefused("logout: not of the form")
    sid = ticket_sid(ticket)
    return OutsideLogout(provider.issuer, f"cas {sid}", datetime.now(UTC), None, sid)
