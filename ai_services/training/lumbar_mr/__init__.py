"""Trains the lumbar MR pipeline: segmentation, then grading, then export to ONNX (stage 11).

Data: SPIDER, van der Graaf et al., Sci Data 11, 264 (2024), https://doi.org/10.1038/s41597-024-03090-w, CC BY 4.0.
"""
