"""WADO-RS and WADO-URI as HTTP: ranges, HEAD, validators, CORS, negotiation, ZIP, bulk data, pictures as asked for.

DICOM PS3.18 §8.3.5, §8.6, §8.7, §9, §10.4; RFC 9110
"""

from __future__ import annotations

import zipfile
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms
from pydicom import Dataset, dcmread
from pydicom.uid import (
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)

from tests.builders.dicom import encoded, series
from tests.builders.dicom_objects import colour_instance, presentation_state, structured_report, without_pixels
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import READ, Gateway
from tests.contract.dicomweb.test_wado import DICOM, parts_of, url

STORED = "application/dicom; transfer-syntax=*"
J2K = "1.2.840.10008.1.2.4.90"


@pytest.fixture(scope="module")
async def stored(gateway: Gateway) -> list[Dataset]:
    datasets = series(3, seed=431, size=(32, 24), patient_id="SYN-431")
    datasets[0].add_new(0x00420011, "OB", b"\x07" * 2048)
    assert (await gateway.store(*datasets)).status_code == 200
    return datasets


@pytest.fixture(scope="module")
async def video(gateway: Gateway) -> Dataset:
    """SYNTHETIC: the container and its offsets are real, the bit stream is not a picture."""
    dataset = series(1, seed=432, patient_id="SYN-432", depth="uint8")[0]
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    stream = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 40
    dataset.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0" + len(stream).to_bytes(4, "little") + stream
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.NumberOfFrames = 5
    assert (await gateway.store(dataset)).status_code == 200
    return dataset


@pytest.fixture(scope="module")
async def loop(gateway: Gateway) -> Dataset:
    """SYNTHETIC: four frames of 250 ms."""
    frames = series(4, seed=434, size=(32, 24), patient_id="SYN-434")
    dataset = frames[0]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = (
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    )
    dataset.NumberOfFrames, dataset.FrameTime = 4, "250"
    dataset.FrameIncrementPointer = 0x00181063
    dataset.PixelData = b"".join(bytes(item.PixelData) for item in frames)
    assert (await gateway.store(dataset)).status_code == 200
    return dataset


async def ask(gateway: Gateway, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.http.request(method, path, headers=bearer(READ) | named)


@pytest.mark.requirement("PS3.18 8.6.1.1: single part payload of one instance")
async def test_ranges_of_an_instance(gateway: Gateway, stored: list[Dataset]):
    whole = await ask(gateway, url(stored[1]), Accept=STORED)
    assert whole.headers["content-type"] == f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
    assert whole.headers["accept-ranges"] == "bytes"
    assert dcmread(BytesIO(whole.content)).PixelData == stored[1].PixelData
    size = len(whole.content)
    for text, start, end in (
        ("bytes=128-131", 128, 132),
        ("bytes=-10", size - 10, size),
        (f"bytes={size - 3}-", size - 3, size),
    ):
        part = await ask(gateway, url(stored[1]), Accept=STORED, Range=text)
        assert (part.status_code, part.content) == (206, whole.content[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    beyond = await ask(gateway, url(stored[1]), Accept=STORED, Range=f"bytes={size}-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    stale = await ask(gateway, url(stored[1]), Accept=STORED, Range="bytes=0-3", If_Range='"other"')
    assert (stale.status_code, len(stale.content)) == (200, size)
    several = await ask(gateway, url(stored[1]), Accept=STORED, Range="bytes=0-1,4-5")
    assert (several.status_code, len(several.content)) == (200, size)


@pytest.mark.requirement("PS3.18 8.3.4: conditional requests and HEAD")
@pytest.mark.parametrize("tail", ["", "/frames/1", "/bulkdata/7FE00010", "/rendered", "/thumbnail"])
async def test_head_and_validators(gateway: Gateway, stored: list[Dataset], tail: str):
    path = url(stored[1]) + tail
    full = await ask(gateway, path)
    head = await ask(gateway, path, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(full.content))
    assert head.headers["etag"] == full.headers["etag"]
    again = await ask(gateway, path, If_None_Match=full.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    assert (await ask(gateway, path, If_None_Match='"something"')).status_code == 200
    # Who may not see it does not learn that it is unchanged.
    foreign = bearer("patient/ImagingStudy.rs", patient="x") | {"If-None-Match": full.headers["etag"]}
    assert (await gateway.http.get(path, headers=foreign)).status_code == 404


@pytest.mark.requirement("SMART App Launch 2.2: considerations for CORS support")
async def test_apps_of_other_origins_may_ask(gateway: Gateway, stored: list[Dataset]):
    told = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    before = await gateway.http.options(url(stored[0]), headers=told)
    assert before.status_code == 204
    assert before.headers["access-control-allow-origin"] == "*"
    assert "authorization" in before.headers["access-control-allow-headers"]
    answer = await ask(gateway, url(stored[0]), Origin="https://app.example")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "ETag" in answer.headers["access-control-expose-headers"]
    refused = await gateway.http.get(url(stored[0]))
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")


@pytest.mark.requirement("PS3.18 8.7.8: selecting a representation by quality and transfer syntax")
@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", 'multipart/related; type="application/dicom"'),
        (f"application/dicom;q=0.5, {DICOM};q=0.4", f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"),
        (f"application/dicom;q=0.3, {DICOM}; transfer-syntax=*;q=0.4", 'multipart/related; type="application/dicom"'),
        (f"application/dicom; transfer-syntax={J2K}", f"application/dicom; transfer-syntax={J2K}"),
        ("application/dicom;q=0, */*;q=0.1", 'multipart/related; type="application/dicom"'),
        ("application/zip", "application/zip"),
        (
            f'{DICOM};q=0, multipart/related; type="application/octet-stream"',
            'multipart/related; type="application/octet-stream"',
        ),
    ],
)
async def test_negotiation(gateway: Gateway, stored: list[Dataset], accept: str, expected: str):
    answer = await ask(gateway, url(stored[0]), Accept=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(expected)


@pytest.mark.requirement("PS3.18 8.7.8.1: 406 names what there is")
@pytest.mark.parametrize(
    "accept", ["text/csv", "application/dicom; transfer-syntax=1.2.3", "*/*;q=0", "application/dicom;q=x"]
)
async def test_not_acceptable(gateway: Gateway, stored: list[Dataset], accept: str):
    answer = await ask(gateway, url(stored[0]), Accept=accept)
    assert answer.status_code == 406
    assert "application/dicom" in answer.json()["issue"][0]["diagnostics"]


@pytest.mark.requirement("PS3.18 10.4.4: a single part for one instance only")
async def test_a_single_part_of_a_study_is_406(gateway: Gateway, stored: list[Dataset]):
    assert (await ask(gateway, url(stored[0], "study"), Accept="application/dicom")).status_code == 406
    assert (await ask(gateway, f"{url(stored[0], 'series')}/rendered", Accept="image/jpeg")).status_code == 406


@pytest.mark.requirement("PS3.18 8.3.3.1: accept query parameter")
async def test_accept_as_a_query_parameter(gateway: Gateway, stored: list[Dataset]):
    answer = await ask(gateway, f"{url(stored[0])}/rendered?accept=image/png", Accept="image/jpeg")
    assert answer.headers["content-type"] == "image/png"


@pytest.mark.requirement("PS3.18 8.6.1.3: ZIP payload of a study")
async def test_a_study_as_zip(gateway: Gateway, stored: list[Dataset]):
    answer = await ask(gateway, url(stored[0], "study"), Accept="application/zip; transfer-syntax=*")
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        found = {dcmread(BytesIO(archive.read(name))).SOPInstanceUID for name in archive.namelist()}
    assert found == {item.SOPInstanceUID for item in stored}


@pytest.mark.requirement("PS3.18 10.4.1.1.5: bulkdata resources at every level")
@pytest.mark.parametrize(
    ("level", "kind", "count"), [("study", "bulkdata", 4), ("series", "pixeldata", 3), ("instance", "bulkdata", 2)]
)
async def test_all_bulk_data(gateway: Gateway, stored: list[Dataset], level: str, kind: str, count: int):
    answer = await ask(gateway, f"{url(stored[0], level)}/{kind}")
    parts = parts_of(answer)
    assert len(parts) == count
    values = {item.PixelData for item in stored} | {b"\x07" * 2048}
    for head, body in parts:
        assert body in values
        place = head.split("Content-Location: ")[1].split("\r\n")[0]
        assert (await gateway.get(place, accept="application/octet-stream")).content == body


@pytest.mark.requirement("PS3.18 10.4.1.1.6: frames in compressed transfer syntaxes")
@pytest.mark.parametrize("media", ["image/jls", "image/jp2", "image/jphc", "image/dicom-rle"])
async def test_frames_are_encoded_without_loss(gateway: Gateway, stored: list[Dataset], media: str):
    import imagecodecs
    from pydicom.pixels import get_decoder

    answer = await ask(gateway, f"{url(stored[1])}/frames/1", Accept=media)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(f"{media}; transfer-syntax=")
    if media == "image/dicom-rle":
        shape = {"rows": 32, "columns": 24, "samples_per_pixel": 1, "bits_allocated": 16, "bits_stored": 12}
        more = {"pixel_representation": 0, "photometric_interpretation": "MONOCHROME2", "number_of_frames": 1}
        from pydicom.encaps import encapsulate

        syntax = answer.headers["content-type"].partition("transfer-syntax=")[2]
        values, _ = get_decoder(syntax).as_array(encapsulate([answer.content]), index=0, **shape, **more)
    else:
        decode = {"image/jls": imagecodecs.jpegls_decode, "image/jp2": imagecodecs.jpeg2k_decode}
        values = decode.get(media, imagecodecs.htj2k_decode)(answer.content)
    assert np.array_equal(values, stored[1].pixel_array)
    lossy = await ask(
        gateway, f"{url(stored[1])}/frames/1", Accept="image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"
    )
    assert lossy.status_code == 406  # 16 bit pixels do not fit


@pytest.mark.requirement("PS3.18 8.3.5.1.3: viewport with source region and mirroring")
async def test_viewport(gateway: Gateway, stored: list[Dataset]):
    path = f"{url(stored[0])}/rendered?accept=image/png"
    whole = np.asarray(Image.open(BytesIO((await ask(gateway, path)).content)))
    assert whole.shape == (32, 24)
    for query, expected in (
        ("viewport=12,16,4,8,12,16", whole[8:24, 4:16]),
        ("viewport=24,32,0,0,-24,32", whole[:, ::-1]),
        ("viewport=24,32,,,24,-32", whole[::-1]),
    ):
        picture = np.asarray(Image.open(BytesIO((await ask(gateway, f"{path}&{query}")).content)))
        assert np.array_equal(picture, expected), query
    larger = await ask(gateway, f"{path}&viewport=96,96")
    assert Image.open(BytesIO(larger.content)).size == (72, 96)


@pytest.mark.requirement("PS3.18 8.3.5.1.4: window with its function")
@pytest.mark.parametrize(("function", "half"), [("linear", 2048), ("linear-exact", 2048), ("sigmoid", 2048)])
async def test_window_functions(gateway: Gateway, stored: list[Dataset], function: str, half: int):
    answer = await ask(gateway, f"{url(stored[0])}/rendered?accept=image/png&window={half},1000,{function}")
    shown = np.asarray(Image.open(BytesIO(answer.content))).astype(float)
    values = stored[0].pixel_array.astype(float)
    expected = {  # PS3.3 C.11.2.1.2 and C.11.2.1.3, written out
        "linear": np.clip((values - (half - 0.5)) / 999 + 0.5, 0, 1),
        "linear-exact": np.clip((values - half) / 1000 + 0.5, 0, 1),
        "sigmoid": 1 / (1 + np.exp(-4 * (values - half) / 1000)),
    }[function]
    assert np.abs(shown - expected * 255).max() <= 0.51


@pytest.mark.requirement("PS3.18 10.4.1.1.3: rendered series")
async def test_a_rendered_series_has_every_image(gateway: Gateway, stored: list[Dataset]):
    answer = await ask(gateway, f"{url(stored[0], 'series')}/rendered")
    assert answer.headers["content-type"].startswith('multipart/related; type="image/jpeg"')
    assert [Image.open(BytesIO(body)).size for _, body in parts_of(answer)] == [(24, 32)] * 3


@pytest.mark.requirement("PS3.18 8.7.4: image/gif, a series or a multi-frame instance as one animation")
async def test_gif_has_every_image_in_order(gateway: Gateway, stored: list[Dataset], loop: Dataset):
    for path, count, frame_ms in ((f"{url(stored[0], 'series')}/rendered", 3, 100), (f"{url(loop)}/rendered", 4, 250)):
        answer = await ask(gateway, path, Accept="image/gif")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/gif")
        gif = Image.open(BytesIO(answer.content))
        assert (gif.n_frames, gif.info["duration"], gif.size) == (count, frame_ms, (24, 32))
        one_by_one = await ask(gateway, path, Accept='multipart/related; type="image/png"')
        for number, (_, body) in enumerate(parts_of(one_by_one)):
            gif.seek(number)
            shown, single = (np.asarray(image.convert("L"), np.int16) for image in (gif, Image.open(BytesIO(body))))
            assert np.abs(shown - single).max() <= 1
    still = await ask(gateway, f"{url(loop)}/frames/2/rendered", Accept="image/gif")
    assert Image.open(BytesIO(still.content)).n_frames == 1
    # A study of several series is no animation, and one too large to hold is told how it can be had.
    assert (await ask(gateway, f"{url(stored[0], 'study')}/rendered", Accept="image/gif")).status_code == 406
    large = await ask(gateway, f"{url(stored[0], 'series')}/rendered?viewport=8000,8000", Accept="image/gif")
    assert (large.status_code, "smaller viewport" in large.text) == (406, True)


@pytest.mark.requirement("PS3.18 8.3.5.1.5: iccprofile no, yes and srgb")
async def test_icc_profile(gateway: Gateway):
    """A stored profile under which red means blue: kept by `yes`, its meaning kept by `srgb`, left out by `no`."""
    standard = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    own = standard.replace(b"rXYZ", b"----").replace(b"bXYZ", b"rXYZ").replace(b"----", b"bXYZ")
    camera, plain = colour_instance(451, ICCProfile=own), colour_instance(452)
    assert (await gateway.store(camera)).status_code == (await gateway.store(plain)).status_code == 200
    found: dict[tuple[str, str], Image.Image] = {}
    for name, dataset in (("camera", camera), ("plain", plain)):
        for word in ("no", "yes", "srgb"):
            for media_type in ("image/jpeg", "image/png"):
                answer = await ask(gateway, f"{url(dataset)}/rendered?iccprofile={word}", Accept=media_type)
                picture = found[name, word] = Image.open(BytesIO(answer.content))
                told = picture.info.get("icc_profile")
                assert (told is None) == (word == "no"), (name, word, media_type)
                assert (told == own) == ((name, word) == ("camera", "yes")), (name, word, media_type)
    stored = camera.pixel_array.astype(np.int16)
    assert np.array_equal(np.asarray(found["camera", "yes"]), stored)
    assert np.abs(np.asarray(found["camera", "srgb"], np.int16) - stored[:, :, ::-1]).mean() < 2
    assert (await ask(gateway, f"{url(plain)}/rendered?iccprofile=adobergb")).status_code == 400


@pytest.mark.requirement("PS3.18 8.7.4: text/html of a structured report; nothing of it runs")
async def test_a_report_is_readable_and_harmless(gateway: Gateway):
    report = structured_report(461, "<script>alert(1)</script> L4-L5 & 腰椎")
    assert (await gateway.store(report)).status_code == 200
    answer = await ask(gateway, f"{url(report)}/rendered", Accept="text/html")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<h1>Imaging Report</h1>" in answer.text
    assert "PARTIAL · UNVERIFIED" in answer.text
    assert "<b>Finding</b>: &lt;script&gt;alert(1)&lt;/script&gt; L4-L5 &amp; 腰椎" in answer.text
    assert "<b>Length</b>: 11.2 mm" in answer.text
    assert "<script" not in answer.text
    assert "sandbox" in answer.headers["content-security-policy"]
    assert (await ask(gateway, f"{url(report)}/rendered", Accept="image/jpeg")).status_code == 406
    assert (await ask(gateway, f"{url(report)}/rendered")).text == answer.text
    assert (await ask(gateway, f"{url(report)}/thumbnail")).status_code == 406


@pytest.mark.requirement("PS3.18 8.7.4: application/pdf of an encapsulated document")
async def test_an_encapsulated_pdf_comes_out_as_it_went_in(gateway: Gateway):
    content = b"%PDF-1.4 SYNTHETIC odd length"
    document = without_pixels(462, EncapsulatedPDFStorage)
    document.MIMETypeOfEncapsulatedDocument, document.Modality = "application/pdf", "DOC"
    document.EncapsulatedDocument, document.EncapsulatedDocumentLength = content + b"\0", len(content)
    assert (await gateway.store(document)).status_code == 200
    answer = await ask(gateway, f"{url(document)}/rendered", Accept="application/pdf")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
    assert answer.content == content
    assert (await ask(gateway, f"{url(document)}/rendered", Accept="text/html")).status_code == 406


@pytest.mark.requirement("PS3.18 9.4.2: presentationUID; PS3.3 C.10.6, C.11.6, C.11.8 applied to the picture")
async def test_a_presentation_state_is_applied(gateway: Gateway, stored: list[Dataset]):
    """Window, inversion, rotation by 90° and mirroring, over WADO-URI on the image and over WADO-RS on the state."""
    item = stored[1]
    state = presentation_state(463, stored[:2], window=(2000.0, 1000.0))
    assert (await gateway.store(state)).status_code == 200
    values = item.pixel_array.astype(np.float64)
    windowed = 1 - np.clip((values - 1999.5) / 999 + 0.5, 0, 1)
    expected = np.rint(np.fliplr(np.rot90(windowed, -1)) * 255)
    uri = (
        f"/wado?requestType=WADO&studyUID={item.StudyInstanceUID}&seriesUID={item.SeriesInstanceUID}"
        f"&objectUID={item.SOPInstanceUID}&contentType=image/png"
        f"&presentationSeriesUID={state.SeriesInstanceUID}&presentationUID={state.SOPInstanceUID}"
    )
    by_uri = await ask(gateway, uri)
    assert by_uri.status_code == 200
    by_rs = parts_of(await ask(gateway, f"{url(state)}/rendered", Accept='multipart/related; type="image/png"'))
    assert len(by_rs) == 2
    for content in (by_uri.content, by_rs[1][1]):
        shown = np.asarray(Image.open(BytesIO(content)), np.float64)
        assert shown.shape == (24, 32)
        assert np.abs(shown - expected).max() <= 1
    assert (await ask(gateway, uri.partition("&presentationUID")[0])).status_code == 400
    # The state of another study, or one that the caller may not see, is none.
    assert (await ask(gateway, uri + "9")).status_code == 404
    foreign = bearer("patient/ImagingStudy.rs", patient="x")
    assert (await gateway.http.get(f"{url(state)}/rendered", headers=foreign)).status_code == 404


@pytest.mark.requirement("PS3.18 8.3.5.1.1: annotation")
async def test_annotation_changes_the_picture_and_wrong_words_are_400(gateway: Gateway, stored: list[Dataset]):
    path = f"{url(stored[0])}/rendered?accept=image/png&viewport=300,400"
    plain, named = (
        (await ask(gateway, path)).content,
        (await ask(gateway, f"{path}&annotation=patient,technique")).content,
    )
    assert plain != named
    for query in ("annotation=all", "iccprofile=cmyk", "viewport=1,2,3", "window=nan,1,linear", "window=1,inf,sigmoid"):
        assert (await ask(gateway, f"{path}&{query}")).status_code == 400, query


@pytest.mark.requirement("PS3.18 8.7.4: stored video as video/mp4, with ranges")
async def test_video_as_stored(gateway: Gateway, video: Dataset):
    answer = await ask(gateway, f"{url(video)}/rendered", Accept="video/mp4")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    assert answer.content[4:12] == b"ftypmp42"
    part = await ask(gateway, f"{url(video)}/rendered", Accept="video/mp4", Range="bytes=4-7")
    assert (part.status_code, part.content) == (206, b"ftyp")
    assert (await ask(gateway, f"{url(video)}/rendered", Accept="image/jpeg")).status_code == 406


@pytest.mark.requirement("PS3.18 9.4: WADO-URI")
async def test_wado_uri(gateway: Gateway, stored: list[Dataset]):
    item = stored[1]
    base = (
        f"/wado?requestType=WADO&studyUID={item.StudyInstanceUID}&seriesUID={item.SeriesInstanceUID}"
        f"&objectUID={item.SOPInstanceUID}"
    )
    picture = await ask(gateway, base)
    assert picture.headers["content-type"] == "image/jpeg"
    dicom = await ask(gateway, f"{base}&contentType=application/dicom")
    assert dcmread(BytesIO(dicom.content)).PixelData == item.PixelData
    compressed = await ask(gateway, f"{base}&contentType=application/dicom&transferSyntax={J2K}")
    read = dcmread(BytesIO(compressed.content))
    assert (read.file_meta.TransferSyntaxUID, read.SOPInstanceUID) == (J2K, item.SOPInstanceUID)
    assert np.array_equal(read.pixel_array, item.pixel_array)
    small = await ask(gateway, f"{base}&contentType=image/png&region=0.5,0.5,1,1&windowCenter=2000&windowWidth=4000")
    assert Image.open(BytesIO(small.content)).size == (12, 16)
    for query in ("&region=0,0,2,2", "&frameNumber=x", "&windowCenter=1", "&anonymize=yes", "&objectUID=1.2"):
        assert (await ask(gateway, base + query)).status_code == 400, query
    assert (await ask(gateway, base.replace("requestType=WADO", "x=y"))).status_code == 400
    assert (await ask(gateway, base.replace(item.StudyInstanceUID, "../x"))).status_code == 400
    assert (await gateway.http.get(base)).status_code == 401


@pytest.mark.requirement("PS3.18 8.7.3.5.2: transcoding of one instance")
async def test_what_cannot_be_decoded_is_406_and_can_be_had_as_stored(gateway: Gateway):
    """A stored object whose compressed frame is broken: defined status, and nothing of the gateway ends."""
    broken = series(1, seed=433, patient_id="SYN-433", depth="uint8")[0]
    broken.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
    fragment = b"\xff\x4f\xff\x51" + b"\xff" * 60
    broken.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0" + len(fragment).to_bytes(4, "little") + fragment
    broken["PixelData"].VR, broken["PixelData"].is_undefined_length = "OB", True
    with gateway.orthanc.client() as client:  # Past our own door, which checks more.
        assert client.post("/instances", content=encoded(broken)).status_code == 200
    await gateway.service.intake.register_study(broken.StudyInstanceUID, "0" * 32)
    for tail, accept in (
        ("", "application/dicom"),
        ("/frames/1", "*/*"),
        ("/rendered", "image/png"),
        ("/bulkdata/7FE00010", "*/*"),
    ):
        assert (await ask(gateway, url(broken) + tail, Accept=accept)).status_code == 406, tail
    stored = await ask(gateway, url(broken), Accept=STORED)
    assert stored.content == encoded(broken)
    frame = await ask(gateway, f"{url(broken)}/frames/1", Accept="image/jp2; transfer-syntax=*")
    assert frame.content == fragment
