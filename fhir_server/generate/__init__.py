"""Generators of the committed tables (search parameters, element rules, compartment); not imported at run time."""
