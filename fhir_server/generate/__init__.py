"""Generators of the committed tables: search parameters, element rules, patient compartment. Never imported at run time."""
