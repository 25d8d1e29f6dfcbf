"""Functions of FHIRPath, by subject; importing this package registers them all.

http://hl7.org/fhirpath/N1/#functions, https://hl7.org/fhir/R4/fhirpath.html#functions
"""

from fhir_server.fhirpath.functions import (
    boundaries,
    conversion,
    existence,
    fhir,
    filtering,
    numbers,
    sets,
    strings,
    tree,
    typing,
)
from fhir_server.fhirpath.functions.registry import compile_call, names

__all__ = [
    "boundaries",
    "compile_call",
    "conversion",
    "existence",
    "fhir",
    "filtering",
    "names",
    "numbers",
    "sets",
    "strings",
    "tree",
    "typing",
]
