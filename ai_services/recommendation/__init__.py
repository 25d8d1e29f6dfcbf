"""Treatment options from rules that are data: deterministic, explained, never learned (stage 5).

Every rule carries its source; https://hl7.org/fhir/R4/guidanceresponse.html names the rule base and its version.
"""
