"""Lumbar MR, sagittal T2: segmentation, level numbering, measurements and disc grades (stage 4).

Start at pipeline.py, which reads top-down; what may be claimed is in MODEL_CARD.md.
"""
