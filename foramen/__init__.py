"""Foramen: imaging, records and AI for lumbar disc herniation surgery, joined by open standards."""

__version__ = "0.1.0"
