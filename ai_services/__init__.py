"""Imaging AI: reads series through DICOMweb, proposes findings, publishes them as DICOM and FHIR (stages 4 to 6).

Every output is a proposal until a clinician verifies it: https://hl7.org/fhir/R4/observation.html#status.
"""
