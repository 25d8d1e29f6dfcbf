"""A corrected volume as a new DICOM series that names each image it was made from; the originals stay untouched.

DICOM PS3.3 C.7.6.1.1.2 (Image Type), C.12.4.1.1 (Derivation Description, Source Image Sequence), PS3.16 CID 7203.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from ai_services.imaging.volume import Volume
from ai_services.quality.corrections import Corrected, Step
from ai_services.quality.report import VERSION
from foramen.kernel.corrected_series import corrected_series_uid
from foramen.kernel.identifiers import derived_uid

_CODES = {
    Step.BIAS: codes.cid7203.PixelByPixelDivision,
    Step.DENOISE: codes.cid7203.Smoothing,
    Step.RESAMPLE: codes.cid7203.SpatialResampling,
}
_NOT_TAKEN_OVER = (
    *("PixelData", "SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "VOILUTSequence", "ModalityLUTSequence", "IconImageSequence"),
    *("WindowCenterWidthExplanation", "ReferencedPerformedProcedureStepSequence", "PixelAspectRatio"),
)
_HIGHEST = 65535
_LONGEST_DESCRIPTION = 64


def derived_series(
    sources: Sequence[Dataset], corrected: Corrected, steps: tuple[Step, ...], *, series_number: int
) -> list[Dataset]:
    """Build the instances of the new series; the same input gives the same UIDs.

    Parameters
    ----------
    sources : the instances the volume was read from, in slice order, one a slice
    corrected : on the same slices
    steps : what was asked for
    series_number : of the new series

    Returns
    -------
    one dataset with file meta information a slice, 16 bit unsigned; where values are beyond that range a rescale slope
    brings them back
    """
    array = corrected.volume.array
    if len(sources) != len(array):
        raise ValueError("one source a slice is needed")
    names = (str(sources[0].SeriesInstanceUID), VERSION, *(step.value for step in sorted(set(steps))))
    series_uid = corrected_series_uid(names[0], (step.value for step in steps), VERSION)
    slope = _slope(array)
    stored = np.clip(np.rint(array / slope), 0, _HIGHEST).astype(np.uint16)
    window = np.percentile(stored, (1, 99)) * slope
    found = []
    for number, (source, plane) in enumerate(zip(sources, stored, strict=True)):
        dataset = _header(source, steps, corrected.description)
        dataset.SeriesInstanceUID = series_uid
        dataset.SeriesNumber = series_number
        dataset.SOPInstanceUID = derived_uid("quality", str(source.SOPInstanceUID), *names)
        dataset.InstanceNumber = number + 1
        dataset.WindowCenter = f"{(window[0] + window[1]) / 2:.6g}"
        dataset.WindowWidth = f"{max(1.0, window[1] - window[0]):.6g}"
        _place(dataset, corrected.volume, number)
        _pixels(dataset, plane, slope)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        found.append(dataset)
    return found


def _header(source: Dataset, steps: tuple[Step, ...], description: str) -> Dataset:
    dataset = Dataset()
    for element in source:
        if not element.tag.is_private and element.keyword not in _NOT_TAKEN_OVER:
            dataset[element.tag] = deepcopy(element)
    kept = list(source.get("ImageType") or [])[2:] or ["OTHER"]
    dataset.ImageType = ["DERIVED", "SECONDARY", *kept]
    mark = "+".join(step.value for step in sorted(set(steps)))
    text = str(source.get("SeriesDescription", ""))
    dataset.SeriesDescription = f"{text[: _LONGEST_DESCRIPTION - len(mark) - 3]} [{mark}]".strip()
    dataset.DerivationDescription = description[:1024]
    coded = [_coded(_CODES[step]) for step in sorted(set(steps)) if step in _CODES]
    if coded:
        dataset.DerivationCodeSequence = DicomSequence(coded)
    origin = Dataset()
    origin.ReferencedSOPClassUID, origin.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    origin.PurposeOfReferenceCodeSequence = DicomSequence([_coded(codes.DCM.SourceImageForImageProcessingOperation)])
    dataset.SourceImageSequence = DicomSequence([origin])
    made = Dataset()
    made.PurposeOfReferenceCodeSequence = DicomSequence([_coded(codes.DCM.ProcessingEquipment)])
    made.Manufacturer = "Foramen"
    made.SoftwareVersions = VERSION
    made.ContributionDescription = description[:1024]
    dataset.ContributingEquipmentSequence = DicomSequence([*(source.get("ContributingEquipmentSequence") or []), made])
    return dataset


def _place(dataset: Dataset, volume: Volume, number: int) -> None:
    _, row_mm, column_mm = volume.spacing_mm
    dataset.PixelSpacing = [f"{row_mm:.8g}", f"{column_mm:.8g}"]
    position = volume.to_lps(np.array([float(number), 0.0, 0.0]))
    dataset.ImagePositionPatient = [f"{value:.8g}" for value in position]


def _pixels(dataset: Dataset, plane: NDArray[np.uint16], slope: float) -> None:
    dataset.Rows, dataset.Columns = plane.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    if slope != 1.0:
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = f"{slope:.10g}", "0", "US"
    dataset.PixelData = plane.astype("<u2").tobytes()


def _slope(array: NDArray[np.float32]) -> float:
    """Return 1 where 16 bits hold the values with enough steps, else what spreads them over 16 bits."""
    highest = float(array.max())
    if highest <= 0:
        return 1.0
    return 1.0 if 200 <= highest <= _HIGHEST else float(f"{highest / _HIGHEST:.10g}")


def _coded(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
