"""Photographs, videos and surfaces: what goes in stays as it was, and the header says what it is."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.encaps import generate_fragments, parse_basic_offsets
from pydicom.pixels import pixel_array

from dicomweb.instance_check import parse_instance
from foramen.ingest.model3d import wrap_model
from foramen.ingest.sidecar import Description
from foramen.ingest.single_picture import read_jpeg, wrap_picture
from foramen.ingest.video import wrap_video
from foramen.kernel.errors import InvalidRequestError
from tests.unit.foramen.ingest.samples import BINARY_STL, TEXT_OBJ, gradient, jpeg, mp4

WHO = Description(patient_id="SYN-1", patient_name="合成^一", issuer="DEMO", synthetic=True)


def written(dataset: Dataset) -> Dataset:
    """The dataset as the gateway reads it from a file."""
    target = BytesIO()
    dcmwrite(target, dataset, enforce_file_format=True)
    parse_instance(BytesIO(target.getvalue()))
    return dcmread(BytesIO(target.getvalue()))


def picture(tmp_path: Path, content: bytes, name: str = "p_7.jpg", about: Description = WHO):
    (tmp_path / name).write_bytes(content)
    dataset, told = wrap_picture(tmp_path / name, about)
    return written(dataset), told


def scan(content: bytes) -> bytes:
    """The entropy-coded image of a JPEG, from its first scan on."""
    return content[content.index(b"\xff\xda") :]


@pytest.mark.requirement("PS3.5 A.4.1: a JPEG is encapsulated without being encoded anew")
@pytest.mark.parametrize(
    ("options", "interpretation"),
    [({"subsampling": 0}, "YBR_FULL"), ({"subsampling": 2}, "YBR_FULL_422"), ({"keep_rgb": True}, "RGB")],
)
def test_a_jpeg_is_stored_as_it_is(tmp_path: Path, options: dict, interpretation: str):
    """PS3.5 A.4.1: the code stream is the one of the file, and decodes to what the file shows."""
    content = jpeg(quality=90, **options)
    dataset, told = picture(tmp_path, content)
    assert dataset.file_meta.TransferSyntaxUID.name == "JPEG Baseline (Process 1)"
    assert (dataset.PhotometricInterpretation, told) == (interpretation, ())
    (fragment,) = _fragments(dataset)
    assert scan(fragment).rstrip(b"\x00") == scan(content)
    difference = np.abs(pixel_array(dataset).astype(int) - np.asarray(Image.open(BytesIO(content))))
    assert difference.mean() < 3  # two decoders round otherwise; a wrong colour space differs by tens
    assert (dataset.LossyImageCompression, dataset.InstanceNumber) == ("01", 7)


def _fragments(dataset: Dataset) -> list[bytes]:
    return list(generate_fragments(dataset.PixelData))[1:]


def test_a_grey_jpeg_is_monochrome(tmp_path: Path):
    target = BytesIO()
    Image.fromarray(gradient()[..., 0]).save(target, "JPEG")
    dataset, _ = picture(tmp_path, target.getvalue())
    assert (dataset.PhotometricInterpretation, dataset.SamplesPerPixel) == ("MONOCHROME2", 1)
    assert np.array_equal(dataset.pixel_array, np.asarray(Image.open(BytesIO(target.getvalue()))))


def test_the_cameras_notes_are_left_out_and_said(tmp_path: Path):
    exif = Image.Exif()
    exif[0x010E] = "Zhang San 139 secret"
    content = jpeg(exif=exif, comment=b"secret too")
    assert content.count(b"secret") == 2
    dataset, told = picture(tmp_path, content)
    assert b"secret" not in dataset.PixelData
    assert "camera's notes" in told[0]
    assert scan(_fragments(dataset)[0]).rstrip(b"\x00") == scan(content)


def test_a_turned_or_progressive_jpeg_is_decoded_and_said(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, told = picture(tmp_path, jpeg(exif=exif))
    assert (turned.Rows, turned.Columns) == (30, 40)
    assert "was decoded" in told[0]
    progressive, told = picture(tmp_path, jpeg(progressive=True))
    assert progressive.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
    assert "was decoded" in told[0]
    assert (progressive.LossyImageCompression, progressive.LossyImageCompressionMethod) == ("01", "ISO_10918_1")


@pytest.mark.requirement("PS3.3 A.8: Secondary Capture")
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "RGBA", "P", "1"])
def test_a_png_keeps_its_pixels(tmp_path: Path, mode: str):
    plain = Image.fromarray(gradient())
    deep = Image.fromarray(gradient()[..., 0].astype(np.uint16) * 200)
    plain = deep if mode == "I;16" else plain.convert(mode)
    target = BytesIO()
    plain.save(target, "PNG")
    dataset, _ = picture(tmp_path, target.getvalue(), "p.png")
    expected = np.asarray(
        plain.convert("RGB") if mode in ("RGBA", "P") else plain.convert("L") if mode == "1" else plain
    )
    assert np.array_equal(dataset.pixel_array, expected)
    assert "LossyImageCompression" not in dataset
    assert dataset.InstanceNumber is None


@pytest.mark.requirement("PS3.3 A.32.4: VL Photographic Image")
def test_a_photograph_is_said_to_be_one(tmp_path: Path):
    dataset, _ = picture(tmp_path, jpeg(), about=WHO.model_copy(update={"modality": "XC"}))
    assert dataset.SOPClassUID.name == "VL Photographic Image Storage"
    assert dataset.Modality == "XC"


def test_pictures_of_one_sidecar_lie_in_one_series_and_a_repeat_is_the_same(tmp_path: Path):
    one, _ = picture(tmp_path, jpeg(), "a1.jpg")
    two, _ = picture(tmp_path, jpeg(quality=50), "a2.jpg")
    again, _ = picture(tmp_path, jpeg(), "a1.jpg")
    assert one.SeriesInstanceUID == two.SeriesInstanceUID
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert again == one


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", jpeg()[:200], b"GIF89a" + bytes(50)], ids=len)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes):
    with pytest.raises(InvalidRequestError, match="Not a readable picture"):
        picture(tmp_path, content)
    assert read_jpeg(content) is None


def test_a_jpeg_with_something_behind_it_is_cut_at_its_end(tmp_path: Path):
    dataset, _ = picture(tmp_path, jpeg() + b"ftypmp42 secret of a telephone")
    assert b"secret" not in dataset.PixelData


@pytest.mark.requirement("PS3.5 8.2.7: MPEG-4 AVC is encapsulated without being encoded anew")
@pytest.mark.parametrize(
    ("codec", "pixels", "options", "syntax"),
    [
        ("libx264", "yuv420p", {}, "MPEG-4 AVC/H.264 High Profile / Level 4.1"),
        ("libx264", "yuv420p", {"profile": "main"}, "MPEG-4 AVC/H.264 High Profile / Level 4.1"),
        ("libx264", "yuv420p", {"profile": "baseline"}, "MPEG-4 AVC/H.264 High Profile / Level 4.1"),
        ("libx264", "yuv420p", {"level": "4.2"}, "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video"),
        ("libx265", "yuv420p", {}, "HEVC/H.265 Main Profile / Level 5.1"),
        ("libx265", "yuv420p10le", {}, "HEVC/H.265 Main 10 Profile / Level 5.1"),
    ],
)
def test_a_video_is_stored_as_it_is(tmp_path: Path, codec: str, pixels: str, options: dict, syntax: str):
    """PS3.5 A.4.6-A.4.9: an empty offset table, one fragment that is the file; FFmpeg plays it from there."""
    content = mp4(tmp_path, codec, pixels, **options)
    dataset, told = wrap_video(tmp_path / "v.mp4", WHO)
    dataset = written(dataset)
    assert told == ()
    assert dataset.file_meta.TransferSyntaxUID.name == syntax
    assert parse_basic_offsets(dataset.PixelData) == []
    (fragment,) = _fragments(dataset)
    assert fragment[: len(content)] == content
    assert len(fragment) - len(content) == len(content) % 2
    assert (dataset.Rows, dataset.Columns, dataset.NumberOfFrames, float(dataset.FrameTime)) == (48, 64, 10, 40)
    with av.open(BytesIO(fragment)) as played:
        assert sum(1 for _ in played.decode(video=0)) == 10


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"pixels": "yuv444p"}, "no transfer syntax for H.264 of profile 244"),
        ({"pixels": "yuv420p10le"}, "no transfer syntax for H.264 of profile 110"),
        ({"level": "5.1"}, "profile 100, level 51"),
        ({"codec": "mpeg4"}, "neither H.264"),
        ({"movflags": "frag_keyframe+empty_moov"}, "in fragments|neither|no video"),
    ],
    ids=str,
)
def test_a_video_that_dicom_cannot_hold_is_refused(tmp_path: Path, options: dict, match: str):
    if "movflags" in options:
        with av.open(str(tmp_path / "v.mp4"), "w", options=options) as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(3):
                container.mux(
                    stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24"))
                )
            container.mux(stream.encode())
    else:
        mp4(tmp_path, **options)
    with pytest.raises(InvalidRequestError, match=match):
        wrap_video(tmp_path / "v.mp4", WHO)


@pytest.mark.parametrize("cut", [1, 100, 1000, -8])
def test_a_cut_video_is_refused(tmp_path: Path, cut: int):
    content = mp4(tmp_path)
    (tmp_path / "v.mp4").write_bytes(content[:-cut])
    with pytest.raises(InvalidRequestError, match="MP4"):
        wrap_video(tmp_path / "v.mp4", WHO)


@pytest.mark.requirement("PS3.3 A.85: encapsulated STL and OBJ")
@pytest.mark.parametrize(
    ("name", "content", "sop_class", "kind"),
    [
        ("a.stl", BINARY_STL, "Encapsulated STL Storage", "model/stl"),
        ("a.stl", b"solid x\nfacet normal 0 0 1\nendfacet\nendsolid x\n", "Encapsulated STL Storage", "model/stl"),
        ("a.OBJ", TEXT_OBJ, "Encapsulated OBJ Storage", "model/obj"),
    ],
)
def test_a_surface_is_kept_byte_for_byte(tmp_path: Path, name: str, content: bytes, sop_class: str, kind: str):
    (tmp_path / name).write_bytes(content)
    dataset, told = wrap_model(tmp_path / name, WHO)
    dataset = written(dataset)
    assert dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength] == content
    assert (dataset.SOPClassUID.name, dataset.MIMETypeOfEncapsulatedDocument) == (sop_class, kind)
    assert (dataset.Modality, dataset.MeasurementUnitsCodeSequence[0].CodeValue) == ("M3D", "mm")
    assert "millimetres" in told[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.stl", BINARY_STL[:-1]), ("a.stl", b""), ("a.stl", b"solid x\nfacet"), ("a.obj", TEXT_OBJ[:-1]),
     ("a.obj", b"<html>\nv 1 2 3\n"), ("a.obj", b""), ("a.obj", b"v 0 0 0\n\x00\n")],
)  # fmt: skip
def test_what_is_no_surface_is_refused(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequestError, match="Not a whole"):
        wrap_model(tmp_path / name, WHO)
