"""UPS-RS: the Worklist Service (DICOM PS3.18 §11) as a view on the record's Tasks (ADR 0035)."""
