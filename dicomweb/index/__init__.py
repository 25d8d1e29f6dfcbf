"""The study index's inside: which attribute belongs to which level, folded texts, rows, bulk load, rebuilding."""
