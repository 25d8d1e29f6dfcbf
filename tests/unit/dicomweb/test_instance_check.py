"""Received bytes: whole instances pass, everything else is refused with a reason and never with another error."""

from __future__ import annotations

import contextlib
import warnings
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from dicomweb.instance_check import FailureReason, RejectedInstanceError, parse_instance
from tests.builders.dicom import encoded, series

WHOLE = encoded(series(1, seed=3)[0])
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize(
    "name",
    [
        *("MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"),
        *("JPEG2000", "JPGExtended", "SC_rgb_jpeg_dcmtk", "image_dfl", "liver_1frame", "test-SR"),
    ],
)
def test_instances_of_many_kinds_pass(name: str):
    path = get_testdata_file(f"{name}.dcm", download=False)
    if path is None:
        pytest.fail(f"pydicom brings no {name}")
    with open(path, "rb") as file:
        assert parse_instance(file).SOPInstanceUID


@pytest.mark.parametrize("keep", [0, 1, 127, 132, 140, 300, 700, len(WHOLE) - 385, len(WHOLE) - 384, len(WHOLE) - 1])
def test_a_truncated_file_never_passes(keep: int):
    with pytest.raises(RejectedInstanceError):
        parse_instance(BytesIO(WHOLE[:keep]))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_read_and_raise_nothing_else(data: st.DataObject):
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Any other exception than a refusal fails the test by itself.
        with contextlib.suppress(RejectedInstanceError):
            assert parse_instance(BytesIO(bytes(content))).SOPInstanceUID


def test_a_missing_name_is_its_own_reason():
    dataset = series(1)[0]
    del dataset.SeriesInstanceUID
    with pytest.raises(RejectedInstanceError) as fault:
        parse_instance(BytesIO(encoded(dataset)))
    assert fault.value.reason is FailureReason.DOES_NOT_MATCH_SOP_CLASS
    assert fault.value.sop_instance_uid == dataset.SOPInstanceUID
