"""`foramen model evaluate --name lumbar_ct` on a SYNTHETIC folder: figures, refusals, and the word SYNTHETIC first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ai_services.evaluation.ct_folder import read_ct_folder, write_phantoms
from ai_services.evaluation.folder import EvaluationDataError
from ai_services.imaging.ct_phantom import CtSetting, ct_phantom
from foramen.commands.model import app as model_app

SETTING = CtSetting(spacing_mm=(2.0, 1.3, 1.3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole spines, and one without its lower half."""
    path = tmp_path_factory.mktemp("ct")
    write_phantoms(path, [ct_phantom(4, SETTING), ct_phantom(5, SETTING), ct_phantom(6, SETTING)])
    slices = sorted((path / "ct" / "images").glob("3_ct_slice*.png"))
    for image in slices[: len(slices) // 2]:
        (path / "ct" / "masks" / image.name).unlink()
        image.unlink()
    return path


def test_a_folder_holds_what_was_drawn(folder: Path) -> None:
    phantom = ct_phantom(4, SETTING)
    case = read_ct_folder(folder).case(1)
    np.testing.assert_array_equal(case.volume.array, phantom.pixels)
    assert case.volume.spacing_mm == pytest.approx((2.0, 1.3, 1.3))
    assert case.labels is not None
    np.testing.assert_array_equal(case.labels == 21, phantom.labels == phantom.label_of["L4", "body"])
    np.testing.assert_array_equal(case.labels == 1, phantom.labels == phantom.label_of["S1", "sacrum"])
    assert case.measures["canal-ap-bone", "L3"] == pytest.approx(phantom.shapes["L3"].canal_depth_mm, abs=1e-3)
    assert case.synthetic


def test_every_figure_is_told_and_a_refused_patient_counts(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    done = CliRunner().invoke(model_app, ["evaluate", str(folder), "--name", "lumbar_ct", "--json", str(out)])
    assert done.exit_code == 0, done.output
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["synthetic"] is True
    assert any(line.startswith("SYNTHETIC images only") for line in told["notice"])
    assert "SYNTHETIC images only" in done.output
    assert sum(told["data"]["declined"].values()) == 1
    assert told["counting"]["looked_at"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert told["counting"]["names_right"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    outlines = told["segmentation"]
    assert outlines["body_dice"]["rows"] == outlines["arch_dice"]["rows"] == 10
    assert outlines["body_dice"]["value"] > 0.95
    assert outlines["body_dice"]["interval_95"] is not None
    assert outlines["body_hausdorff95_mm"]["value"] < 5
    measures = told["measures"]
    assert measures["canal-ap-bone_told"]["value"] == 1.0
    assert measures["canal-ap-bone_error"]["value"] < 2.0
    assert measures["facet-angle_told"]["value"] < 1.0  # withheld where the joint is not sure: counted, not measured
    assert measures["facet-angle_told"]["rows"] == 20


def test_a_vertebra_that_is_named_wrongly_is_found_out(folder: Path, tmp_path: Path) -> None:
    """The truth moved up by one: outlines agree with nothing of their name."""
    copy = tmp_path / "shifted"
    shutil.copytree(folder, copy)
    for mask in (copy / "ct" / "masks").glob("*.png"):
        values = np.asarray(Image.open(mask)).copy()
        values[values > 10] += 10
        values[values > 60] = 0
        Image.fromarray(values).save(mask)
    out = tmp_path / "figures.json"
    command = ["evaluate", str(copy), "--name", "lumbar_ct", "--json", str(out), "--patients", "1"]
    assert CliRunner().invoke(model_app, command).exit_code == 0
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["counting"]["names_right"]["value"] == 0.0
    assert told["segmentation"]["body_dice"]["value"] < 0.1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no images", "holds no image"),
        ("a gap", "slices of patient 1 are missing"),
        ("no spacing", "no spacing of 1_ct"),
        ("not an image", "a file cannot be read"),
        ("a word", "line 2: ValueError"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(folder: Path, tmp_path: Path, fault: str, words: str) -> None:
    copy = tmp_path / "broken"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("2_ct*", "3_ct*"))
    images = sorted((copy / "ct" / "images").glob("*.png"))
    if fault == "no images":
        shutil.rmtree(copy / "ct" / "images")
    elif fault == "a gap":
        images[40].unlink()
    elif fault == "no spacing":
        (copy / "overview.csv").unlink()
    elif fault == "not an image":
        images[0].write_bytes(b"not a PNG")
    else:
        (copy / "ct_measures.csv").write_text("Patient,code,level,value\n1,canal-ap-bone,L3,wide\n", encoding="utf-8")
    with pytest.raises(EvaluationDataError, match=words):
        read_ct_folder(copy).case(1)
    done = CliRunner().invoke(model_app, ["evaluate", str(copy), "--name", "lumbar_ct"])
    assert done.exit_code == 2
