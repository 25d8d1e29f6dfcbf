"""Key images as dcmtk, dicom3tools, highdicom and our renderer read them; tied to SEG and SR; a replay is the same."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from ai_services.prediction import Finding, Numbering, Prediction
from ai_services.results.dicom_objects import build_objects, result_objects
from dicomweb.instance_header import is_own_output
from dicomweb.rejection.own_results import standing_on
from dicomweb.retrieve.picture import rendered
from dicomweb.retrieve.rendering_parameters import Rendering
from tests.builders.prediction import SERIES_UID, prediction, run_context, source_datasets

DCIODVFY = Path(sys.executable).with_name("dciodvfy")
"""David Clunie's checker of objects against the definitions of their classes (package dicom3tools)."""


def objects(made: Prediction | None = None) -> dict[str, Dataset]:
    made = made or prediction()
    return {dataset.Modality: dataset for dataset in build_objects(made, source_datasets(), run_context())}


def written(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def texts(state: Dataset) -> list[str]:
    return [
        str(text.UnformattedTextValue)
        for item in state.GraphicAnnotationSequence
        for text in item.get("TextObjectSequence", [])
    ]


def bent() -> Prediction:
    """A spine whose two graded discs are not seen in one slice together."""
    made = prediction()
    mask = made.mask.copy()
    mask[mask >= 3] = 0
    mask[1, 38:42, 12:24], mask[3, 24:28, 11:25] = 3, 4
    return replace(made, mask=mask)


def test_graded_discs_are_marked_with_level_grade_confidence_and_whose_word_it_is() -> None:
    state = objects()["PR"]
    assert texts(state) == [
        "L4/5 Pfirrmann IV 0.66\r\nherniation 0.81",
        "L5/S1 Pfirrmann III 0.60\r\nbulge 0.70",
        "AI - UNVERIFIED   lumbar_mr 0.1.0\r\nSYNTHETIC",
    ]
    assert all(text.isascii() for text in texts(state)), "readable whatever character set the images have"
    (image,) = state.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert image.ReferencedSOPInstanceUID == f"{SERIES_UID}.4"
    unsure = objects(prediction(numbering=Numbering("sacrum-only", confident=False, reason="six lumbar vertebrae")))
    assert "LEVELS UNCERTAIN" in texts(unsure["PR"])[-1]


def test_outlines_lie_on_the_discs() -> None:
    made = prediction()
    (outlines,) = [item for item in objects()["PR"].GraphicAnnotationSequence if item.GraphicLayer == "AI_OUTLINES"]
    for graphic, number in zip(outlines.GraphicObjectSequence, (4, 3), strict=True):
        points = np.array(graphic.GraphicData).reshape(-1, 2)
        assert points[0].tolist() == points[-1].tolist()
        rows, columns = np.nonzero(made.mask[3] == number)
        np.testing.assert_allclose(points.min(axis=0), (columns.min(), rows.min()), atol=0.6)
        np.testing.assert_allclose(points.max(axis=0), (columns.max() + 1, rows.max() + 1), atol=0.6)


def test_a_bent_spine_has_as_many_key_images_as_it_needs() -> None:
    found = build_objects(bent(), source_datasets(), run_context())
    states = [dataset for dataset in found if dataset.Modality == "PR"]
    assert [texts(state)[0].partition(" ")[0] for state in states] == ["L4/5", "L5/S1"]
    assert len({state.SeriesInstanceUID for state in states}) == 1
    named = [item.sop_instance_uid for item in result_objects(bent(), run_context())]
    assert named == [str(dataset.SOPInstanceUID) for dataset in found]


def test_without_a_graded_disc_there_is_no_key_image() -> None:
    items = (Finding("F08", None, absent_reason="not-performed", absent_text_zh="无", absent_text_en="none"),)
    made = prediction(items=items)
    assert [dataset.Modality for dataset in build_objects(made, source_datasets(), run_context())] == ["SEG", "SR"]
    assert [item.kind for item in result_objects(made, run_context())] == ["SEG", "SR"]


def test_a_replay_is_byte_for_byte_the_same() -> None:
    def contents() -> list[bytes]:
        found = []
        for dataset in build_objects(prediction(), source_datasets()[::-1], run_context()):
            buffer = BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            found.append(buffer.getvalue())
        return found

    assert contents() == contents()


def test_one_tree_tied_by_tracking_uids() -> None:
    """IHE AI Results: the SR is the root; whatever else there is hangs on it, and a disc has one tracking UID."""
    made = objects()
    segments = {item.TrackingID: item.TrackingUID for item in made["SEG"].SegmentSequence}
    groups = highdicom.sr.MeasurementReport.from_sequence([made["SR"]]).get_volumetric_roi_measurement_groups()
    reported = {group.tracking_identifier: str(group.tracking_uid) for group in groups}
    drawn = {
        item.TrackingID: item.TrackingUID
        for layer in made["PR"].GraphicAnnotationSequence
        for item in (*layer.get("GraphicObjectSequence", []), *layer.get("TextObjectSequence", []))
        if "TrackingID" in item
    }
    assert set(reported) == set(drawn) == {"L4-L5 disc", "L5-S1 disc"}
    assert all(segments[name] == reported[name] == drawn[name] for name in reported)
    evidence = {
        str(item.ReferencedSOPInstanceUID)
        for series in made["SR"].CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert {str(made[kind].SOPInstanceUID) for kind in ("SEG", "PR")} < evidence


def test_every_object_names_each_algorithm_and_its_weights() -> None:
    for dataset in objects().values():
        (model,) = [item for item in dataset.ContributingEquipmentSequence if item.Manufacturer == "Foramen"]
        assert (model.ManufacturerModelName, model.SoftwareVersions) == ("lumbar-segmentation", "0.1.0")
        assert model.DeviceUID.startswith("2.25.")


def test_they_are_ours_and_stand_on_the_images() -> None:
    """So they start no run, are hidden from patients until signed, and go with the images when these are rejected."""
    made = objects()
    assert all(is_own_output(dataset.Modality, dataset.Manufacturer) for dataset in made.values())
    names = {
        str(dataset.SOPInstanceUID): set(re.findall(r"\(0008,1155\)[^\n]*: ([0-9.]+)", str(dataset)))
        for dataset in made.values()
    }
    assert standing_on({f"{SERIES_UID}.4"}, names) == set(names)


@pytest.mark.parametrize("kind", ["SEG", "PR", "SR", "KO"])
def test_dicom3tools_finds_no_error(kind: str, tmp_path: Path) -> None:
    path = written(objects()[kind], tmp_path / "object.dcm")
    done = subprocess.run([DCIODVFY, "-new", path], capture_output=True, text=True, check=False)
    assert not [line for line in done.stderr.splitlines() if line.startswith("Error")]


def test_dcmtk_reads_selection_and_presentation_state(tmp_path: Path) -> None:
    made = objects()
    told = subprocess.run(
        ["dsrdump", written(made["KO"], tmp_path / "ko.dcm")], capture_output=True, text=True, check=True
    ).stdout
    assert "Of Interest" in told
    assert "AI - UNVERIFIED" in told
    assert re.search(r'IMAGE:.*"Source"\)=\(MR image,\),\(GSPS,\)', told)
    assert re.search(r"COMPOSITE:.*Comprehensive3DSR", told)
    root = subprocess.run(
        ["dsrdump", written(made["SR"], tmp_path / "sr.dcm")], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r'IMAGE:.*"Source"\)=\(MR image,\),\(GSPS,\)', root)
    state = made["PR"]
    state.PatientName = "SYNTHETIC^TEST"  # dcmpschk's own check of values knows no UTF-8
    path = written(state, tmp_path / "pr.dcm")
    checked = subprocess.run(["dcmpschk", path], capture_output=True, text=True, check=False)
    assert "Error" not in checked.stderr + checked.stdout
    assert "Test passed" in checked.stderr + checked.stdout


@pytest.mark.parametrize(("rotation", "flip"), [(0, "N"), (90, "N"), (180, "Y"), (270, "Y")])
def test_our_renderer_draws_the_outlines_where_the_disc_is(rotation: int, flip: str) -> None:
    """Whatever the state turns and the viewport scales: the outline runs along the edge of the disc's pixels."""
    image = source_datasets()[3]
    bright = np.where(prediction().mask[3] == 3, 2000, 0).astype(np.uint16)
    image.PixelData = bright.tobytes()
    state = objects()["PR"]
    state.ImageRotation, state.ImageHorizontalFlip = rotation, flip
    del state.SoftcopyVOILUTSequence
    layers = {item.GraphicLayer: item for item in state.GraphicAnnotationSequence}
    outline = layers["AI_OUTLINES"]
    outline.GraphicObjectSequence = outline.GraphicObjectSequence[1:]  # of L5-S1, which is bright
    state.GraphicAnnotationSequence = [outline]
    picture = np.asarray(Image.open(BytesIO(rendered(image, [1], Rendering("image/png", viewport=(480, 480)), state))))
    coloured = np.ptp(picture.astype(int), axis=2) > 60
    white = picture.min(axis=2) > 200
    rows, columns = np.nonzero(coloured)
    inside = np.nonzero(white)
    scale = 480 / 48
    for drawn, disc in ((rows, inside[0]), (columns, inside[1])):
        assert abs(drawn.min() - disc.min()) < scale
        assert abs(drawn.max() - disc.max()) < scale
    assert white[int(rows.mean()), int(columns.mean())]
