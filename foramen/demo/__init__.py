"""The demonstration: SYNTHETIC patients, a lumbar study through every stage, and the check that proves it."""
