"""Retrieve Capabilities: the table of calls as a WADL document or JSON (DICOM PS3.18 §8.9, Annex H). Pure functions.

https://www.w3.org/submissions/wadl/
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import orjson
from lxml import etree
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.conformance.offered import gives, takes
from dicomweb.conformance.transactions import transaction_of
from dicomweb.media_types import accepted
from dicomweb.routes import ROUTES, DicomWebRoute
from dicomweb.workitems.part import SOCKET_PATHS
from foramen.kernel.errors import NotAcceptableError

WADL = "application/vnd.sun.wadl+xml"
_NAMESPACE = "http://wadl.dev.java.net/2009/02"
_IN = f"{{{_NAMESPACE}}}"
_NAMES: Any = {None: _NAMESPACE}  # lxml's stubs do not know the default namespace


def described(routes: Sequence[DicomWebRoute] = ROUTES) -> list[dict[str, Any]]:
    """Each path with its methods, in the order of the table."""
    paths: dict[str, list[dict[str, Any]]] = {}
    for route in routes:
        said = transaction_of(route.handler)
        method: dict[str, Any] = {"name": route.method, "id": route.interaction, "transaction": said.name}
        if said.section:
            method["standard"] = f"PS3.18 {said.section}"
        if said.scope:
            method["scope"] = said.scope
        for name, media_types in (("request", takes(route.handler)), ("response", gives(route.handler, route.path))):
            method |= {name: list(media_types)} if media_types else {}
        paths.setdefault(_plain(route.path), []).append(method)
    return [{"path": path, "methods": methods} for path, methods in paths.items()]


def _plain(path: str) -> str:
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)


def as_json(base: str, routes: Sequence[DicomWebRoute] = ROUTES) -> bytes:
    """Write the description as JSON."""
    return orjson.dumps({"base": base, "resources": described(routes), "notifications": list(SOCKET_PATHS)})


def as_wadl(base: str, routes: Sequence[DicomWebRoute] = ROUTES) -> bytes:
    """Write the description as WADL: one `resources`, in it the tree of the paths."""
    root = etree.Element(f"{_IN}application", nsmap=_NAMES)
    top = etree.SubElement(root, f"{_IN}resources", {"base": base})
    known: dict[tuple[str, ...], etree._Element] = {(): top}
    for resource in described(routes):
        parts = tuple(resource["path"].strip("/").split("/"))
        for depth in range(1, len(parts) + 1):
            if parts[:depth] not in known:
                element = etree.SubElement(known[parts[: depth - 1]], f"{_IN}resource", {"path": parts[depth - 1]})
                for name in re.findall(r"\{(\w+)\}", parts[depth - 1]):
                    etree.SubElement(element, f"{_IN}param", {"name": name, "style": "template", "required": "true"})
                known[parts[:depth]] = element
        for method in resource["methods"]:
            _method(known[parts], method)
    return bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True))


def _method(parent: etree._Element, method: dict[str, Any]) -> None:
    element = etree.SubElement(parent, f"{_IN}method", {"name": method["name"], "id": method["id"]})
    text = " ".join(filter(None, (method.get("standard"), method["transaction"])))
    etree.SubElement(element, f"{_IN}doc", {"title": text})
    for kind in ("request", "response"):
        if kind in method:
            inside = etree.SubElement(element, f"{_IN}{kind}")
            for media_type in method[kind]:
                etree.SubElement(inside, f"{_IN}representation", {"mediaType": media_type})


def capabilities(request: Request, base: str) -> Response:
    """Answer OPTIONS / and GET /, with an ETag: 304 where nothing changed (PS3.18 §8.9.3.1).

    Raises
    ------
    NotAcceptableError
        Neither WADL nor JSON is accepted.
    """
    for item in accepted(request):
        if item.admits(WADL) or item.admits("application/xml"):
            body, media_type = as_wadl(base), WADL
        elif item.admits("application/json") or item.admits("application/dicom+json"):
            body, media_type = as_json(base), "application/json"
        else:
            continue
        methods = ", ".join(sorted({"GET", "OPTIONS"} | {route.method for route in ROUTES}))
        etag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
        headers = {"ETag": etag, "Vary": "Accept", "Allow": methods}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=media_type)
    raise NotAcceptableError(f"Available: {WADL}, application/json")
