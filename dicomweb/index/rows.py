"""Rows of the study index from the header of an instance: columns for what is searched often, JSON for the rest."""

from __future__ import annotations

from typing import Any

from dicomweb.index.folding import fold, grams, words
from dicomweb.instance_header import InstanceHeader, tag_of, text_values

INDEX_VERSION = 1
"""Raised when rows have to be made anew from the metadata they keep (`rebuilding`)."""
STUDY_COLUMNS = (
    *("study_instance_uid", "attributes", "keys", "patient_id", "patient_id_issuer"),
    *("name_alphabetic", "name_ideographic", "name_phonetic", "name_words"),
    *("accession_number", "study_date", "study_time", "study_id", "description", "grams"),
)
SERIES_COLUMNS = ("study_instance_uid", "series_instance_uid", "own_output", "attributes", "keys", "modality")
INSTANCE_COLUMNS = (
    *("study_instance_uid", "series_instance_uid", "sop_instance_uid", "orthanc_id", "instance_number"),
    *("transfer_syntax_uid", "frames", "attributes", "metadata", "sop_class_uid"),
    *("pixel_rows", "pixel_columns", "bits_allocated", "index_version"),
)


def match_keys(level: dict[str, Any]) -> dict[str, list[str]]:
    """Tag → texts of one level, for exact matching by an index; names folded."""
    keys: dict[str, list[str]] = {}
    for tag, attribute in level.items():
        if attribute.get("vr") != "SQ" and (texts := text_values(attribute)):
            keys[tag] = [fold(text).rstrip("^ ") for text in texts] if attribute.get("vr") == "PN" else texts
    return keys


def study_row(study_instance_uid: str, study: dict[str, Any]) -> tuple[Any, ...]:
    """Values of `STUDY_COLUMNS`; the name's words are the text of a tsvector."""

    def first(keyword: str) -> str | None:
        texts = text_values(study.get(tag_of(keyword), {}))
        return texts[0].strip() if texts else None

    names = (study.get(tag_of("PatientName"), {}).get("Value") or [{}])[0]
    groups = [names.get(group) or "" for group in ("Alphabetic", "Ideographic", "Phonetic")]
    description = first("StudyDescription")
    pieces = {f"n{piece}" for group in groups for piece in grams(fold(group))}
    pieces |= {f"d{piece}" for piece in grams(description or "")}
    return (
        *(study_instance_uid, study, match_keys(study), first("PatientID"), first("IssuerOfPatientID")),
        *(fold(group).rstrip("^ ") or None for group in groups),
        tsvector(word for group in groups for word in words(group)),
        *(first("AccessionNumber"), first("StudyDate"), first("StudyTime"), first("StudyID"), description),
        sorted(pieces),
    )


def series_row(header: InstanceHeader) -> tuple[Any, ...]:
    """Values of `SERIES_COLUMNS`."""
    modality = text_values(header.series.get(tag_of("Modality"), {}))
    return (
        *(header.study_instance_uid, header.series_instance_uid, header.own_output),
        *(header.series, match_keys(header.series), modality[0] if modality else None),
    )


def instance_row(header: InstanceHeader, orthanc_id: str) -> tuple[Any, ...]:
    """Values of `INSTANCE_COLUMNS`."""
    return (
        *(header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid, orthanc_id),
        *(header.instance_number, header.transfer_syntax_uid, header.frames),
        *(header.instance, header.metadata, header.sop_class_uid, *pixel_columns(header.instance), INDEX_VERSION),
    )


def pixel_columns(instance: dict[str, Any]) -> tuple[int | None, ...]:
    """Rows, Columns and Bits Allocated, which every search for instances returns."""
    values = ((instance.get(tag, {}).get("Value") or [None])[0] for tag in ("00280010", "00280011", "00280100"))
    return tuple(value if isinstance(value, int) and 0 <= value < 2**31 else None for value in values)


def tsvector(lexemes: Any) -> str:
    """Text of a tsvector, or of one lexeme of a tsquery, that holds exactly these words."""
    return " ".join("'" + word.replace("\\", "\\\\").replace("'", "''") + "'" for word in dict.fromkeys(lexemes))
