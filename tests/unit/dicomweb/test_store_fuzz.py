"""Hostile bytes at every parser of the Store transaction: something is stored or refused, nothing else is raised."""

from __future__ import annotations

import contextlib
import warnings
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader, BytesIO
from pathlib import Path
from pprint import pformat
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.data import get_testdata_files
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomweb.dicom_json import dicom_json
from dicomweb.instance_check import RejectedInstanceError
from dicomweb.multipart import Part, Spool
from dicomweb.store.beginning import read_beginning
from dicomweb.store.inspect import HEAD_BYTES, inspect, inspect_head
from dicomweb.store.metadata import assemble, models_of
from dicomweb.store.native_xml import MalformedModelError, from_xml, to_xml
from dicomweb.store.raw_elements import announced_size
from foramen.kernel.errors import InvalidRequestError
from tests.builders.dicom import encoded, series

ONE = series(1, seed=4)[0]
MODEL: dict[str, Any] = orjson.loads(orjson.dumps(dicom_json(ONE), default=float))
XML = to_xml(MODEL)


def _in_other_syntaxes() -> Iterator[bytes]:
    yield encoded(ONE)
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        other = dcmread(BytesIO(encoded(ONE)))
        other.file_meta.TransferSyntaxUID = syntax
        target = BytesIO()
        is_implicit, is_little = syntax.is_implicit_VR, syntax.is_little_endian
        dcmwrite(target, other, enforce_file_format=True, implicit_vr=is_implicit, little_endian=is_little)
        yield target.getvalue()


def _as_vendors_write(is_implicit: bool) -> bytes:
    """A slice with what most devices write: sequences of undefined length, nested, and private attributes."""
    dataset, outer, inner = series(1, seed=4)[0], Dataset(), Dataset()
    inner.CodeValue, inner.CodeMeaning = "T-11500", "腰椎"
    outer.add_new(0x0040A043, "SQ", [inner])
    outer.is_undefined_length_sequence_item = inner.is_undefined_length_sequence_item = True
    dataset.add_new(0x00081032, "SQ", [outer, Dataset()])
    dataset.add_new(0x00091001, "UN", b"\1\2\3\4")
    dataset.add_new(0x00090010, "LO", "SYNTHETIC MAKER")
    dataset.add_new(0x00091002, "SQ", [inner])
    dataset.add_new(0x00290010, "LO", "SIEMENS CSA HEADER")  # pydicom knows what its elements are
    dataset.add_new(0x00291008, "UN", b"IMAGE NUM 4 ")
    dataset.add_new(0x00080000, "UL", 100)
    dataset.add_new(0x00280106, "US", 40_000)
    for element in (dataset[0x00081032], dataset[0x00091002], outer[0x0040A043]):
        element.is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    target = BytesIO()
    dcmwrite(target, dataset, enforce_file_format=True, implicit_vr=is_implicit, little_endian=True)
    return target.getvalue()


FILES = list(_in_other_syntaxes())
VENDORS = [_as_vendors_write(is_implicit) for is_implicit in (False, True)]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["vr", "Value", "InlineBinary", "BulkDataURI", "Alphabetic", "00080018", ""]), inner
        )
    ),
    max_leaves=8,
)
VRS = st.sampled_from(["UI", "PN", "SQ", "US", "DS", "IS", "OW", "AT", "FD", "UN", "DA", "OB", "??", ""])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def part(content: bytes, media_type: str = "application/dicom+json", **headers: str) -> Part:
    spool = Spool()
    spool.write(content)
    return Part(spool, 0, len(content), {"content-type": media_type, **headers})


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_files(data: st.DataObject) -> None:
    """Flipped, inserted and removed bytes, most of them in File Meta Information and the first elements."""
    content = bytearray(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(128, min(700, len(content) - 1)) | st.integers(0, len(content) - 1))
        cut = data.draw(st.integers(0, 6))
        content[place : place + cut] = data.draw(st.binary(max_size=6) | st.just(b"\xff\xff\xff\xff"))
    with contextlib.suppress(RejectedInstanceError):
        header, _ = inspect(BytesIO(bytes(content)))
        assert header.sop_instance_uid
        orjson.dumps([header.study, header.series, header.instance])  # as the index takes it


def _outcome(file: Any, look: Callable[..., Any] = inspect, *more: Any) -> Any:
    try:
        return look(file, *more)
    except RejectedInstanceError as error:
        return error.reason, error.text, error.sop_class_uid, error.sop_instance_uid


def _is_alike(one: Any, other: Any) -> bool:
    """Whether two outcomes are the same; as text too, as a number that is none is unlike itself."""
    return bool(one == other) or pformat(one) == pformat(other)


def _same_both_ways(content: bytes) -> bool:
    """Whether it was read by what is remembered; what comes of a file is the same as by pydicom's reader alone."""
    whole = _outcome(BytesIO(content))
    assert _is_alike(whole, _outcome(BufferedReader(BytesIO(content))))  # the latter is pydicom's
    for size in (200, 1500, 4096, HEAD_BYTES):
        # By its beginning: the same, or the whole file is asked for.
        beginning = _outcome(content[:size], inspect_head, len(content))
        assert beginning is None or _is_alike(beginning, whole)
    return read_beginning(content, len(content)) is not None


def test_a_slice_is_known_by_its_beginning() -> None:
    for content, behind in zip(FILES[:2], (12, 8), strict=True):
        place = content.index(b"\xe0\x7f\x10\x00") + behind
        assert announced_size(content[: place + 4]) == len(content)
        assert inspect_head(content[:place], len(content)) == inspect(BytesIO(content))
        assert inspect_head(content[: place - 20], len(content)) is None
        # Pixel data that go on beyond the end, and something else behind them, are for the whole file to tell.
        assert inspect_head(content[:place], len(content) - 2) is None
        assert inspect_head(content[:place], len(content) + 2) is None


def test_a_beginning_without_elements_decides_nothing() -> None:
    """A byte is missing in File Meta Information: its last element then seems to reach beyond the end of the file."""
    for content in FILES[:2]:
        for place in range(132, content.index(b"\x08\x00", 300)):
            _same_both_ways(content[:place] + content[place + 1 :])


def test_a_character_set_that_is_a_number_is_no_fault() -> None:
    assert b"\x08\x00\x05\x00CS" in FILES[0]
    for vr in (b"US", b"IS", b"SS"):
        _same_both_ways(FILES[0].replace(b"\x08\x00\x05\x00CS", b"\x08\x00\x05\x00" + vr))


def test_a_name_of_unknown_vr_is_refused() -> None:
    content = FILES[0].replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x18\x00U\0")
    assert content != FILES[0]
    with pytest.raises(RejectedInstanceError):
        inspect(BytesIO(content))
    _same_both_ways(content)


def test_a_nest_that_leads_out_of_the_beginning_is_followed_in_the_whole_file() -> None:
    """A value in an item that says it is longer than its sequence jumps into the pixels: they are walked as well."""
    dataset, item = series(1)[0], Dataset()
    deep = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 40
    dataset.PixelData = deep.ljust(len(dataset.PixelData), b"\0")
    item.add_new(0x00091001, "OB", b"1234")
    dataset.add_new(0x00081140, "SQ", [item])
    content = encoded(dataset)
    value, pixels = content.index(b"\x09\x00\x01\x10OB") + 12, content.index(deep)
    lying = content[: value - 4] + (pixels - value).to_bytes(4, "little") + content[value:]
    assert inspect_head(content[:pixels], len(content)) is not None
    assert inspect_head(lying[:pixels], len(lying)) is None
    with pytest.raises(RejectedInstanceError, match="nested"):
        inspect(BytesIO(lying))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_fast_reader_is_pydicoms(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(FILES[:2])))
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(128, 700) | st.integers(0, len(content) - 1))
        cut = data.draw(st.sampled_from([0, 1, 1, 1, 2, 4]))
        content[place : place + cut] = data.draw(st.binary(min_size=cut, max_size=cut) | st.binary(max_size=4))
    _same_both_ways(bytes(content))


@pytest.mark.parametrize("content", VENDORS, ids=["explicit VR", "implicit VR"])
def test_a_slice_as_vendors_write_it_is_known_by_its_beginning(content: bytes) -> None:
    assert content.count(b"\xff\xff\xff\xff") >= 6
    assert read_beginning(content[:HEAD_BYTES], len(content)) is not None
    place = content.rindex(b"\xe0\x7f\x10\x00")
    whole = inspect(BytesIO(content))
    assert inspect_head(content[: place + 12], len(content)) == whole
    assert "腰椎" in str(orjson.loads(zlib.decompress(whole[0].metadata)))
    for head, size in ((place + 4, 0), (place - 20, 0), (place + 12, -2), (place + 12, 2)):
        assert inspect_head(content[:head], len(content) + size) is None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_slice_as_vendors_write_it(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(VENDORS)))
    end = content.rindex(b"\xe0\x7f\x10\x00") + 12
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(130, end))
        some = st.sampled_from([b"\xff\xff\xff\xff", b"\xfe\xff\xdd\xe0", b"\xfe\xff\x0d\xe0", b"\xe0\x7f\x10\x00OW"])
        new = data.draw(some | st.binary(min_size=1, max_size=4))
        content[place : place + len(new)] = new
    _same_both_ways(bytes(content))


@pytest.mark.test_data
def test_real_slices_are_known_by_their_beginning(test_data: Path) -> None:
    """Twice: with what slices before it left, and with what it left itself."""
    known = 0
    for path in sorted((test_data / "dicom").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            whole = _outcome(BufferedReader(BytesIO(content)))  # by pydicom
            for _ in range(2):
                beginning = _outcome(content[:HEAD_BYTES], inspect_head, len(content))
                assert beginning is None or _is_alike(beginning, whole)
            assert _is_alike(_outcome(BytesIO(content)), whole)
            known += read_beginning(content[:HEAD_BYTES], len(content)) is not None
    assert known >= 80


def test_the_fast_reader_on_files_of_many_vendors() -> None:
    contents = [Path(name).read_bytes() for name in get_testdata_files("*.dcm") if Path(name).stat().st_size < 2**18]
    assert sum(map(_same_both_ways, contents)) >= 10


@settings(max_examples=60, deadline=None)
@given(changes=st.dictionaries(st.sampled_from([*MODEL, "0008FFFF", "zz", "00020010"]), JUNK, max_size=3), vr=VRS)
def test_metadata_of_any_shape(changes: dict[str, Any], vr: str) -> None:
    model = MODEL | {
        tag: {"vr": vr, "Value": value if isinstance(value, list) else [value]} if vr else value
        for tag, value in changes.items()
    }
    with contextlib.suppress(RejectedInstanceError):
        content, _ = assemble(model, {"b": [part(b"\0" * 384, "application/octet-stream")]}, "http://127.0.0.1")
        inspect(BytesIO(content))


@settings(max_examples=60, deadline=None)
@given(
    body=st.binary(max_size=60)
    | JUNK.map(lambda one: orjson.dumps(one, default=str, option=orjson.OPT_NON_STR_KEYS) if _fits(one) else b"[")
)
def test_any_metadata_part(body: bytes) -> None:
    with contextlib.suppress(InvalidRequestError):
        models, _ = models_of([part(body)], "application/dicom+json")
        assert all(isinstance(model, dict) for model in models)
        for model in models:
            with contextlib.suppress(RejectedInstanceError):
                assemble(model, {}, "http://127.0.0.1")


def _fits(value: Any) -> bool:
    try:
        orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_xml(data: st.DataObject) -> None:
    content = bytearray(XML)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 12))] = data.draw(
            st.sampled_from([b"", b"SQ", b"PN", b"<Item number='1'/>", b"<", b'"', b"9999999999", b"&lt;", b"\0"])
        )
    with contextlib.suppress(MalformedModelError, RejectedInstanceError):
        assemble(from_xml(bytes(content)), {}, "http://127.0.0.1")
