"""Read the DICOM JSON model: values by keyword, names as people write them. Pure.

DICOM PS3.18 Annex F.2; PS3.5 §6.2.1 (component groups of a name).
"""

from __future__ import annotations

from typing import Any

from pydicom.datadict import keyword_for_tag, tag_for_keyword

_LONGEST_SHOWN = 200


def text_of(attributes: dict[str, Any], keyword: str, separator: str = " ") -> str:
    """Return an attribute as text; empty: it is absent or has no value."""
    tag = tag_for_keyword(keyword)
    element = attributes.get(f"{tag:08X}") if tag is not None else None
    return separator.join(filter(None, map(_value, (element or {}).get("Value") or [])))


def number_of(attributes: dict[str, Any], keyword: str) -> int:
    """Return a count; 0 where it is absent."""
    text = text_of(attributes, keyword)
    return int(text) if text.isdigit() else 0


def day_of(attributes: dict[str, Any], keyword: str) -> str:
    """Return a date as people read it, 2026-01-31."""
    text = text_of(attributes, keyword)
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if len(text) == 8 and text.isdigit() else text


def _value(value: Any) -> str:
    if isinstance(value, dict):
        groups = [person_name(value.get(group, "")) for group in ("Ideographic", "Alphabetic")]
        return " ".join(dict.fromkeys(filter(None, groups)))
    return "" if value is None else str(value)


def person_name(text: str) -> str:
    """Family and given name; Chinese is written without a space."""
    parts = [part for part in text.split("^") if part]
    return ("" if parts and not parts[0].isascii() else " ").join(parts)


def header_lines(attributes: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return tag, keyword, VR and shortened value of every attribute that is no bulk data."""
    lines = []
    for tag, element in sorted(attributes.items()):
        values = element.get("Value")
        if element.get("vr") == "SQ":
            shown = f"[{len(values or [])}]"
        elif values is None:
            continue
        else:
            shown = " \\ ".join(map(_value, values))
        keyword = keyword_for_tag(int(tag, 16)) or ""
        lines.append((f"({tag[:4]},{tag[4:]})", keyword, str(element.get("vr", "")), shown[:_LONGEST_SHOWN]))
    return lines
