"""Volumes, geometry and the choice of series: pure functions, no network (stage 4).

Coordinates: DICOM patient coordinates (LPS, millimetres), DICOM PS3.3 C.7.6.2.
"""
