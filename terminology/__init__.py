"""Meaning: code systems and codes, each with its source. No code literal stands anywhere else."""
