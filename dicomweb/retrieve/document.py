"""What is not an image, rendered: structured reports as HTML, encapsulated documents as they are. In the codec process.

DICOM PS3.18 §8.7.4 (rendered media types of the text category); PS3.3 C.17.3 (SR content tree), C.24.2 (encapsulated).
"""

from __future__ import annotations

from html import escape
from typing import Any

from pydicom import Dataset

from dicomweb.retrieve.decoding import CannotDecodeError

_DEEPEST = 64
_MOST_ITEMS = 20_000
REPORT_TYPE = "text/html"
DOCUMENT_TYPES = ("application/pdf", "text/xml", "text/plain", "model/stl", "model/obj", "model/mtl")


def rendered(dataset: Dataset) -> tuple[str, bytes]:
    """Return (media type, content).

    Raises
    ------
    CannotDecodeError
        Neither a report nor an encapsulated document.
    """
    if "EncapsulatedDocument" in dataset:
        kind = str(dataset.get("MIMETypeOfEncapsulatedDocument", "application/octet-stream")).lower()
        content = bytes(dataset.EncapsulatedDocument)
        length = dataset.get("EncapsulatedDocumentLength")
        if length is not None and 0 <= len(content) - int(length) <= 1:
            content = content[: int(length)]
        return kind if kind in DOCUMENT_TYPES else "application/octet-stream", content
    if "ContentSequence" not in dataset:
        raise CannotDecodeError("not a report")
    count = [0]
    title = escape(_meaning(dataset, "ConceptNameCodeSequence") or "Structured report")
    flags = " · ".join(
        escape(str(dataset[name].value)) for name in ("CompletionFlag", "VerificationFlag") if name in dataset
    )
    text = (
        '<!DOCTYPE html><html><head><meta charset="utf-8"><title>Structured report</title></head>'
        f"<body><h1>{title}</h1><p>{flags}</p>{_items(dataset, 0, count)}</body></html>"
    )
    return f"{REPORT_TYPE}; charset=utf-8", text.encode()


def _items(parent: Dataset, depth: int, count: list[int]) -> str:
    items = parent.get("ContentSequence") or []
    if not items or depth >= _DEEPEST:
        return ""
    lines = []
    for item in items:
        count[0] += 1
        if count[0] > _MOST_ITEMS:
            raise CannotDecodeError("the report is too large")
        name = escape(_meaning(item, "ConceptNameCodeSequence"))
        value = escape(_value(item))
        lines.append(f"<li>{f'<b>{name}</b>: ' if name else ''}{value}{_items(item, depth + 1, count)}</li>")
    return f"<ul>{''.join(lines)}</ul>"


def _meaning(dataset: Dataset, keyword: str) -> str:
    sequence: Any = dataset.get(keyword) or []
    return str(sequence[0].get("CodeMeaning", "")) if len(sequence) else ""


def _value(item: Dataset) -> str:
    kind = str(item.get("ValueType", ""))
    if kind == "CODE":
        return _meaning(item, "ConceptCodeSequence")
    if kind == "NUM":
        measured = item.get("MeasuredValueSequence") or []
        if not len(measured):
            return _meaning(item, "NumericValueQualifierCodeSequence")
        return f"{measured[0].get('NumericValue', '')} {_meaning(measured[0], 'MeasurementUnitsCodeSequence')}".strip()
    for keyword in ("TextValue", "PersonName", "Date", "Time", "DateTime", "UID"):
        if keyword in item:
            return str(item[keyword].value)
    references = item.get("ReferencedSOPSequence") or []
    if len(references):
        return f"{kind} {references[0].get('ReferencedSOPInstanceUID', '')}"
    return "" if kind == "CONTAINER" else kind
