"""Foramen's own code systems, value sets and concept maps (clinical model §1.1, §1.4, §3.1, §6.5)."""
