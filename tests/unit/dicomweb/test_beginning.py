"""Files read by what elements of the same bytes were before: the same as by pydicom, whatever stands in them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import BufferedReader, BytesIO
from pprint import pformat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from dicomweb.instance_check import RejectedInstanceError
from dicomweb.store import element_memory
from dicomweb.store.beginning import read_beginning
from dicomweb.store.inspect import HEAD_BYTES, inspect, inspect_head
from dicomweb.store.nested_elements import UNDEFINED, end_of_sequence
from tests.builders.dicom import encoded, series

TEXT = st.text("AB 腰椎^=é", max_size=12)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("LO", "SH", "PN", "UT", "LT"), TEXT),
    "CS": st.sampled_from(["", "AX", "MR"]),
    "DS": st.sampled_from(["", "1.5", "-0.25", ["1", "2"]]),
    "IS": st.integers(-5, 5).map(str),
    "US": st.integers(0, 65_535),
    "FD": st.floats(allow_nan=False, width=32),
    "UN": st.binary(max_size=40),
    "OB": st.binary(max_size=1400),
    "DA": st.sampled_from(["", "20260102"]),
}
STANDARD = [
    *((0x00081030, "LO"), (0x0008103E, "LO"), (0x00080050, "SH"), (0x00081050, "PN"), (0x00204000, "LT")),
    *((0x00180050, "DS"), (0x00200012, "IS"), (0x00280106, "US"), (0x00280107, "US"), (0x00189073, "FD")),
    *((0x00080022, "DA"), (0x0040A160, "UT"), (0x00080000, "US"), (0x00280034, "IS"), (0x00420011, "OB")),
]
SEQUENCES = [0x00081140, 0x00082112, 0x0040A730, 0x00081032, 0x00091003]
CREATORS = ["SIEMENS CSA HEADER", "GEMS_ACQU_01", "SYNTHETIC MAKER", ""]


@st.composite
def datasets(draw: st.DrawFn, depth: int = 0, into: Dataset | None = None) -> Dataset:
    """Elements of all kinds, private ones among them, and sequences with and without a length."""
    dataset = Dataset() if into is None else into
    for tag, vr in draw(st.lists(st.sampled_from(STANDARD), max_size=5, unique=True)):
        dataset.add_new(tag, "UL" if tag == 0x00080000 else vr, draw(VALUES[vr]))
    if draw(st.booleans()):
        dataset.add_new(0x00190010, "LO", draw(st.sampled_from(CREATORS)))
    for element in draw(st.lists(st.sampled_from([0x08, 0x0E, 0x1E, 0x9C]), max_size=2, unique=True)):
        vr = draw(st.sampled_from(["UN", "LO", "OB"]))
        dataset.add_new(0x00191000 | element, vr, draw(VALUES[vr]))
    for tag in draw(st.lists(st.sampled_from(SEQUENCES), max_size=2 if depth < 2 else 0, unique=True)):
        items = [draw(datasets(depth + 1)) for _ in range(draw(st.integers(0, 2)))]
        for item in items:
            item.is_undefined_length_sequence_item = draw(st.booleans())
        dataset.add_new(tag, "SQ", items)
        dataset[tag].is_undefined_length = draw(st.booleans())
    return dataset


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _outcome(content: bytes, *, by_pydicom: bool) -> Any:
    try:
        return inspect(BufferedReader(BytesIO(content)) if by_pydicom else BytesIO(content))  # type: ignore[arg-type]
    except RejectedInstanceError as error:
        return error.reason, error.text, error.sop_class_uid, error.sop_instance_uid


def _is_alike(one: Any, other: Any) -> bool:
    """As text too: a number that is none is unlike itself."""
    return bool(one == other) or pformat(one) == pformat(other)


def _written(dataset: Dataset, syntax: str) -> bytes:
    dataset.file_meta.TransferSyntaxUID = syntax
    target = BytesIO()
    is_implicit = syntax == ImplicitVRLittleEndian
    dcmwrite(target, dataset, enforce_file_format=True, implicit_vr=is_implicit, little_endian=True)
    return target.getvalue()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_written_is_read_as_pydicom_reads_it(data: st.DataObject) -> None:
    """First by decoding it, then by remembering it, also where other files left something."""
    dataset = data.draw(datasets(into=series(1, seed=4)[0]))
    if data.draw(st.booleans()):
        dataset.SpecificCharacterSet = "ISO_IR 192"
    if data.draw(st.booleans()):
        dataset.PixelRepresentation = 1
    content = _written(dataset, data.draw(st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian])))
    expected = _outcome(content, by_pydicom=True)
    if data.draw(st.booleans()):
        element_memory._memories.clear()
    for _ in range(2):
        assert _is_alike(_outcome(content, by_pydicom=False), expected)
        head = inspect_head(content[:HEAD_BYTES], len(content))
        assert head is None or _is_alike(head, expected)


def test_compressed_pixels_are_read_by_what_is_remembered() -> None:
    dataset = dcmread(BytesIO(encoded(series(1, seed=4)[0])))
    dataset.compress(RLELossless)
    target = BytesIO()
    dcmwrite(target, dataset, enforce_file_format=True)
    content = target.getvalue()
    assert read_beginning(content, len(content)) is not None
    assert _outcome(content, by_pydicom=False) == _outcome(content, by_pydicom=True)
    assert read_beginning(content[:-20], len(content)) is None  # what its fragments are has to be looked at
    for damaged in (content[:-8], content[:-1], content + b"\0\0", content[:-8] + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"):
        assert read_beginning(damaged, len(damaged)) is None
        assert _is_alike(_outcome(damaged, by_pydicom=False), _outcome(damaged, by_pydicom=True))
    dataset.PixelData = encapsulate([b"no codestream at all, and long enough " * 3])
    target = BytesIO()
    dcmwrite(target, dataset, enforce_file_format=True)
    with pytest.raises(RejectedInstanceError, match="transfer syntax it claims"):
        inspect(BytesIO(target.getvalue()))


ITEM, ITEM_END, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
OPEN, NAME = b"\xff\xff\xff\xff", b"\x08\x00\x50\x00SH\x02\x00AB"


@pytest.mark.parametrize(
    ("value", "length"),
    [
        (ITEM + OPEN + NAME + ITEM_END + END, UNDEFINED),
        (ITEM + b"\x0a\0\0\0" + NAME, 18),
        (ITEM + OPEN + NAME + ITEM_END, 26),
        (END, UNDEFINED),
        (b"", 0),
    ],
)
def test_where_a_sequence_ends(value: bytes, length: int) -> None:
    assert end_of_sequence(b"...." + value + b"....", 4, length, is_implicit=False) == 4 + len(value)
    if value:
        assert end_of_sequence(value[:-1], 0, length, is_implicit=False) is None


@pytest.mark.parametrize(
    "value",
    [
        NAME + END,  # no item
        ITEM + b"\x09\0\0\0" + NAME + END,  # an item shorter than what is in it
        ITEM + b"\x40\0\0\0" + NAME + END,  # and one that leads out
        ITEM + OPEN + NAME + END,  # never ended
        ITEM + OPEN + b"\x08\x00\x50\x00UN\0\0\x02\0\0\0AB" + ITEM_END + END,  # what it is, others say
        ITEM + OPEN + b"\x08\x00\x50\x00OB\0\0" + OPEN + ITEM_END + END,
        (ITEM + OPEN + b"\x40\x00\x30\xa7SQ\0\0" + OPEN) * 40 + (END + ITEM_END) * 40 + END,  # too deep
    ],
)
def test_a_sequence_that_is_odd_is_left_to_others(value: bytes) -> None:
    assert end_of_sequence(value + bytes(64), 0, UNDEFINED, is_implicit=False) is None


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(element_memory, "_MOST_BYTES", 20_000)
    element_memory._memories.clear()
    dataset = series(1, seed=4)[0]
    for number in range(60):
        item = Dataset()
        item.CodeValue, item.CodeMeaning = str(number), "A" * 500
        dataset.add_new(0x00081032, "SQ", [item])
        dataset[0x00081032].is_undefined_length = True
        content = _written(dataset, ExplicitVRLittleEndian)
        assert inspect_head(content[:HEAD_BYTES], len(content)) is not None
        assert sum(memory.bytes for memory in element_memory._memories.values()) < 25_000
