"""In-memory DICOM MR series for tests: SYNTHETIC arrays wrapped as classic single-frame instances."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

SPACE_IN_PLANE_MM = 0.46875


def mr_series(pixels: NDArray[np.integer], affine_lps: NDArray[np.float64], **attributes: object) -> list[Dataset]:
    """Wrap (slice, row, column) pixels as one series; `attributes` overwrite or add DICOM keywords on each instance."""
    study, series = generate_uid(), generate_uid()
    row_step, column_step = affine_lps[:3, 1], affine_lps[:3, 2]
    spacing = (float(np.linalg.norm(row_step)), float(np.linalg.norm(column_step)))
    orientation = [*(column_step / spacing[1]), *(row_step / spacing[0])]
    datasets = []
    for number, image in enumerate(pixels):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.Modality, dataset.BodyPartExamined = "MR", "LSPINE"
        dataset.SeriesDescription, dataset.InstanceNumber = "SYNTHETIC sag T2 test series", number + 1
        dataset.PatientID, dataset.PatientName = "SYN-TEST", "SYNTHETIC^TEST"
        dataset.Rows, dataset.Columns = image.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 0
        dataset.PixelSpacing = [round(value, 8) for value in spacing]
        dataset.ImageOrientationPatient = [round(float(value), 8) for value in orientation]
        position = affine_lps[:3, 3] + number * affine_lps[:3, 0]
        dataset.ImagePositionPatient = [round(float(value), 6) for value in position]
        dataset.PixelData = np.ascontiguousarray(image.astype("<u2")).tobytes()
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        datasets.append(dataset)
    return datasets


def space_patient(test_data: Path, patient: int) -> tuple[NDArray[np.uint16], NDArray[np.uint8], NDArray[np.float64]]:
    """Pixels, class mask and affine of one T2 SPACE patient of the real data (side unknown: x is arbitrary)."""
    folder = test_data / "spider" / "t2_space"
    paths = sorted(
        (folder / "images").glob(f"{patient}_t2_SPACE_slice*.webp"),
        key=lambda path: int(re.findall(r"\d+$", path.stem)[0]),
    )
    numbers = [int(re.findall(r"\d+$", path.stem)[0]) for path in paths]
    pixels = np.stack([np.asarray(Image.open(path).convert("L"), dtype=np.uint16) for path in paths])
    mask = np.stack([np.asarray(Image.open(folder / "masks" / f"{path.stem}.png"), dtype=np.uint8) for path in paths])
    step = float(numbers[1] - numbers[0])
    affine = np.array(
        [[step, 0, 0, 0], [0, 0, SPACE_IN_PLANE_MM, -100], [0, -SPACE_IN_PLANE_MM, 0, 150], [0, 0, 0, 1]], dtype=float
    )
    return pixels, mask, affine
