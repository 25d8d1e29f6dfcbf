"""Lumbar CT: one thin-slice series in, outlines of vertebrae and bony geometry out (stage 4).

Classical geometry, checked on SYNTHETIC phantoms only; what may be claimed is in MODEL_CARD.md (nothing clinical).
"""
