"""The one door to pixels: QIDO-RS, WADO-RS, STOW-RS, intake and the study index, under the same tokens as FHIR."""
