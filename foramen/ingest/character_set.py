"""Which character set the text of a file is in, where the file does not say. Pure.

DICOM PS3.3 C.12.1.1.2 (Specific Character Set); PS3.5 §6.1.2; GB 18030-2022, GB 2312-1980.
"""

from __future__ import annotations

import re

from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement

from foramen.kernel.dicom_text import mend_escape_sequences

TEXT_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_KNOWN = re.compile(r"ISO_IR (6|13|100|101|109|110|126|127|138|144|148|166|192|203)|ISO 2022 IR \d{1,3}|GB18030|GBK")
_SPELLINGS = {
    "UTF8": "ISO_IR 192",
    "UTF-8": "ISO_IR 192",
    "GB2312": "GB18030",
    "GB 18030": "GB18030",
    "GB-18030": "GB18030",
    "GB18030-2000": "GB18030",
    "CP936": "GBK",
}
_HIGH = re.compile(rb"[\x80-\xff]+")

mend_escape_sequences()


def guessed(texts: list[bytes]) -> str | None:
    """Return the character set of texts that have bytes above 127; None: all are ASCII.

    UTF-8 is recognised for certain. Chinese is taken where all bytes above 127 come in pairs of GB 2312, as two-byte
    text does and western names hardly do; what is left is Latin-1, in which every byte is a letter.
    """
    high = [text for text in texts if _HIGH.search(text) and b"\x1b" not in text]
    if not high:
        return None
    if all(_decodes(text, "utf-8") for text in high):
        return "ISO_IR 192"
    runs = [run for text in high for run in _HIGH.findall(text)]
    if all(len(run) % 2 == 0 and min(run) >= 0xA1 for run in runs) and all(_decodes(text, "gb18030") for text in high):
        return "GB18030"
    return "ISO_IR 100"


def _decodes(text: bytes, encoding: str) -> bool:
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def spelled(terms: list[str]) -> list[str] | None:
    """Return the defined terms of misspelled ones; None: they are right, or nobody knows what they mean."""
    mended = []
    for term in terms:
        plain = " ".join(term.replace("_", " ").replace("-", " ").upper().split())
        single = re.fullmatch(r"ISO IR (\d+)", plain)
        extended = re.fullmatch(r"ISO 2022 IR (\d+)", plain)
        if single:
            mended.append(f"ISO_IR {single[1]}")
        elif extended:
            mended.append(f"ISO 2022 IR {extended[1]}")
        else:
            mended.append(_SPELLINGS.get(term.strip().upper(), term))
    right = all(term == "" or _KNOWN.fullmatch(term) for term in mended)
    return mended if right and mended != terms else None


def mend_character_set(dataset: Dataset) -> list[str]:
    """Set a character set that is missing or misspelled. Returns what was done; never a value of the file."""
    stated = dataset.get("SpecificCharacterSet")
    terms = [str(term) for term in stated] if isinstance(stated, list | tuple) else [str(stated or "")]
    if (right := spelled(terms)) is not None:
        _read_as(dataset, right)
        return ["SpecificCharacterSet was misspelled"]
    if terms not in ([""], ["ISO_IR 6"]):
        return []
    found = guessed(_texts(dataset))
    if found is None:
        return []
    _read_as(dataset, [found])
    return [f"SpecificCharacterSet is missing although there are letters beyond ASCII: taken to be {found}"]


def _read_as(dataset: Dataset, terms: list[str]) -> None:
    """State a character set and leave every byte of text as it is.

    Without the second step pydicom would take the text for what it took it before, and translate it.
    """
    value: str | list[str] = terms if len(terms) > 1 else terms[0]
    dataset.SpecificCharacterSet = value
    implicit, little = dataset.original_encoding
    dataset.set_original_encoding(implicit, little, convert_encodings(value))


def _texts(dataset: Dataset) -> list[bytes]:
    return [
        element.value
        for element in dataset.values()
        if isinstance(element, RawDataElement) and element.VR in (*TEXT_VRS, None) and isinstance(element.value, bytes)
        if element.tag.group != 0x7FE0 and len(element.value) < 10_000
        if element.VR is not None or _is_text(element)
    ]


def _is_text(element: RawDataElement) -> bool:
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    return dictionary_has_tag(element.tag) and dictionary_VR(element.tag) in TEXT_VRS
