"""Graphics of presentation states, also of states that nobody should have made."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from dicomweb.retrieve.graphics import MOST_CHARACTERS, MOST_MARKS, MOST_POINTS, WHITE, Line, Text, colour_of, marks_of
from dicomweb.retrieve.picture import rendered
from dicomweb.retrieve.rendering_parameters import Rendering
from tests.builders.prediction import source_datasets

UID = "1.2.3"


def item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def graphic(kind: str, data: list[float], units: str = "PIXEL", filled: str = "N") -> Dataset:
    return item(GraphicType=kind, GraphicData=data, GraphicAnnotationUnits=units, GraphicFilled=filled)


def state(
    *graphics: Dataset, texts: tuple[Dataset, ...] = (), uid: str | None = None, frames: object = None
) -> Dataset:
    annotation = item(GraphicLayer="ONE", GraphicObjectSequence=list(graphics), TextObjectSequence=list(texts))
    if uid is not None:
        reference = item(ReferencedSOPInstanceUID=uid)
        if frames is not None:
            reference.ReferencedFrameNumber = frames
        annotation.ReferencedImageSequence = [reference]
    return item(GraphicAnnotationSequence=[annotation])


def test_circle_and_ellipse_are_closed_paths_around_their_centre() -> None:
    circle, ellipse = marks_of(
        state(graphic("CIRCLE", [10, 20, 13, 24]), graphic("ELLIPSE", [0, 5, 20, 5, 10, 0, 10, 10])), UID, 1
    )
    assert isinstance(circle, Line)
    assert isinstance(ellipse, Line)
    assert {round(math.dist((10, 20), point), 6) for point in circle.points} == {5}
    columns, rows = zip(*ellipse.points, strict=True)
    assert (min(columns), max(columns), min(rows), max(rows)) == pytest.approx((0, 20, 0, 10))


@pytest.mark.parametrize(
    ("uid", "frames", "drawn"),
    [(None, None, 1), (UID, None, 1), (UID, 2, 1), (UID, [1, 2], 1), (UID, 3, 0), ("1.2.4", None, 0)],
)
def test_only_what_is_for_this_image_and_frame(uid: str | None, frames: object, drawn: int) -> None:
    assert len(marks_of(state(graphic("POINT", [1, 1]), uid=uid, frames=frames), UID, 2)) == drawn


@pytest.mark.parametrize(
    "bad",
    [
        graphic("POLYLINE", [1, 2, float("nan"), 4]),
        graphic("POLYLINE", [1, 2, float("inf"), 4]),
        graphic("POLYLINE", [1, 2, 3]),
        graphic("POLYLINE", []),
        graphic("POLYLINE", [1, 2, 3, 4], units="MATRIX"),
        graphic("SPIRAL", [1, 2, 3, 4]),
        item(GraphicType="POLYLINE"),
    ],
)
def test_what_cannot_be_drawn_is_left_out(bad: Dataset) -> None:
    assert len(marks_of(state(bad, graphic("POINT", [1, 1])), UID, 1)) == 1


def test_more_than_a_picture_can_bear_is_cut_off() -> None:
    many = [graphic("POINT", [1, 1]) for _ in range(MOST_MARKS + 5)]
    assert len(marks_of(state(*many), UID, 1)) == MOST_MARKS
    long = graphic("POLYLINE", [1.0] * (2 * MOST_POINTS + 2))
    assert marks_of(state(long), UID, 1) == []
    text = item(UnformattedTextValue="x" * 5000, AnchorPoint=[1, 1], AnchorPointAnnotationUnits="PIXEL")
    (found,) = marks_of(state(texts=(text,)), UID, 1)
    assert isinstance(found, Text)
    assert len(found.text) == MOST_CHARACTERS


def test_colours_of_layers() -> None:
    white = item(GraphicLayerRecommendedDisplayCIELabValue=[65535, 32896, 32896])
    red = item(GraphicLayerRecommendedDisplayCIELabValue=[int(0.5429 * 65535), int((80.8 + 128) / 255 * 65535), 50900])
    assert min(colour_of(white)) > 250
    assert colour_of(red)[0] > 240 > 40 > max(colour_of(red)[1:])
    assert colour_of(item(GraphicLayerRecommendedDisplayGrayscaleValue=0x8000)) == (128, 128, 128)
    assert colour_of(Dataset()) == WHITE


def test_points_far_outside_and_odd_boxes_are_no_fault() -> None:
    image = source_datasets()[0]
    box = {"BoundingBoxTopLeftHandCorner": [1e30, 0], "BoundingBoxBottomRightHandCorner": [-5, 1e9]}
    texts = (
        item(UnformattedTextValue="odd\r\nbox", BoundingBoxAnnotationUnits="PIXEL", **box),
        item(UnformattedTextValue="no place"),
    )
    lines = (graphic("POLYLINE", [-1e30, 5, 1e30, 5]), graphic("POLYLINE", [0.0, 0.0, 1.0, 1.0], "DISPLAY"))
    made = state(*lines, texts=texts)
    picture = Image.open(BytesIO(rendered(image, [1], Rendering("image/png"), made)))
    assert picture.mode == "RGB"


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE"])
def test_a_state_alone_decides_polarity(photometric: str, shape: str) -> None:
    """PS3.3 C.11.6: with IDENTITY the smallest value is dark, whatever the image says of itself."""
    image = source_datasets()[0]
    image.PhotometricInterpretation = photometric
    ramp = np.tile(np.arange(image.Columns, dtype=np.uint16) * 10, (image.Rows, 1))
    image.PixelData = ramp.tobytes()
    picture = np.asarray(
        Image.open(BytesIO(rendered(image, [1], Rendering("image/png"), item(PresentationLUTShape=shape))))
    )
    assert (picture[0, 0] < picture[0, -1]) == (shape == "IDENTITY")
