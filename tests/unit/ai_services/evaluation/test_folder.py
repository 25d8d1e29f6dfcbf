"""A labelled folder: what is read from it, and what is refused with the place named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ai_services.evaluation.folder import EvaluationDataError, read_folder

HEADER = (
    "Patient,IVD label,Modic,UP endplate,LOW endplate,Spondylolisthesis,"
    "Disc herniation,Disc narrowing,Disc bulging,Pfirrman grade"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """SYNTHETIC patient 7: one still image, two SPACE slices with masks, two graded discs."""
    for name in ("midsagittal", "t2_space/images", "t2_space/masks"):
        (tmp_path / name).mkdir(parents=True)
    grey = Image.fromarray(np.arange(600, dtype=np.uint8).reshape(30, 20))
    grey.save(tmp_path / "midsagittal" / "7_t2.png")
    for number in (3, 5):
        grey.save(tmp_path / "t2_space" / "images" / f"7_t2_SPACE_slice0{number}.webp", lossless=True)
        mask = Image.fromarray(np.full((30, 20), number // 2, dtype=np.uint8))
        mask.save(tmp_path / "t2_space" / "masks" / f"7_t2_SPACE_slice0{number}.png")
    (tmp_path / "gradings.csv").write_text(f"{HEADER}\n7,2,0,0,0,0,0,0,1,3\n7,1,1,0,0,0,1,1,1,5\n")
    columns = "new_file_name,sex,Manufacturer,MagneticFieldStrength,PixelSpacing"
    (tmp_path / "overview.csv").write_text(f'{columns}\n7_t2,F ,Philips Healthcare,3.0,"[0.625, 0.5]"\n')
    return tmp_path


def test_series_have_the_spacing_that_the_table_and_the_slice_numbers_say(folder: Path) -> None:
    labelled = read_folder(folder)
    still, space = labelled.still(7, "t2"), labelled.space(7)
    assert labelled.patients == (7,)
    assert still is not None
    assert still.volume.spacing_mm == (4.0, 0.625, 0.5)
    assert space is not None
    assert space.volume.spacing_mm[0] == 2.0
    assert space.classes is not None
    assert space.classes.max() == 2
    assert [disc.label for disc in labelled.gradings[7]] == [1, 2]
    assert labelled.gradings[7][0].labels["herniation"] is True
    assert labelled.subgroups_of(7, "t2") == {
        "vendor": "Philips",
        "field_strength": "3.0 T",
        "sex": "F",
        "sequence": "t2",
    }
    assert labelled.subgroups_of(7, "t1")["vendor"] == "unknown"
    assert labelled.still(7, "t1") is None


@pytest.mark.parametrize(
    ("line", "place"),
    [("7,1,0,0,0,0,0,0,1,9", "line 2"), ("7,one,0,0,0,0,0,0,1,3", "line 2"), ("7,1,0", "line 2")],
)
def test_a_table_that_cannot_be_right_is_refused_by_line(folder: Path, line: str, place: str) -> None:
    (folder / "gradings.csv").write_text(f"{HEADER}\n{line}\n")
    with pytest.raises(EvaluationDataError, match=place):
        read_folder(folder)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationDataError, match="no such folder"):
        read_folder(tmp_path / "nothing")
    with pytest.raises(EvaluationDataError, match="midsagittal"):
        read_folder(tmp_path)


def test_a_mask_with_unknown_values_is_refused(folder: Path) -> None:
    Image.fromarray(np.full((30, 20), 9, dtype=np.uint8)).save(folder / "t2_space/masks/7_t2_SPACE_slice03.png")
    with pytest.raises(EvaluationDataError, match="other values"):
        read_folder(folder).space(7)
