"""Stage 7: WADO-RS and WADO-URI, pixels straight from the archive's files (DICOM PS3.18 §9 and §10.4)."""
