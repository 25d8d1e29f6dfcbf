"""Prediction → DICOM SEG, DICOM SR and one FHIR transaction: pure builders; only `publish` writes (stages 5 and 6).

DICOM PS3.3 A.51 (Segmentation), A.35.13 (Comprehensive 3D SR); https://hl7.org/fhir/R4/http.html#transaction.
"""
