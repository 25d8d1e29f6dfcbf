"""The Store transaction (STOW-RS), DICOM PS3.18 §10.5: receive, check, store, index, report."""
