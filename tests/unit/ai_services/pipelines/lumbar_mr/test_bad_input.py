"""Every kind of bad input is refused by name, by the choice of series or by the pipeline; nothing is said of a disc.

Pixels are real where the data has them; the faults are made on purpose. What stands in a Task is tested in tests/e2e.
"""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from ai_services.imaging.geometry import volume_from_datasets
from ai_services.imaging.phantom import lumbar_phantom
from ai_services.imaging.series_selection import select_series
from ai_services.imaging.suitability import require_complete
from ai_services.models.registry import Manifest, load_manifest
from ai_services.pipelines.lumbar_mr.outline import prepared_of
from ai_services.pipelines.lumbar_mr.pipeline import run
from ai_services.prediction import PipelineError, Prediction
from terminology.analysis_reasons import ANALYSIS_REASONS
from tests.builders import bad_series as bad
from tests.builders.mr_series import mr_series


def analysed(series: Sequence[Sequence[Dataset]]) -> Prediction:
    """What a worker does with a study: choose the series by its headers, run the pipeline on it."""
    chosen = select_series(series).require()
    return run(next(item for item in series if item[0].SeriesInstanceUID == chosen))


def reason_of(*series: Sequence[Dataset]) -> str:
    """Why a study with these series is refused."""
    with pytest.raises(PipelineError) as caught:
        analysed(series)
    known = ANALYSIS_REASONS[caught.value.reason_code]
    assert caught.value.text_en.startswith(known.display)
    assert caught.value.text_zh.startswith(known.display_zh)
    return caught.value.reason_code


HEADERS: list[tuple[str, Callable[[bad.Series], bad.Series], str]] = [
    ("localiser by name", bad.labelled(SeriesDescription="T2 localizer sag"), "localizer"),
    ("localiser in three planes", bad.three_planes, "mixed-geometry"),
    ("coronal", bad.labelled(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "not-sagittal"),
    ("cervical", bad.labelled(BodyPartExamined="CSPINE"), "not-lumbar-mr"),
    ("a reformat", bad.labelled(ImageType=["DERIVED", "SECONDARY", "MPR"]), "derived-series"),
    ("T1 by name", bad.labelled(SeriesDescription="t1_tse_sag"), "not-t2"),
    ("an inner slice missing", bad.without_inner_slice, "missing-slices"),
    ("every second slice missing", bad.every_second_slice, "missing-slices"),
    ("echoes in turn", bad.echoes_in_turn, "mixed-echoes"),
    ("two echoes at each place", bad.two_echoes_each, "mixed-echoes"),
    ("magnitude and phase", bad.magnitude_and_phase, "mixed-echoes"),
    ("no orientation", bad.labelled(ImageOrientationPatient=None), "geometry-missing"),
    ("orientation of zeros", bad.labelled(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "not-sagittal"),
    ("no position", bad.labelled(ImagePositionPatient=None), "geometry-missing"),
    ("pixels of ten centimetres", bad.labelled(PixelSpacing=[100, 100]), "geometry-missing"),
    ("one pixel spacing", bad.labelled(PixelSpacing=0.5), "geometry-missing"),
    ("half an orientation", bad.labelled(ImageOrientationPatient=[0, 1, 0]), "geometry-missing"),
    ("one slice", lambda series: series[:1], "too-few-slices"),
    ("two slices", lambda series: series[:2], "too-few-slices"),
    ("a huge matrix", bad.labelled(Rows=30000, Columns=30000), "too-large"),
]
PIXELS: list[tuple[str, Callable[[bad.Series], bad.Series], str]] = [
    ("a neck's distances", bad.of_a_neck, "implausible-scale"),
    ("screws", bad.screws, "metal-artefact"),
    ("the upper half", bad.upper_half, "incomplete-coverage"),
    ("the lower half: too little for a column", bad.lower_half, "not-lumbar-mr"),
    ("one side", bad.one_side, "incomplete-coverage"),
    ("a file cut off", bad.cut_off_file, "invalid-pixel-data"),
    ("upside down", bad.upside_down, "orientation-contradicts-image"),
    ("front to back", bad.front_to_back, "orientation-contradicts-image"),
    ("on its side", bad.on_its_side, "orientation-contradicts-image"),
    ("not a number", bad.labelled(RescaleSlope="nan"), "invalid-pixel-data"),
    ("constant", lambda series: bad.with_pixels(series, lambda stack: stack * 0 + 9), "blank-image"),
    ("an empty image in between", bad.blank_between, "blank-image"),
    ("MONOCHROME1 by mistake", bad.wrongly_monochrome1, "inverted-image"),
    ("inverted", bad.inverted, "inverted-image"),
    ("colour", bad.labelled(PhotometricInterpretation="PALETTE COLOR"), "not-greyscale"),
]


@pytest.mark.test_data
class TestRealSpine:
    """One real patient, one fault at a time."""

    @pytest.fixture(scope="class")
    def sound(self, test_data: Path) -> bad.Series:
        return bad.sound(test_data)

    def test_the_sound_series_is_analysed(self, sound):
        prediction = analysed([sound])
        assert len([segment for segment in prediction.segments if segment.label == "disc"]) >= 6

    @pytest.mark.parametrize(("build", "code"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
    def test_headers_that_must_be_refused(self, sound, build, code):
        assert reason_of(build(sound)) == code

    @pytest.mark.parametrize(("build", "code"), [row[1:] for row in PIXELS], ids=[row[0] for row in PIXELS])
    def test_pixels_that_must_be_refused(self, sound, build, code):
        assert reason_of(build(sound)) == code

    def test_monochrome1_that_is_meant_is_turned_round_and_read(self, sound):
        turned = bad.labelled(PhotometricInterpretation="MONOCHROME1")(bad.inverted(sound))
        plain, back = (prepared_of(volume_from_datasets(series).volume).working for series in (sound, turned))
        np.testing.assert_allclose(back, plain, atol=1e-5)

    def test_a_faulty_series_gives_way_to_a_sound_one(self, sound):
        other = bad.labelled(SeriesInstanceUID="1.2.3")(bad.without_inner_slice(sound))
        assert select_series([other, sound]).require() == sound[0].SeriesInstanceUID


LUMBAR = {"BodyPartExamined": "LSPINE", "SeriesDescription": "T2 sag", "Modality": "MR"}


@pytest.mark.test_data
@pytest.mark.parametrize("folder", ["philips_classic", "ge_mprage"])
def test_real_series_of_which_the_scanner_took_more_are_incomplete(test_data: Path, folder):
    headers = [
        pydicom.dcmread(path, stop_before_pixels=True)
        for path in sorted((test_data / "dicom" / folder).iterdir())
        if path.name != "LICENSE"
    ]
    along = sorted(headers, key=lambda item: [float(v) for v in item.ImagePositionPatient])[:20]
    with pytest.raises(PipelineError) as caught:
        require_complete(along)
    assert caught.value.reason_code == "missing-slices"


@pytest.mark.test_data
@pytest.mark.parametrize("folder", ["philips_classic", "ge_mprage"])
def test_real_heads_under_a_lumbar_header_are_no_spine(test_data: Path, folder):
    head = [
        pydicom.dcmread(path) for path in sorted((test_data / "dicom" / folder).iterdir()) if path.name != "LICENSE"
    ]
    size = min(int(head[0].Rows), int(head[0].Columns))
    affine = np.array([[-4.0, 0, 0, 0], [0, 0, 240 / size, -100], [0, -240 / size, 0, 150], [0, 0, 0, 1]])
    pixels = np.stack([item.pixel_array for item in head[10:16]]).astype(np.uint16)
    assert reason_of(mr_series(pixels, affine, **LUMBAR)) in {"not-lumbar-mr", "incomplete-coverage"}


def test_a_real_abdomen_is_no_spine_and_its_reformat_no_series():
    abdomen = pydicom.dcmread(get_testdata_file("examples_overlay.dcm"))
    assert reason_of([abdomen]) == "not-lumbar-mr"
    abdomen.BodyPartExamined, abdomen.SeriesDescription = "LSPINE", "T2 sag"
    assert reason_of([abdomen]) == "derived-series"


def test_a_real_file_cut_short_in_transfer():
    cut = pydicom.dcmread(get_testdata_file("MR_truncated.dcm"), force=True)
    series = []
    for number in range(3):
        item = pydicom.dcmread(get_testdata_file("MR_truncated.dcm"), force=True)
        item.update(mr_series(np.zeros((3, 2, 2), int), np.diag([1.0, 1, 1, 1]))[number])
        item.Rows, item.Columns, item.PixelData = cut.Rows, cut.Columns, cut.PixelData
        item.ImageOrientationPatient, item.ImagePositionPatient = [0, 1, 0, 0, 0, -1], [4.0 * number, 0, 0]
        item.PixelSpacing, item.SliceThickness = [4.0, 4.0], 4.0
        series.append(item)
    assert reason_of(series) == "invalid-pixel-data"


def test_a_study_without_mr_images():
    assert reason_of([pydicom.dcmread(get_testdata_file("CT_small.dcm"))]) == "no-mr-images"


def _with_segmentation(folder: Path, content: bytes) -> Manifest:
    """The released package with other segmentation weights, whose hash the manifest names."""
    manifest = load_manifest("lumbar_mr")
    path = folder / "segmentation.onnx"
    path.write_bytes(content)
    identity = dataclasses.replace(manifest.models["segmentation"].identity, sha256=hashlib.sha256(content).hexdigest())
    file = dataclasses.replace(manifest.models["segmentation"], path=path, identity=identity)
    digest = hashlib.sha256(content + b"manifest").hexdigest()
    return dataclasses.replace(manifest, digest=digest, models={**manifest.models, "segmentation": file})


def _not_a_number_network() -> bytes:
    """An ONNX graph with the segmentation's inputs and outputs that answers NaN everywhere."""
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 1, "row", "column"])
    scores = onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [1, 4, "row", "column"])
    nan = onnx.helper.make_tensor("nan", onnx.TensorProto.FLOAT, [1, 4, 1, 1], [float("nan")] * 4)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["image", "nan"], ["scores"])], "poisoned", [image], [scores], [nan]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"not a model", "model-integrity"), (_not_a_number_network(), "model-output-invalid")],
    ids=["does not open", "answers NaN"],
)
def test_weights_that_were_poisoned_before_they_were_signed_are_not_believed(tmp_path, content, code):
    phantom = lumbar_phantom(0, slices=3)
    with pytest.raises(PipelineError) as caught:
        run(mr_series(phantom.pixels, phantom.affine_lps), _with_segmentation(tmp_path, content))
    assert caught.value.reason_code == code


def test_memory_that_does_not_suffice_is_said_and_may_be_tried_again():
    """A process with too little address space for the study: the system refuses memory, not a stand-in."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.builders.short_of_memory"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.stdout.split() == ["out-of-memory", "True"], found.stderr[-2000:]


def test_every_reason_given_in_code_has_its_words_in_both_languages():
    import re

    given = set()
    for path in Path("ai_services").rglob("*.py"):
        given |= set(
            re.findall(
                r"(?:refusal|_invalid|PipelineError|InvalidGeometryError)\(\s*\"([a-z0-9-]+)\"", path.read_text()
            )
        )
    assert {"metal-artefact", "missing-slices", "incomplete-task"} <= given
    assert given <= set(ANALYSIS_REASONS), given - set(ANALYSIS_REASONS)
    for reason in ANALYSIS_REASONS.values():
        assert re.search(r"[\u4e00-\u9fff]", reason.display_zh), reason.code
        assert not re.search(r"[\u4e00-\u9fff]", reason.display), reason.code
