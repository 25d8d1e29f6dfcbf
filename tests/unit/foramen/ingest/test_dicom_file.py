"""DICOM as vendors write it: mended where it can only mean one thing, named each time; the rest is refused."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from foramen.ingest.character_set import guessed, spelled
from foramen.ingest.dicom_file import read_dicom
from foramen.kernel.errors import InvalidRequestError
from tests.builders.dicom import encoded, series
from tests.unit.foramen.ingest.samples import replaced, without_character_set

NAME = "王^小东"


def one(**changes: object) -> Dataset:
    return series(1, **changes)[0]


@pytest.mark.requirement("PS3.10 7.1: files as they are")
def test_a_right_file_stays_byte_for_byte():
    content = encoded(one())
    found = read_dicom(content)
    assert (found.content, found.mended) == (content, ())


def reread(content: bytes) -> tuple[Dataset, tuple[str, ...]]:
    """What is sent on, read by pydicom's strict reader, and what was mended."""
    found = read_dicom(content)
    return dcmread(BytesIO(found.content)), found.mended


@pytest.mark.requirement("PS3.10 7.1: a missing preamble or header is mended and said")
def test_without_preamble_and_without_any_header():
    dataset = one(patient_name=NAME)
    whole = encoded(dataset)
    back, mended = reread(whole[132:])
    assert mended == ("the file has no preamble",)
    assert back == dcmread(BytesIO(whole))
    for implicit in (True, False):
        target = BytesIO()
        plain = Dataset(dict(dataset.items()))
        dcmwrite(target, plain, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
        back, mended = reread(target.getvalue())
        assert mended[0] == "the file has no preamble and no meta header"
        assert back.file_meta.TransferSyntaxUID.is_implicit_VR is implicit
        assert back.PatientName == NAME
        assert back.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID


@pytest.mark.requirement("PS3.10 7.1: file meta information that contradicts its data set")
def test_a_meta_header_that_names_another_instance():
    dataset = one()
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    target = BytesIO()
    dcmwrite(target, dataset, enforce_file_format=False)
    back, mended = reread(target.getvalue())
    assert "MediaStorageSOPInstanceUID of the meta header is missing or not that of the dataset" in mended
    assert back.file_meta.MediaStorageSOPInstanceUID == back.SOPInstanceUID


@pytest.mark.requirement("PS3.5 6.2: a wrong value representation is mended and said")
@pytest.mark.parametrize(
    ("tag", "vr", "value", "keyword", "expected"),
    [
        ((0x0010, 0x0020), b"SH", b"SYN-1 ", "PatientID", "SYN-1"),
        ((0x0028, 0x0010), b"SS", struct.pack("<H", 16), "Rows", 16),
        ((0x0018, 0x0015), b"LO", b"LSPINE", "BodyPartExamined", "LSPINE"),
        ((0x0018, 0x0015), b"ZZ", b"LSPINE", "BodyPartExamined", "LSPINE"),
        ((0x0028, 0x0010), b"UL", struct.pack("<I", 16), "Rows", 16),
    ],
    ids=str,
)
def test_a_wrong_vr(tag: tuple[int, int], vr: bytes, value: bytes, keyword: str, expected: object):
    back, mended = reread(replaced(one(), tag, vr, value))
    assert back[keyword].value == expected
    assert any(keyword in text and "VR" in text for text in mended), mended
    assert read_dicom(encoded(back)).mended == ()


@pytest.mark.requirement("PS3.5 7.1.1: an odd length is mended and said")
@pytest.mark.parametrize(
    ("tag", "vr", "value", "keyword"),
    [
        ((0x0018, 0x0015), b"CS", b"SPINE", "BodyPartExamined"),
        ((0x0020, 0x000E), b"UI", b"1.2.3.4.5", "SeriesInstanceUID"),
        ((0x0008, 0x103E), b"LO", b"odd", "SeriesDescription"),
    ],
)
def test_an_odd_length(tag: tuple[int, int], vr: bytes, value: bytes, keyword: str):
    back, mended = reread(replaced(one(), tag, vr, value))
    assert back[keyword].value == value.decode()
    assert mended == (f"{keyword} has an odd length",)


@pytest.mark.requirement("PS3.5 7.5: faults in items are mended")
def test_faults_in_items_are_mended_too():
    dataset = one()
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-11", "SRT", "Spine"
    dataset.AnatomicRegionSequence = [item]
    whole = encoded(dataset)
    at = whole.index(b"\x08\x00\x00\x01SH")
    (length,) = struct.unpack_from("<H", whole, at + 6)
    wrong = whole[: at + 4] + b"LO" + struct.pack("<H", length) + whole[at + 8 :]
    back, mended = reread(wrong)
    assert mended == ("CodeValue has the VR LO, which is SH",)
    assert back.AnatomicRegionSequence[0].CodeValue == "T-11"


@pytest.mark.requirement("PS3.3 C.12.1.1.2: Chinese text without its character set")
@pytest.mark.parametrize(("encoding", "taken"), [("gb18030", "GB18030"), ("gbk", "GB18030"), ("utf-8", "ISO_IR 192")])
def test_a_chinese_name_without_its_character_set(encoding: str, taken: str):
    content = without_character_set(NAME.encode(encoding))
    back, mended = reread(content)
    assert mended == (f"SpecificCharacterSet is missing although there are letters beyond ASCII: taken to be {taken}",)
    assert str(back.PatientName) == NAME
    assert back["PatientName"].value.original_string.rstrip(b" ") == NAME.encode(encoding)


def test_a_western_name_without_its_character_set_is_not_taken_for_chinese():
    back, _ = reread(without_character_set("Müller^Jürgen".encode("latin-1")))
    assert str(back.PatientName) == "Müller^Jürgen"


CHARACTER_SETS = {
    "GB18030": "Wang^XiaoDong=王^小东",
    "GBK": "Wang^XiaoDong=王^小东",
    "ISO_IR 192": "Wang^XiaoDong=王^小东",
    "\\ISO 2022 IR 58": "Zhang^XiaoDong=张^小东",
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎",
    "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞",
    "ISO_IR 100": "Müller^Jürgen",
    "ISO_IR 144": "Люкceмбypг",
}


@pytest.mark.requirement("PS3.3 C.12.1.1.2: GB18030, GBK and ISO 2022 in both directions")
@pytest.mark.parametrize(("terms", "name"), CHARACTER_SETS.items())
def test_names_are_right_in_both_directions(terms: str, name: str):
    """PS3.5 Annexes H to K: what is declared is read so, sent on untouched, and read so again."""
    dataset = one()
    dataset.SpecificCharacterSet = terms.split("\\") if "\\" in terms else terms
    dataset.PatientName = name
    content = encoded(dataset)
    found = read_dicom(content)
    assert (found.content, found.mended) == (content, ())
    assert str(found.dataset.PatientName) == name


@pytest.mark.requirement("PS3.5 K.2: the example of GB 2312")
def test_the_example_of_the_standard_for_gb_2312():
    """PS3.5 Annex K.2, byte for byte."""
    dataset = one()
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 58"]
    dataset.PatientName = "X"
    name = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab= "
    content = replaced(dataset, (0x0010, 0x0010), b"PN", name)
    found = read_dicom(content)
    assert (found.content, found.mended) == (content, ())
    assert str(found.dataset.PatientName).rstrip("= ") == "Zhang^XiaoDong=张^小东"


def test_text_in_items_is_read_with_the_character_set_found(tmp_path: Path):
    dataset = one()
    item = Dataset()
    item.CodeMeaning = "腰椎间盘"
    dataset.AnatomicRegionSequence = [item]
    dataset.SpecificCharacterSet = "GB18030"
    dataset.PatientName = NAME
    whole = encoded(dataset)
    at = whole.index(b"\x08\x00\x05\x00CS")
    (length,) = struct.unpack_from("<H", whole, at + 6)
    back, mended = reread(whole[:at] + whole[at + 8 + length :])
    assert "taken to be GB18030" in mended[0]
    assert (str(back.PatientName), back.AnatomicRegionSequence[0].CodeMeaning) == (NAME, "腰椎间盘")


@pytest.mark.requirement("PS3.3 C.12.1.1.2: misspelled defined terms")
@pytest.mark.parametrize(
    ("stated", "right"),
    [(["ISO IR 100"], ["ISO_IR 100"]), (["UTF-8"], ["ISO_IR 192"]), (["GB2312"], ["GB18030"]),
     (["", "ISO_2022_IR_58"], ["", "ISO 2022 IR 58"]), (["iso_ir 192"], ["ISO_IR 192"]),
     (["ISO_IR 192"], None), ([""], None), (["KLINGON"], None)],
    ids=str,
)  # fmt: skip
def test_misspelled_terms(stated: list[str], right: list[str] | None):
    assert spelled(stated) == right


def test_a_misspelled_character_set_is_mended():
    dataset = one(patient_name=NAME)
    whole = encoded(dataset).replace(b"ISO_IR 192", b"ISO IR 192")
    back, mended = reread(whole)
    assert mended == ("SpecificCharacterSet was misspelled",)
    assert str(back.PatientName) == NAME


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1, max_size=6))
def test_utf_8_and_chinese_are_told_apart(name: str):
    assert guessed([name.encode("utf-8")]) == "ISO_IR 192"
    common = "".join(letter for letter in name if _in_gb2312(letter))
    # Two-byte text that happens to be UTF-8 as well is taken for UTF-8: of three characters and more that is rare.
    if len(common) > 2 and not _decodes(common.encode("gb2312")):
        assert guessed([common.encode("gb2312")]) == "GB18030"


def _in_gb2312(letter: str) -> bool:
    try:
        letter.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def _decodes(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.requirement("PS3.5 A: transfer syntaxes of files pass as they are")
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_pass_as_they_are(syntax):
    dataset = one(depth="uint8")
    dataset.file_meta.TransferSyntaxUID = syntax
    target = BytesIO()
    dcmwrite(target, dataset, enforce_file_format=True)
    if syntax == DeflatedExplicitVRLittleEndian:
        assert read_dicom(target.getvalue()).dataset.PatientID == "SYN-1"
        return
    assert read_dicom(target.getvalue()).mended == ()


@pytest.mark.requirement("PS3.5 A.5: a deflated bomb is refused before it is unpacked")
def test_a_deflated_bomb_is_refused_before_it_is_unpacked():
    dataset = one()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    target = BytesIO()
    dcmwrite(target, dataset, enforce_file_format=True)
    whole = target.getvalue()
    meta = 144 + int.from_bytes(whole[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(16 * 1024 * 1024)) for _ in range(70)) + packer.flush()
    assert len(bomb) < 2_000_000
    with pytest.raises(InvalidRequestError, match="inflates to more than 1 GiB"):
        read_dicom(whole[:meta] + bomb)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 500, b"%PDF-1.7", bytes(128) + b"DICM", b"\x08\x00\x05\x00CS"], ids=len
)
def test_what_is_no_dicom_is_refused(content: bytes):
    with pytest.raises(InvalidRequestError, match=r"DICOM|UID"):
        read_dicom(content)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 700), st.binary(min_size=1, max_size=6), st.integers(0, 300))
def test_broken_bytes_are_mended_or_refused_and_never_anything_else(at: int, noise: bytes, cut: int):
    whole = bytearray(encoded(one()))
    whole[132 + at : 132 + at + len(noise)] = noise
    try:
        found = read_dicom(bytes(whole[: len(whole) - cut]))
    except InvalidRequestError:
        return
    assert found.dataset.SOPInstanceUID


def test_deep_sequences_are_refused(tmp_path: Path):
    dataset = one()
    inner = dataset
    for _ in range(40):
        item = Dataset()
        inner.ReferencedStudySequence = [item]
        inner = item
    inner.CodeMeaning = "deep"
    with pytest.raises(InvalidRequestError, match="deeper than 32 levels"):
        read_dicom(encoded(dataset))
