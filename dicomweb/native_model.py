"""DICOM JSON model → Native DICOM Model XML, as one part of a multipart answer (PS3.19 §A.1, PS3.18 §F.3).

https://dicom.nema.org/medical/dicom/current/output/chtml/part19/chapter_A.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

from dicomweb.multipart import closing, part_head

MEDIA_TYPE = "application/dicom+xml"
_NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")


def native_xml(dataset: dict[str, Any]) -> bytes:
    """Write one dataset as an XML document.

    Parameters
    ----------
    dataset : DICOM JSON model
    """
    body = _attributes(dataset)
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<NativeDicomModel xmlns="{_NAMESPACE}" xml:space="preserve">'
    return f"{head}{body}</NativeDicomModel>".encode()


def xml_parts(datasets: Iterable[dict[str, Any]], boundary: str) -> Iterable[bytes]:
    """Yield a multipart body, one part for each dataset."""
    for dataset in datasets:
        yield part_head(boundary, {"Content-Type": MEDIA_TYPE}) + native_xml(dataset)
    yield closing(boundary)


def _attributes(dataset: dict[str, Any]) -> str:
    return "".join(_attribute(tag, dataset[tag], dataset) for tag in sorted(dataset))


def _attribute(tag: str, attribute: dict[str, Any], dataset: dict[str, Any]) -> str:
    names = f"tag={quoteattr(tag)} vr={quoteattr(attribute.get('vr', 'UN'))}"
    if int(tag[3], 16) % 2:
        creator = dataset.get(f"{tag[:4]}00{tag[4:6]}", {}).get("Value") or [""]
        if tag[4:6] != "00" and creator[0]:
            # In the model a private element is named without its block (PS3.19 Table A.1.5-2).
            names = f"tag={quoteattr(tag[:4] + '00' + tag[6:])} vr={quoteattr(attribute.get('vr', 'UN'))}"
            names += f" privateCreator={quoteattr(_text(creator[0]))}"
    elif keyword := keyword_for_tag(int(tag, 16)):
        names += f" keyword={quoteattr(keyword)}"
    return f"<DicomAttribute {names}>{_content(attribute)}</DicomAttribute>"


def _content(attribute: dict[str, Any]) -> str:
    if "BulkDataURI" in attribute:
        return f"<BulkData uri={quoteattr(attribute['BulkDataURI'])}/>"
    if "InlineBinary" in attribute:
        return f"<InlineBinary>{escape(attribute['InlineBinary'])}</InlineBinary>"
    parts = []
    for number, value in enumerate(attribute.get("Value", ()), start=1):
        if attribute.get("vr") == "SQ":
            parts.append(f'<Item number="{number}">{_attributes(value or {})}</Item>')
        elif value is None:
            continue
        elif isinstance(value, dict):
            parts.append(f'<PersonName number="{number}">{_name(value)}</PersonName>')
        else:
            parts.append(f'<Value number="{number}">{escape(_text(str(value)))}</Value>')
    return "".join(parts)


def _name(groups: dict[str, str]) -> str:
    parts = []
    for group in ("Alphabetic", "Ideographic", "Phonetic"):
        if components := groups.get(group):
            named = zip(_COMPONENTS, components.split("^"), strict=False)
            inner = "".join(f"<{name}>{escape(_text(text))}</{name}>" for name, text in named if text)
            parts.append(f"<{group}>{inner}</{group}>")
    return "".join(parts)


def _text(text: str) -> str:
    """Leave out what XML 1.0 cannot hold."""
    return _NOT_XML.sub("", text)
