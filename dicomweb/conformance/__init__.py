"""What this origin server does, said by the table of calls itself (DICOM PS3.18 §8.9, Annex H; PS3.2)."""
