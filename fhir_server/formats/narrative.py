"""The XHTML of a narrative: text in JSON, elements in XML. https://hl7.org/fhir/R4/narrative.html#xhtml"""

from __future__ import annotations

import html
import re
from typing import Any

from lxml import etree

XHTML = "http://www.w3.org/1999/xhtml"
_DIV = f"{{{XHTML}}}div"
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]*);")
_OF_XML = {"amp", "lt", "gt", "quot", "apos"}
_BARE_DIV = re.compile(r"<div(?=[\s/>])")


def _parser(*, recover: bool) -> etree.XMLParser:
    return etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False, recover=recover, remove_pis=True
    )


def xhtml_of(text: str) -> str:
    """Return the narrative of JSON as XML, with the very characters it was written with where that is XML.

    Named entities of HTML become characters and a missing namespace is added. What is not well formed (the
    validation of writes refuses it, but older content may have it) is repaired.
    """
    text = text.strip()
    if "&" in text:
        text = _ENTITY.sub(_character, text)
    root = None if "<!" in text.replace("<!--", "") else _parsed(text, recover=False)
    if root is not None and text.startswith("<div"):
        if root.tag == _DIV:
            return text
        if root.tag == "div":
            return _BARE_DIV.sub(f'<div xmlns="{XHTML}"', text, count=1)
    if root is None:
        root = _parsed(f'<div xmlns="{XHTML}">{text}</div>', recover=True)
    return _serialised(root) if root is not None else f'<div xmlns="{XHTML}"/>'


def text_of(div: Any) -> str:
    """Return the text that JSON has for the XHTML of XML."""
    return _serialised(div)


def _serialised(root: Any) -> str:
    text: str = etree.tostring(root, encoding="unicode", with_tail=False)
    return text


def _parsed(text: str, *, recover: bool) -> Any:
    try:
        return etree.fromstring(text.encode(), _parser(recover=recover))
    except (etree.XMLSyntaxError, UnicodeEncodeError):
        return None


def _character(match: re.Match[str]) -> str:
    name = match.group(1)
    if name in _OF_XML:
        return match.group(0)
    found = html.unescape(match.group(0))
    return match.group(0) if found == match.group(0) else "".join(f"&#{ord(character)};" for character in found)
