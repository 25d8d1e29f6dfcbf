"""SYNTHETIC data of `foramen bench dicomweb`: CT slices of noise around a phantom, and rows of a large study index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomweb.instance_header import InstanceHeader, header_of, tag_of

ROOT = "1.2.826.0.1.3680043.10.1554.77"
_FAMILIES = ("ZHANG=张", "LI=李", "WANG=王", "LIU=刘", "CHEN=陈", "MÜLLER=", "SMITH=", "ZHAO=赵", "HUANG=黄", "WU=吴")
_GIVEN = ("WEI=伟", "FANG=芳", "NA=娜", "MIN=敏", "JING=静", "JÖRG=", "ANN=", "QIANG=强", "LEI=磊", "YAN=艳")
_PLACES = ("Lumbar spine SYNTHETIC", "Chest SYNTHETIC", "Head SYNTHETIC", "Knee left SYNTHETIC", "Abdomen SYNTHETIC")
_MODALITIES = ("MR", "CT", "DX", "US", "MR", "CT")


def ct_template(size: int) -> Dataset:
    """Return a CT slice without what differs from slice to slice."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192", "SOPClassUID": CTImageStorage, "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "PatientName": "SYNTHETIC^BENCH", "PatientID": "SYN-BENCH",
        "IssuerOfPatientID": "DEMO", "PatientBirthDate": "19700101", "PatientSex": "O", "StudyDate": "20260101",
        "StudyTime": "101500", "AccessionNumber": "BENCH", "StudyDescription": "CT SYNTHETIC", "StudyID": "1",
        "SeriesDescription": "Axial SYNTHETIC", "Manufacturer": "SYNTHETIC", "ManufacturerModelName": "Phantom",
        "KVP": "120", "SliceThickness": "0.6", "XRayTubeCurrent": "210", "ConvolutionKernel": "B30f",
        "PatientPosition": "HFS", "Rows": size, "Columns": size, "PixelSpacing": [0.7, 0.7], "BitsAllocated": 16,
        "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1, "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "RescaleIntercept": "-1024", "RescaleSlope": "1",
        "WindowCenter": "40", "WindowWidth": "400", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    }  # fmt: skip
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def write_as_devices_do(dataset: Dataset) -> None:
    """Add what the header of a short template lacks: nests without a length, private blocks; 250 elements in all.

    Classic MR of two makers in public data has 320 and 450, of which ten to fifteen differ from slice to slice.
    """
    for group in (0x0019, 0x0021, 0x0027, 0x0043):
        dataset.add_new((group, 0x10), "LO", f"SYNTHETIC MAKER {group:04X}")
        for number in range(48):
            vr, value = _PRIVATE[number % len(_PRIVATE)]
            dataset.add_new((group, 0x1000 + number), vr, value)
    code = _item(CodeValue="SYN-1", CodingSchemeDesignator="99SYN", CodeMeaning="Lumbar spine SYNTHETIC")
    image = _item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=f"{ROOT}.1.2.3")
    protocol = _item(ScheduledProcedureStepID="SYN", ScheduledProtocolCodeSequence=Sequence([code]))
    nests = {
        "ProcedureCodeSequence": [code], "ReferencedImageSequence": [image] * 3, "AnatomicRegionSequence": [code],
        "RequestAttributesSequence": [protocol], "ReferencedStudySequence": [image], "SourceImageSequence": [image],
    }  # fmt: skip
    for keyword, items in nests.items():
        setattr(dataset, keyword, Sequence(items))
        dataset[keyword].is_undefined_length = True


_PRIVATE = (("LO", "SYNTHETIC"), ("DS", "1.25"), ("FL", 0.5), ("UN", b"\1\2\3\4"), ("IS", "7"), ("SL", -3))


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    item.is_undefined_length_sequence_item = True
    return item


def ct_study(study: str, instances: int, per_series: int, size: int, *, is_long: bool = False) -> Iterator[bytes]:
    """Yield the files of one study, one at a time: memory does not grow with it.

    Parameters
    ----------
    instances, per_series : numbers of slices
    size : pixels of an edge; 16 bit each
    is_long : whether headers are as devices write them, not a short template's
    """
    noise = np.random.default_rng(7).normal(0, 25, (size, size))
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    body = np.where(rows**2 + columns**2 < 0.7, 1060.0, 24.0)
    dataset = ct_template(size)
    if is_long:
        write_as_devices_do(dataset)
    for number in range(instances):
        place = number % per_series
        dataset.StudyInstanceUID = study
        dataset.SeriesInstanceUID = dataset.FrameOfReferenceUID = f"{study}.{number // per_series + 1}"
        dataset.SeriesNumber, dataset.InstanceNumber = number // per_series + 1, place + 1
        dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID}.{place + 1}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.ImagePositionPatient = [-180, -180, round(-0.6 * place, 1)]
        dataset.SliceLocation = f"{-0.6 * place:.1f}"
        # Noise of its own for each slice, so that no two of them are the same picture.
        shifted = np.roll(noise, (31 * number, 17 * number), (0, 1))
        dataset.PixelData = (body + shifted).astype("<i2").tobytes()
        target = BytesIO()
        dcmwrite(target, dataset, enforce_file_format=True)
        yield target.getvalue()


def index_rows(first: int, count: int, instances: int) -> Iterator[InstanceHeader]:
    """Yield headers of SYNTHETIC studies, of one series each, that no file lies behind.

    Parameters
    ----------
    first, count : numbers of the studies; a number always gives the same study
    instances : of each study
    """
    dataset = ct_template(512)
    dataset.StudyInstanceUID = dataset.SeriesInstanceUID = dataset.SOPInstanceUID = ROOT
    model = header_of(dataset, has_pixel_data=True)
    for number in range(first, first + count):
        family, given = _FAMILIES[number % 10].split("="), _GIVEN[number // 10 % 10].split("=")
        name = {"Alphabetic": f"{family[0]}^{given[0]} {number // 100}"}
        if family[1] and given[1]:
            name["Ideographic"] = f"{family[1]}^{given[1]}"
        uid, modality = f"{ROOT}.9.{number}", _MODALITIES[number // 3 % 6]
        study = _with(
            model.study,
            PatientName=name, PatientID=f"SYN-B{number:07}", AccessionNumber=f"A{number:08}",
            StudyDate=f"{2006 + number % 20}{number // 20 % 12 + 1:02}{number // 240 % 28 + 1:02}",
            StudyTime=f"{number % 24:02}{number % 60:02}00", StudyInstanceUID=uid,
            StudyDescription=_PLACES[number // 7 % 5],
        )  # fmt: skip
        series = _with(model.series, SeriesInstanceUID=f"{uid}.1", Modality=modality, SeriesNumber=1)
        for place in range(1, instances + 1):
            sop = f"{uid}.1.{place}"
            yield replace(
                model, study_instance_uid=uid, series_instance_uid=f"{uid}.1", sop_instance_uid=sop,
                instance_number=place, study=study, series=series,
                instance=_with(model.instance, SOPInstanceUID=sop, InstanceNumber=place),
            )  # fmt: skip


def _with(level: dict[str, Any], **values: Any) -> dict[str, Any]:
    return level | {tag_of(name): {**level[tag_of(name)], "Value": [value]} for name, value in values.items()}
