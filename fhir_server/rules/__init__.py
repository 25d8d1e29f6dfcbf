"""Rules of our own that a write must obey."""
