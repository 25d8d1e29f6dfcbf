"""Ways in: files of any kind → DICOM instances → C-STORE to the archive."""
