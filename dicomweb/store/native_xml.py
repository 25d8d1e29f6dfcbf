"""The Native DICOM Model in XML, to and from the DICOM JSON model (DICOM PS3.19 §A.1, PS3.18 Annex F).

The JSON model is what this gateway keeps; XML is a form of it. Both say the same, so nothing is lost either way.
"""

from __future__ import annotations

from typing import Any

from lxml import etree
from pydicom.datadict import keyword_for_tag

NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_IN = f"{{{NAMESPACE}}}"
_NAMES: Any = {None: NAMESPACE}  # lxml's stubs do not know the default namespace
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_INTEGERS = frozenset(("IS", "SL", "SS", "SV", "UL", "US", "UV"))
_NUMBERS = frozenset(("DS", "FL", "FD"))


class MalformedModelError(ValueError):
    """Not a Native DICOM Model."""


def to_xml(model: dict[str, Any]) -> bytes:
    """Write one dataset of the JSON model as a NativeDicomModel document."""
    root = etree.Element(f"{_IN}NativeDicomModel", nsmap=_NAMES)
    _write(root, model)
    return bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8"))


def _write(parent: etree._Element, model: dict[str, Any]) -> None:
    for tag, attribute in sorted(model.items()):
        named = {"tag": tag, "vr": str(attribute["vr"])}
        if keyword := keyword_for_tag(int(tag, 16)):
            named["keyword"] = keyword
        element = etree.SubElement(parent, f"{_IN}DicomAttribute", named)
        if "BulkDataURI" in attribute:
            etree.SubElement(element, f"{_IN}BulkData", {"uri": str(attribute["BulkDataURI"])})
        elif "InlineBinary" in attribute:
            etree.SubElement(element, f"{_IN}InlineBinary").text = str(attribute["InlineBinary"])
        for number, value in enumerate(attribute.get("Value", ()), start=1):
            if value is not None:  # An empty value has a number and no element.
                _write_value(element, str(attribute["vr"]), number, value)


def _write_value(element: etree._Element, vr: str, number: int, value: Any) -> None:
    place = {"number": str(number)}
    if vr == "SQ":
        _write(etree.SubElement(element, f"{_IN}Item", place), value)
    elif vr == "PN":
        name = etree.SubElement(element, f"{_IN}PersonName", place)
        for group in _GROUPS:
            if group in value:
                inside = etree.SubElement(name, f"{_IN}{group}")
                for component, text in zip(_COMPONENTS, str(value[group]).split("^"), strict=False):
                    if text:
                        etree.SubElement(inside, f"{_IN}{component}").text = _characters(text)
    else:
        etree.SubElement(element, f"{_IN}Value", place).text = _characters(str(value))


def _characters(text: str) -> str:
    """Leave out what XML 1.0 §2.2 cannot hold: control characters but tab and line ends."""
    return "".join(one for one in text if one in "\t\n\r" or (one >= " " and one not in "\ufffe\uffff"))


def from_xml(content: bytes) -> dict[str, Any]:
    """Read a NativeDicomModel document as the JSON model.

    Raises
    ------
    MalformedModelError
        Not well-formed, not this document type, or an attribute without tag, VR or readable value.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as exc:
        raise MalformedModelError("Not well-formed XML") from exc
    if root.getroottree().docinfo.internalDTD is not None:
        raise MalformedModelError("A document type declaration is not read")
    if etree.QName(root).localname != "NativeDicomModel":
        raise MalformedModelError("Not a NativeDicomModel")
    return _read(root)


def _read(parent: etree._Element) -> dict[str, Any]:
    model: dict[str, Any] = {}
    for element in parent:
        if not isinstance(element.tag, str) or etree.QName(element).localname != "DicomAttribute":
            continue
        tag, vr = (element.get("tag") or "").upper(), element.get("vr") or ""
        if len(tag) != 8 or len(vr) != 2:
            raise MalformedModelError("An attribute has no tag or no VR")
        model[tag] = {"vr": vr, **_value(element, vr)}
    return model


def _value(element: etree._Element, vr: str) -> dict[str, Any]:
    values: list[Any] = []
    for child in element:
        if not isinstance(child.tag, str):
            continue
        kind = etree.QName(child).localname
        if kind == "BulkData":
            return {"BulkDataURI": child.get("uri") or child.get("uuid") or ""}
        if kind == "InlineBinary":
            return {"InlineBinary": (child.text or "").strip()}
        number = child.get("number") or str(len(values) + 1)
        if not number.isdigit() or not len(values) < int(number) <= len(values) + 10_000:
            raise MalformedModelError("The values are not numbered in order")
        values += [None] * (int(number) - len(values) - 1)
        values.append(_one(child, kind, vr))
    return {"Value": values} if values else {}


def _one(child: etree._Element, kind: str, vr: str) -> Any:
    if kind == "Item":
        return _read(child)
    if kind == "PersonName":
        groups: dict[str, str] = {}
        for group in child:
            parts = {etree.QName(part).localname: part.text or "" for part in group}
            name = "^".join(parts.get(component, "") for component in _COMPONENTS).rstrip("^")
            groups[etree.QName(group).localname] = name
        return groups
    text = child.text or ""
    try:
        if vr in _INTEGERS:
            return int(text)
        return float(text) if vr in _NUMBERS else text
    except ValueError as exc:
        raise MalformedModelError("A number cannot be read") from exc
