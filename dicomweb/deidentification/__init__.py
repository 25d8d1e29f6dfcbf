"""De-identification of DICOM objects: PS3.15 Annex E, Basic Application Level Confidentiality Profile with options.

https://dicom.nema.org/medical/dicom/current/output/chtml/part15/chapter_E.html
Order: `profile` (table and rules) → `identity` (who it is, under the project's key) → `instance` (one data set) →
`verification` (an independent search of the result) → `report`. ADR 0038.
"""
